"""Runs side by side in the terminal: what ``sparsedistill compare`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dashboards import format as fmt
from dashboards.comparison import as_summary
from dashboards.summary import number, rows, title

if TYPE_CHECKING:
    from dashboards.summary import Summary

_MOST_SETTINGS = 4


def comparison_table(comparison: Summary) -> Table:
    """Return the runs' students and teachers, a row each, and the settings that differ."""
    students = as_summary(comparison)
    settings = rows(comparison, "settings")
    runs = len(rows(comparison, "runs"))
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("run")
    names = [fmt.one_line(one.get("key"), limit=24) for one in settings[:_MOST_SETTINGS]]
    for heading in ("accuracy", "", "macro-F1", "agreement", "texts/s", "size", *names):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, row in enumerate(rows(students, "results")):
        values = [
            fmt.one_line((one.get("values") or [])[place], limit=16) if place < runs else ""
            for one in settings[:_MOST_SETTINGS]
        ]
        table.add_row(
            Text(title(students, row.get("model"))),
            fmt.exact_share(number(row, "accuracy")),
            fmt.points(number(row, "accuracy_spread")),
            fmt.share(number(row, "macro_f1")),
            fmt.share(number(row, "agreement")),
            fmt.rate(number(row, "texts_per_second")),
            fmt.size(number(row, "bytes")),
            *(Text(value) for value in values),
            style=None if place < runs else "dim",
        )
    return table
