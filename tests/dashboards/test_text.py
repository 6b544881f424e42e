"""The Markdown of the Prefect page, the tables of the terminal, and how numbers are written."""

from __future__ import annotations

import base64
import re

import pytest
from rich.console import Console
from summary_example import make_summary

from dashboards import format as fmt
from dashboards.markdown import MOST_CHARACTERS, render_markdown
from dashboards.terminal import results_table


@pytest.fixture(scope="module")
def page() -> str:
    return render_markdown(make_summary())


def printed(table) -> str:
    console = Console(width=120, no_color=True, record=True, quiet=False, file=_Nowhere())
    console.print(table)
    return console.export_text()


class _Nowhere:
    def write(self, text):
        return len(text)

    def flush(self):
        return None


def test_markdown_holds_the_table_and_four_pictures_below_the_limit(page):
    pictures = re.findall(r"!\[[^\]]+\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)", page)
    assert len(pictures) == 4
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert len(page) < MOST_CHARACTERS
    for row in make_summary()["results"]:
        assert f"{100 * row['accuracy']:.1f}\u00a0%" in page
        assert f"{row['texts_per_second']:,.0f}" in page
    assert "keeps 97.4\u00a0% of the teacher's accuracy" in page


def test_markdown_has_no_html_no_mermaid_and_loads_nothing(page):
    words = re.sub(r"\(data:image/png;base64,[^)]*\)", "", page)
    assert "<" not in words
    assert "mermaid" not in words
    assert "http" not in words


def test_markdown_is_deterministic(page):
    assert render_markdown(make_summary()) == page


def test_markdown_drops_to_a_smaller_scale_to_stay_below_the_limit(summary, monkeypatch):
    monkeypatch.setattr("dashboards.markdown.MOST_CHARACTERS", 120_000)
    page = render_markdown(summary)
    assert len(page) < 120_000
    assert page.count("data:image/png") == 4


def test_hostile_names_stay_text_in_markdown(summary):
    summary["name"] = "a | b\n# c <b>d</b> ![x](http://e/f.png) `g`"
    summary["results"][0]["title"] = "| [x](javascript:alert(1)) *y*"
    del summary["training"], summary["calibration"], summary["confusion"]
    words = re.sub(r"\(data:image/png;base64,[^)]*\)", "", render_markdown(summary))
    assert "<b>" not in words
    assert r"\!\[x\](http://e/f.png)" in words
    table = [line for line in words.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(summary["results"])
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 8 for line in table)


def test_markdown_of_an_empty_summary_says_so():
    assert "No model was evaluated in this run." in render_markdown({"format": 1})


def test_the_terminal_shows_every_result():
    shown = printed(results_table(make_summary()))
    for row in make_summary()["results"]:
        line = next(line for line in shown.splitlines() if line.startswith(row["title"]))
        assert f"{100 * row['accuracy']:.1f}\u00a0%" in line
        assert f"{100 * row['macro_f1']:.1f}\u00a0%" in line
        assert f"{row['texts_per_second']:,.0f}" in line
        assert fmt.size(row["bytes"]) in line
    assert "±\u00a00.6" in shown
    assert "812\u00a0×" in shown


def test_brackets_and_escapes_in_titles_are_not_markup_in_the_terminal(summary):
    summary["results"][0]["title"] = "[red]x[/red] \x1b[31m"
    shown = printed(results_table(summary))
    assert "[red]x[/red]" in shown
    assert "\x1b" not in shown


def test_empty_tables_can_be_printed():
    assert "model" in printed(results_table({}))


@pytest.mark.parametrize("function", [results_table, render_markdown])
def test_a_newer_format_is_refused(function):
    with pytest.raises(ValueError, match="format 9"):
        function({"format": 9})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (fmt.share(0.7451), "74.5 %"),
        (fmt.share(None), "–"),
        (fmt.exact_share(0.77643), "77.64 %"),
        (fmt.points(0.0041), "± 0.4"),
        (fmt.points(None), ""),
        (fmt.count(1234567), "1,234,567"),
        (fmt.short_count(999), "999"),
        (fmt.short_count(1_250_000), "1.25M"),
        (fmt.short_count(0), "0"),
        (fmt.rate(8.44), "8.4"),
        (fmt.rate(98412.3), "98,412"),
        (fmt.times(812.3), "812 ×"),
        (fmt.times(1.04), "1.0 ×"),
        (fmt.times(0.4), "0.40 ×"),
        (fmt.size(0), "0 B"),
        (fmt.size(999), "999 B"),
        (fmt.size(1000), "1 kB"),
        (fmt.size(52_440_000), "52.4 MB"),
        (fmt.size(4_000_000_000), "4 GB"),
        (fmt.duration(0.42), "0.4 s"),
        (fmt.duration(9.96), "10 s"),
        (fmt.duration(59.7), "1 min 00 s"),
        (fmt.duration(91), "1 min 31 s"),
        (fmt.duration(7500), "2 h 05 min"),
        (fmt.decimal(2.4e-06), "2.4e-06"),
        (fmt.signed(-1.2), "−1.20"),
        (fmt.one_line("a\n  b\x00", limit=10), "a b\ufffd"),
        (fmt.one_line("abcdefghij", limit=5), "abcd…"),
    ],
)
def test_numbers_are_written_for_people(written, expected):
    assert written.replace("\u00a0", " ") == expected
