"""What a run says when it could not make everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards import format as fmt
from storage.errors import is_out_of_space
from tasks.logs import without_secrets

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


class DiskTooSmallError(Exception):
    """There is not the space that a run needs; nothing of the stage was begun.

    Attributes:
        stage: That was about to begin.
        place: Where the space is missing.
        needed: Bytes, estimated, for that stage and all that is certain to come after it.
        least: Bytes that these take at the least.
        free: Bytes that there are.
    """

    def __init__(self, stage: str, *, place: str, needed: int, least: int, free: int) -> None:
        super().__init__(stage, place, needed, least, free)
        self.stage = stage
        self.place = place
        self.needed = needed
        self.least = least
        self.free = free

    def __reduce__(self) -> tuple[object, ...]:
        return _disk_too_small, self.args

    def __str__(self) -> str:
        return (
            f"{self.stage} and what is to be made after it need about {_bytes(self.needed)}, "
            f"{_bytes(self.least)} at the least, and {self.place} has {_bytes(self.free)} free. "
            "Free some space (`sparsedistill store gc`), or set [run] store to a larger disk; "
            "[run] check_disk = false starts anyway"
        )


def reason_of(error: BaseException, *, rest: int | None) -> str:
    """Return in words why something could not be made.

    Args:
        error: That ended it.
        rest: Bytes that the rest of the stage needs, where the disk is full.
    """
    told = f"{type(error).__name__}: {error}"
    if is_out_of_space(error) and rest is not None:
        told += f" The rest of the stage needs about {_bytes(rest)}."
    return without_secrets(told)


def _disk_too_small(
    stage: str, place: str, needed: int, least: int, free: int
) -> DiskTooSmallError:
    return DiskTooSmallError(stage, place=place, needed=needed, least=least, free=free)


def _bytes(count: int) -> str:
    return f"{fmt.size(count)} ({count:,} bytes)".replace("\u00a0", " ")
