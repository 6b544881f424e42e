"""What a run says when it could not make everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RunFailedError(Exception):
    """Some artifacts could not be made; what was made is kept, and the next run does the rest.

    Attributes:
        rows: One for each thing missing: stage and reason.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]]) -> None:
        super().__init__(rows)
        self.rows = rows

    def __str__(self) -> str:
        lines = [f"  {row['stage']}: {row['reason']}" for row in self.rows]
        return "the run could not make everything:\n" + "\n".join(lines)
