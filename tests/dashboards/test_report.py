from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest
from summary_example import make_summary

from dashboards import theme
from dashboards.report import render_report
from dashboards.sections import SECTIONS
from dashboards.summary import headline

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\u202e\x00\ud800"
MAKERS = {anchor: make for anchor, _, make in SECTIONS}
_VOID = {"meta"}


class Page(HTMLParser):
    """Collects what a browser would see, and checks that every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def hostile(value):
    """The same summary with a hostile tail on every text that is not a key of the format."""
    fixed = {"model", "step", "evaluated_on", "split", "student", "id"}
    if isinstance(value, dict):
        return {k: v if k in fixed or k == "edges" else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return value + HOSTILE if isinstance(value, str) else value


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(make_summary())


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_every_number_of_the_results_is_on_the_page_as_it_is_and_as_people_read_it(page):
    exact = {attrs.get("value") for tag, attrs in page.tags if tag == "data"}
    for row in make_summary()["results"]:
        for key in ("accuracy", "accuracy_spread", "macro_f1", "agreement"):
            if row[key] is not None:
                assert repr(row[key]) in exact
                assert f"{100 * row[key]:.1f}" in page.text
        assert repr(row["texts_per_second"]) in exact
        assert f"{row['texts_per_second']:,.0f}" in page.text
        assert repr(row["bytes"]) in exact
        assert row["title"] in page.text
    assert "8.81\u00a0MB" in page.text


def test_the_headline_is_one_plain_sentence(page):
    told = "The student keeps 97.4\u00a0% of the teacher's accuracy and answers 812\u00a0× faster."
    assert told in page.text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"retained": 1.0123}, "The student reaches 101.2\u00a0% of the teacher's accuracy"),
        ({"speedup": 0.5}, "but answers 2.0\u00a0× slower"),
        ({"retained": None, "speedup": None}, "The student is right on 77.6\u00a0% of the texts."),
    ],
)
def test_the_headline_stays_true_for_odd_outcomes(summary, changes, sentence):
    summary["headline"].update(changes)
    assert sentence in headline(summary)


def test_every_section_is_there_and_the_contents_lead_to_it(page):
    anchors = {attrs["id"] for tag, attrs in page.tags if tag == "section"}
    links = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert anchors == {name for name, _, _ in SECTIONS} - {"change"}  # of re-distillations
    assert links == {f"#{name}" for name in anchors}
    assert "quiet" not in {attrs.get("class") for _, attrs in page.tags}


@pytest.mark.parametrize(
    ("part", "anchor"),
    [
        ("results", "results"),
        ("training", "training"),
        ("calibration", "confidence"),
        ("teacher", "teacher"),
        ("ngrams", "n-grams"),
        ("package", "package"),
        ("stages", "stages"),
        ("lineage", "lineage"),
        ("environment", "environment"),
    ],
)
@pytest.mark.parametrize("absent", ["null", "missing", "empty"])
def test_a_part_that_was_not_run_leaves_one_quiet_line(summary, part, anchor, absent):
    if absent == "missing":
        del summary[part]
    else:
        summary[part] = None if absent == "null" else type(summary[part])()
    section = str(MAKERS[anchor](summary))
    assert section.count("<p") == section.count('<p class="quiet">') == 1
    assert "<svg" not in section
    assert "<table" not in section


def test_the_mistakes_vanish_with_their_three_parts(summary):
    del summary["confusion"], summary["disagreements"]
    assert MAKERS["mistakes"](summary).startswith('<p class="quiet">')


def test_an_empty_summary_is_a_page_of_quiet_lines():
    page = Page(render_report({"format": 1}))
    assert "No student was evaluated in this run." in page.text
    assert not any(tag == "svg" for tag, _ in page.tags)


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from leaves(value[0], (*path, 0))
    elif path:
        yield path


def test_any_value_may_be_null_as_the_schema_allows(summary, monkeypatch):
    """Page by page, a few more leaves of every part are null: parts do not depend on each other."""
    # Drawing is tested elsewhere; without it this takes seconds.
    monkeypatch.setattr("dashboards.blocks.to_svg", lambda _, **__: "<svg></svg>")
    by_part = {}
    for path in leaves(summary):
        if path[0] not in {"format", "lineage", "confusion"}:
            by_part.setdefault(path[0], []).append(path)
    pages = 12
    for page in range(pages):
        damaged = make_summary()
        for path in itertools.chain.from_iterable(paths[page::pages] for paths in by_part.values()):
            place = damaged
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = None
        Page(render_report(damaged))


def test_nothing_is_loaded_from_outside_and_nothing_can_run(html, page):
    assert "http" not in html.replace("http-equiv", "")
    assert "script" not in {tag for tag, _ in page.tags}
    assert "default-src 'none'" in html
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    loading = {"src", "srcset", "xlink:href", "data", "background", "poster"}
    for tag, attrs in page.tags:
        assert not loading & set(attrs), tag
        assert not any(name.startswith("on") for name in attrs), tag


def test_hostile_texts_stay_texts(page):
    attacked = hostile(make_summary())
    html = render_report(attacked)
    shown = Page(html)
    tags = {tag for tag, _ in shown.tags}
    assert not tags & {"script", "img", "iframe", "object", "embed"}
    assert tags == {tag for tag, _ in page.tags}
    assert "<script>alert(1)</script>" in shown.text
    for _, attrs in shown.tags:
        assert not any(name.startswith("on") for name in attrs)
    assert not re.search(rb"[\x00-\x08\x0e-\x1f]", html.encode("utf-8"))
    assert "\u202e" not in html


def test_a_text_with_an_address_is_shown_and_not_linked(summary):
    summary["disagreements"]["examples"][0]["text"] = "see http://example.org/a?b=1&c"
    page = Page(MAKERS["mistakes"](summary))
    assert "see http://example.org/a?b=1&c" in page.text
    assert "a" not in {tag for tag, _ in page.tags}


def test_words_of_an_example_are_marked_by_what_they_do_and_not_by_colour_alone(summary):
    example = {
        "text": "  not a bad film <b>",
        "words": [[2, 5, -0.9], [6, 7, 0.01], [8, 11, 1.8], [12, 16, 0.9], [17, 20, 0.5]],
    }
    summary["disagreements"]["examples"] = [example]
    section = str(MAKERS["mistakes"](summary))
    assert '<mark class="against s2" title="−0.90">not</mark> a ' in section
    assert '<mark class="for s4" title="+1.80">bad</mark>' in section
    assert '<mark class="for s2" title="+0.50">&lt;b&gt;</mark>' in section
    assert "away from it" in section
    css = resources.files("dashboards").joinpath("highlighting.css").read_text("utf-8")
    assert {"solid", "dashed"} <= set(re.findall("solid|dashed", css))


@pytest.mark.parametrize(
    "words",
    [None, 7, [None], [[0, 3]], [[0, 3, None]], [[0, 3, float("nan")]], [[3, 0, 1.0]],
     [[0, 900, 1.0]], [[-2, 3, 1.0]], [["0", 3, 1.0]]],
)  # fmt: skip
def test_words_that_are_none_leave_the_text_as_it_is(summary, words):
    summary["disagreements"]["examples"] = [{"text": "not a bad film", "words": words}]
    assert '<blockquote dir="auto">not a bad film</blockquote>' in MAKERS["mistakes"](summary)


def test_a_text_that_is_cut_keeps_the_marks_of_what_is_left(summary):
    text = "good " * 200
    words = [[5 * i, 5 * i + 4, 1.0] for i in range(200)]
    summary["disagreements"]["examples"] = [{"text": text, "words": words}]
    section = str(MAKERS["mistakes"](summary))
    marked = section.partition("<blockquote")[2].partition("</blockquote>")[0]
    assert marked.count("<mark") == 84
    assert marked.endswith("…")


def test_the_same_summary_gives_the_same_bytes(html):
    assert render_report(json.loads(json.dumps(make_summary()))) == html


def test_ids_are_unique_and_every_reference_is_on_the_page(html, page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= set(ids)


def test_the_page_is_small(html):
    assert len(html.encode()) < 300_000


def test_a_large_run_stays_below_two_megabytes(summary):
    n = 30
    summary["labels"] = [f"label {i}" for i in range(n)]
    summary["confusion"] = {
        "labels": summary["labels"],
        "models": {
            model: [[(i * j) % 7 + 1 for j in range(n)] for i in range(n)]
            for model in ("teacher", "dan_kd_ft")
        },
    }
    run = summary["training"][0]
    summary["training"] = [
        {
            **run,
            "seed": seed,
            "points": [{**run["points"][i % 32], "update": 100 * i} for i in range(5000)],
        }
        for seed in range(15)
    ]
    example = {**summary["disagreements"]["examples"][0], "text": "word " * 4000}
    summary["disagreements"]["examples"] = [example] * 200
    html = render_report(summary)
    assert len(html.encode()) < 2_000_000
    assert "184 more are in summary.json" in Page(html).text


def test_many_labels_give_a_table_of_mistakes_in_place_of_an_unreadable_matrix(summary):
    n = 77
    matrix = [[40 if i == j else 0 for j in range(n)] for i in range(n)]
    matrix[3][5] = 17
    summary["confusion"] = {
        "labels": [f"intent {i}" for i in range(n)],
        "models": {"teacher": matrix, "dan_kd_ft": matrix},
    }
    section = MAKERS["mistakes"](summary)
    assert "<td>intent 5</td><td>17</td>" in section


def test_a_newer_format_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"format 2; this version reads format 1\. Update"):
        render_report({"format": 2})


def test_the_dark_half_of_the_style_knows_the_colours_of_the_pictures():
    css = resources.files("dashboards").joinpath("report.css").read_text("utf-8")
    known = set(re.findall(r'\[(?:fill|stroke)="(#[0-9a-f]{6})"\]', css))
    used = {theme.INK, theme.MUTED, theme.GRID, theme.RULE, theme.ACCENT}
    assert used <= known
    assert known <= used | set(theme.MODEL_COLOURS.values())
