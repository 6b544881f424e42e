"""What each stage of a run took: rows, bytes, work, waiting, retries; from the jobs' outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from dashboards import format as fmt
from tasks.work import together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.stage import Outcome

_NUMBERS = (
    "made", "cached", "rows", "rows/s", "read", "written", "work", "waited", "retries",
)  # fmt: skip


def work_rows(outcomes: Mapping[str, Sequence[Outcome]]) -> list[dict[str, Any]]:
    """Return a row a stage, as people read it.

    ``rows/s`` is of work: rows of what was made here, by the seconds all workers spent on it
    together. ``waited`` is for another run that made the same, and for a device.
    """
    return [_row(stage, some) for stage, some in outcomes.items() if some]


def work_table(outcomes: Mapping[str, Sequence[Outcome]]) -> Table:
    """Return the stages of which something was made, for the terminal; no column is empty."""
    rows = [row for row in work_rows(outcomes) if row["made"]]
    headings = [heading for heading in _NUMBERS if any(row[heading] for row in rows)]
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row["stage"], *(str(row[heading]) for heading in headings))
    return table


def _row(stage: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    took = together([one.work for one in outcomes if one.work is not None])
    made = sum(not one.cached for one in outcomes)
    rate = took.rows_per_second
    return {
        "stage": stage,
        "made": made,
        "cached": len(outcomes) - made,
        "rows": "" if took.rows is None else fmt.count(took.rows),
        "rows/s": "" if rate is None else fmt.count(round(rate)),
        "read": fmt.size(took.read) if made else "",
        "written": fmt.size(took.written) if made else "",
        "work": fmt.duration(took.seconds) if made else "",
        "waited": fmt.duration(took.seconds_waited) if took.seconds_waited >= 0.5 else "",
        "retries": took.retries or "",
    }
