"""``explain``: the terminal, the JSON and the page tell the same, whatever the text."""

from __future__ import annotations

import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.small_classifier import LABELS, save, small_classifier

from dashboards.explanation import lines, shown_labels
from flows.cli import main
from flows.explanation_text import render
from flows.plain_tables import display_width
from sparsedistill.classifier import Classifier

TEXT = "Not good, not a good film:\nİstanbul and 東京"
HOSTILE = "good <script>alert(1)</script> film \x1b[2J\x00 \u202e bad\" onmouseover='x'"
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "m", small_classifier())


@pytest.fixture
def explanation(model: Path):
    return Classifier.load(model).explain(TEXT).to_json()


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("top", [1, 3, 99])
def test_the_table_adds_up(explanation, top: int):
    labels = shown_labels(explanation)
    *parts, logit = lines(explanation, labels, top)
    assert logit.values == [explanation["logits"][label] for label in labels]
    for column, total in enumerate(logit.values):
        assert sum(line.values[column] for line in parts) == pytest.approx(total, abs=1e-12)
    kinds = [line.kind for line in parts]
    order = ["for", "against", "others", "bias"]
    assert kinds == sorted(kinds, key=order.index)
    shown = [line for line in parts if line.kind in ("for", "against")]
    assert len(shown) == min(top, len(explanation["ngrams"]))


def test_what_is_printed_adds_up_too(model: Path, capsys: Captured, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["explain", str(model), TEXT, "--top", "2"]) == 0
    said = capsys.readouterr().out
    number = re.compile(r"[+-]\d+\.\d{3}")
    rows = [
        [float(value) for value in number.findall(line)]
        for line in said.splitlines()
        if number.search(line)
    ]
    *parts, logits = rows
    assert len(parts) == 2 + 1 + 1
    for column, logit in enumerate(logits):
        assert sum(row[column] for row in parts) == pytest.approx(logit, abs=0.003)


def test_without_a_terminal_there_is_no_colour_and_with_one_not_colour_alone(explanation):
    plain = render(explanation, top=5, colour=False, width=80)
    coloured = render(explanation, top=5, colour=True, width=80)
    assert "\033" not in plain
    assert re.sub(r"\033\[[\d;]*m", "", coloured) == plain
    # What speaks against the label is underlined, not only of another colour.
    against = re.findall(r"\033\[38;5;16;4;48;5;\d+m", coloured)
    towards = re.findall(r"\033\[38;5;16;48;5;\d+m", coloured)
    assert against
    assert towards


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_lines_fit_the_terminal_and_no_character_of_the_text_is_lost(explanation, width: int):
    shown = render(explanation, top=5, colour=False, width=width)
    text = shown.partition("\n\n")[2].partition("\n\n")[0]
    assert "".join(text.split()) == "".join(TEXT.split())
    assert all(display_width(line) <= width for line in text.splitlines())


def test_a_text_of_one_long_word_or_none_is_shown(model: Path, capsys: Captured):
    for text in ("x" * 500, "", " ", "\n\n"):
        assert main(["explain", str(model), text]) == 0
        said = capsys.readouterr().out
        assert "no n-gram of the text is known: the label is the model's bias" in said
        assert text.strip() in said


def test_a_text_cannot_take_over_the_terminal(model: Path, capsys: Captured):
    assert main(["explain", str(model), HOSTILE]) == 0
    said = capsys.readouterr().out
    assert not set(said) & {"\x1b", "\x00", "\u202e"}
    assert "<script>" in said


def test_as_json_it_is_the_explanation(model: Path, explanation, capsys: Captured):
    assert main(["explain", str(model), TEXT, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == explanation


def test_the_page_needs_nothing_but_itself_and_runs_nothing(
    model: Path, tmp_path: Path, capsys: Captured
):
    path = tmp_path / "why.html"
    assert main(["explain", str(model), HOSTILE, "--html", str(path)]) == 0
    assert capsys.readouterr().out == ""
    html = path.read_text("utf-8")
    page = Page(html)
    assert not {"script", "img", "link", "iframe", "a"} & set(page.tags)
    assert not any(name.startswith("on") or name in ("src", "href") for name, _ in page.attributes)
    assert "default-src 'none'" in html
    assert "http" not in html.replace("http-equiv", "")
    assert "<script>alert(1)</script>" in page.text.replace("\n", "")
    assert not set(html) & {"\x1b", "\x00", "\u202e"}


def test_the_page_marks_words_and_shows_every_label(model: Path, tmp_path: Path):
    path = tmp_path / "why.html"
    assert main(["explain", str(model), TEXT, "--html", str(path), "--top", "2"]) == 0
    html = path.read_text("utf-8")
    page = Page(html)
    assert TEXT in page.text
    for label in LABELS:
        assert label in page.text
    assert re.search(r'<mark class="(for|against) s\d" title="[+−]\d\.\d\d">', html)
    assert "other n-grams" in page.text
    assert "add up to the logit exactly" in page.text
    assert "prefers-color-scheme: dark" in html


def test_a_text_that_is_not_read_to_its_end_is_called_so(tmp_path: Path, capsys: Captured):
    from dataclasses import replace

    whole = small_classifier()
    short = Classifier(replace(whole.folded, max_ngrams=2), ngrams=whole.ngrams)
    directory = save(tmp_path / "short", short)
    assert main(["explain", str(directory), "good film bad"]) == 0
    assert "longer than the model reads" in capsys.readouterr().out


def test_no_ngrams_at_all_are_refused(model: Path, capsys: Captured):
    assert main(["explain", str(model), "good", "--top", "0"]) == 1
    assert "--top must be at least 1, not 0" in capsys.readouterr().err


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch):
    from flows.explain_command import has_colours

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert has_colours()
    monkeypatch.setenv("NO_COLOR", "")
    assert has_colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_colours()


def test_json_cannot_take_over_the_terminal_and_says_the_same(model: Path, capsys: Captured):
    text = HOSTILE + "\x7f\x85\x9b2J"
    assert main(["explain", str(model), text, "--json"]) == 0
    said = capsys.readouterr().out
    assert not set(said) & {"\x1b", "\x00", "\u202e", "\x7f", "\x85", "\x9b"}
    assert json.loads(said) == Classifier.load(model).explain(text).to_json()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_of_few_characters_gets_what_it_has(
    model: Path, explanation, monkeypatch: pytest.MonkeyPatch, encoding: str
):
    def said(*options: str) -> str:
        stdout = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["explain", str(model), TEXT, *options]) == 0
        stdout.flush()
        return stdout.buffer.getvalue().decode(encoding)

    assert "stanbul and ??" in said()
    # What a program reads is not to lose anything.
    assert json.loads(said("--json")) == explanation


def test_a_page_that_cannot_be_written_is_called_by_its_option(model: Path, capsys: Captured):
    assert main(["explain", str(model), "good", "--html", "nowhere/x.html"]) == 1
    assert "--html nowhere/x.html cannot be written: No such file" in capsys.readouterr().err
