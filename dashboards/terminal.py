"""Tables for the terminal: what ``sparsedistill distill`` prints at the end."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from dashboards import format as fmt
from dashboards.summary import Summary, check_format, number, part, rows, times_teacher, title


def results_table(summary: Summary) -> Table:
    """Return the results, one model a row; the student of the headline in bold."""
    check_format(summary)
    table = _table(
        ["model", "accuracy", "", "macro-F1", "agreement", "texts/s", "× teacher", "size"]
    )
    student = part(summary, "headline").get("student")
    for row in rows(summary, "results"):
        # Text, not str: a bracket in a title is no markup here.
        table.add_row(
            Text(title(summary, row.get("model"))),
            fmt.share(number(row, "accuracy")),
            fmt.points(number(row, "accuracy_spread")),
            fmt.share(number(row, "macro_f1")),
            fmt.share(number(row, "agreement")),
            fmt.rate(number(row, "texts_per_second")),
            fmt.times(times_teacher(summary, row)),
            fmt.size(number(row, "bytes")),
            style="bold" if student is not None and row.get("model") == student else None,
        )
    return table


def _table(headings: list[str]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(headings[0])
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
