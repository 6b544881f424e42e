"""The page of several runs side by side: its figures, its warnings, and what it must not do."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from rich.console import Console
from summary_example import make_summary
from test_report import HOSTILE, Page

from dashboards.change import change
from dashboards.comparison import as_summary, notes, render_comparison
from dashboards.comparison_table import comparison_table
from dashboards.report import render_report

CHANGE = {
    "promote": True,
    "why": "not worse by more than 0.5 %",
    "splits": {
        "dev": {
            "rows": 200, "new_accuracy": 0.915, "current_accuracy": 0.905, "only_new": 5,
            "only_current": 3, "agreement": 0.955, "p_value": 0.727,
        }
    },
    "ngrams": {"added": 1200, "gone": 7, "examples": {"added": ["a new film"], "gone": []}},
}  # fmt: skip


def comparison(count: int = 2, **changes: Any) -> dict[str, Any]:
    runs = []
    for number in range(count):
        summary = copy.deepcopy(make_summary())
        for row in summary["results"]:
            if row["model"] != "teacher":
                row["accuracy"] += 0.001 * number
        runs.append({"name": f"run-{number}", "texts": "same", "summary": summary})
    return {
        "format": 1,
        "created": "2026-03-01T04:05:06+00:00",
        "tool_version": "1",
        "runs": runs,
        "settings": [{"key": "student.width", "values": [64 * (n + 1) for n in range(count)]}],
        **changes,
    }


def test_every_run_has_its_figures_on_the_page():
    found = comparison(3)
    page = Page(render_comparison(found))
    exact = {attrs.get("value") for tag, attrs in page.tags if tag == "data"}
    for run in found["runs"]:
        assert run["name"] in page.text
        for row in run["summary"]["results"]:
            assert repr(row["accuracy"]) in exact
    for value in ("student.width", "64", "128", "192"):
        assert value in page.text
    assert "run-2 is the most accurate of 3" in page.text


def test_the_page_needs_nothing_but_itself():
    page = Page(render_comparison(comparison()))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "link", "iframe", "object"}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"href", "src"}:
                assert value is not None
                assert value.startswith("#")


def test_a_hostile_name_stays_a_text():
    found = comparison()
    for run in found["runs"]:
        run["name"] += HOSTILE
    found["settings"] = [{"key": HOSTILE, "values": [HOSTILE, {"a": HOSTILE}]}]
    page = Page(render_comparison(found))
    assert not any(tag in {"script", "img"} for tag, _ in page.tags)


def test_the_same_comparison_gives_the_same_page():
    assert render_comparison(comparison()) == render_comparison(comparison())


def test_a_teacher_that_runs_share_is_one_row_and_two_teachers_are_two():
    assert [row["title"] for row in as_summary(comparison())["results"]] == [
        "run-0", "run-1", "teacher",
    ]  # fmt: skip
    found = comparison()
    found["runs"][1]["summary"]["results"][-1]["accuracy"] = 0.5
    assert [row["title"] for row in as_summary(found)["results"]] == [
        "run-0", "run-1", "teacher of run-0", "teacher of run-1",
    ]  # fmt: skip


@pytest.mark.parametrize("count", [2, 7, 9])
def test_every_run_has_a_mark_of_its_own_while_there_are_some(count: int):
    marks = [row["model"] for row in as_summary(comparison(count))["results"]]
    assert len(set(marks)) == count + 1
    assert render_comparison(comparison(count))


def test_runs_on_other_texts_or_machines_are_said_not_to_compare():
    assert len(notes(comparison())) == 1
    found = comparison()
    found["runs"][1]["texts"] = "others"
    assert "not measured on the same texts" in notes(found)[0]
    assert "measured on different texts" in Page(render_comparison(found)).text
    found = comparison()
    found["runs"][1]["summary"]["environment"]["threads"] = 64
    assert "one machine" in notes(found)[1]


def test_parts_that_were_not_run_are_said_to_be_missing():
    empty = {"name": "x", "summary": {"format": 1}}
    page = Page(render_comparison(comparison(runs=[empty, empty], settings=[])))
    assert "Nothing was evaluated" in page.text
    assert "the configurations are the same" in page.text


def test_a_newer_comparison_is_refused():
    with pytest.raises(ValueError, match=r"comparison\.json has format 2"):
        render_comparison(comparison(format=2))


def test_the_terminal_shows_a_row_a_run():
    console = Console(width=160, record=True)
    console.print(comparison_table(comparison()))
    lines = console.export_text().splitlines()
    assert [line.split()[0] for line in lines if line.strip()] == [
        "run",
        "run-0",
        "run-1",
        "teacher",
    ]
    assert re.search(r"student\.width", lines[0])


def test_a_report_tells_what_a_re_distillation_changed():
    summary = {**make_summary(), "change": CHANGE}
    page = Page(render_report(summary))
    for told in ("What changed", "To be promoted", "91.50", "90.50", "1,200 n-grams are new"):
        assert told in page.text
    assert "a new film" in page.text
    assert "What changed" not in Page(render_report(make_summary())).text


def test_models_that_cannot_be_compared_have_no_table():
    found = {"promote": False, "why": "the labels are others", "splits": {}, "ngrams": {}}
    html = change({"change": found})
    assert "Not to be promoted: the labels are others" in html
    assert "<table" not in html
