"""The run as Markdown for the Prefect run page.

That page renders tables and data-URI pictures; it strips raw HTML and shows Mermaid as code.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from dashboards import charts
from dashboards import format as fmt
from dashboards.summary import (
    Summary,
    check_format,
    headline,
    number,
    part,
    rows,
    times_teacher,
    title,
)
from dashboards.svg import to_png
from dashboards.teacher import remarks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dashboards.drawing import Chart

# Prefect keeps the page in its database and sends it with every look at the run.
MOST_CHARACTERS = 400_000
_SCALES = (2.0, 1.5, 1.0)
_ACTIVE = re.compile(r"([\\`*_\[\]|~!#])")


def render_markdown(summary: Summary) -> str:
    """Return headline, results and up to four charts as Markdown below `MOST_CHARACTERS`.

    Raises:
        ValueError: the summary has a newer format.
    """
    check_format(summary)
    name = _escaped(fmt.one_line(summary.get("name", "run")))
    words = [
        f"# {name}",
        f"**{_escaped(headline(summary))}**",
        results_markdown(summary),
        _of_the_teacher(summary),
    ]
    pictures = _charts(summary)
    page = ""
    for scale in _SCALES:
        images = [
            f"### {caption}\n\n![{caption}](data:image/png;base64,"
            f"{base64.b64encode(to_png(chart, scale=scale)).decode()})"
            for caption, chart in pictures
        ]
        page = "\n\n".join(filter(None, [*words, *images])) + "\n"
        if len(page) < MOST_CHARACTERS:
            break
    return page


def _charts(summary: Summary) -> list[tuple[str, Chart]]:
    student = str(part(summary, "headline").get("student", ""))
    candidates = [
        ("Accuracy against speed", charts.accuracy_against_speed(summary, width=680, height=300)),
        ("Accuracy on dev while training", charts.training_curves(summary, "dev_accuracy")),
        ("Confidence of the student, calibrated", charts.reliability(summary, "after")),
        ("Answers of the student", charts.confusion(summary, student)),
    ]
    return [(caption, chart) for caption, chart in candidates if chart is not None]


def results_markdown(summary: Summary) -> str:
    """Return the table of results alone, as READMEs and docs quote it."""
    lines = [
        _row(
            [
                _escaped(title(summary, row.get("model"))),
                fmt.share(number(row, "accuracy"))
                + " "
                + fmt.points(number(row, "accuracy_spread")),
                fmt.share(number(row, "macro_f1")),
                fmt.share(number(row, "agreement")),
                fmt.rate(number(row, "texts_per_second")),
                fmt.times(times_teacher(summary, row)),
                fmt.size(number(row, "bytes")),
            ]
        )
        for row in rows(summary, "results")
    ]
    if not lines:
        return "No model was evaluated in this run."
    heads = ["Model", "Accuracy", "Macro-F1", "Agreement", "Texts/s", "× teacher", "Size"]
    return "\n".join([_row(heads), _row([":--", *["--:"] * (len(heads) - 1)]), *lines])


def _of_the_teacher(summary: Summary) -> str:
    return "\n".join(f"* {_escaped(one)}" for one in remarks(summary))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.strip() for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Make `text` plain Markdown text: no emphasis, link, picture, cell border or tag in it."""
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _ACTIVE.sub(r"\\\1", plain)
