"""What making an artifact took: rows, bytes, seconds of work and of waiting, and how often tried.

A job that is under way notes it in a meter of its own, found by a context variable, so that the
jobs of one process do not mix. It ends in the ``work`` of the manifest, and from there on the page
of the run; it is in no digest.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from storage.reads import counting_reads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    """What one artifact took, or several together.

    Attributes:
        rows: That it has; None where its stage has no rows.
        read: Bytes of the files that were opened for it, of other artifacts and of sources.
        written: Bytes that were stored.
        seconds: Of work, without the waiting.
        waited: Seconds of waiting: for the ``turn`` at the artifact while another run made it, and
            for a ``device``.
        retries: How often it had failed before, in this run.
    """

    rows: int | None = None
    read: int = 0
    written: int = 0
    seconds: float = 0.0
    waited: Mapping[str, float] = field(default_factory=dict)
    retries: int = 0

    @property
    def seconds_waited(self) -> float:
        """Of waiting, whatever for."""
        return sum(self.waited.values())

    @property
    def rows_per_second(self) -> float | None:
        """Of work; None where there are no rows."""
        return None if self.rows is None or self.seconds <= 0 else self.rows / self.seconds

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON: what the manifest has."""
        rate = self.rows_per_second
        return {
            **asdict(self),
            "seconds": round(self.seconds, 3),
            "waited": {what: round(seconds, 3) for what, seconds in self.waited.items()},
            "rows_per_second": None if rate is None else round(rate, 1),
        }


def together(parts: Sequence[Work]) -> Work:
    """Return the sum; waiting and work of jobs that ran at a time are added, too."""
    rows = [part.rows for part in parts if part.rows is not None]
    waited: dict[str, float] = {}
    for part in parts:
        for what, seconds in part.waited.items():
            waited[what] = waited.get(what, 0.0) + seconds
    return Work(
        rows=sum(rows) if rows else None,
        read=sum(part.read for part in parts),
        written=sum(part.written for part in parts),
        seconds=sum(part.seconds for part in parts),
        waited=waited,
        retries=sum(part.retries for part in parts),
    )


class Meter:
    """Counts while a job is under way.

    Args:
        waited: Seconds that the job has waited already.
    """

    def __init__(self, *, waited: Mapping[str, float]) -> None:
        self.read = 0
        self.written = 0
        self.waited = dict(waited)
        self._files: Mapping[tuple[str, str, str], int] = {}
        self._started = time.monotonic() - sum(waited.values())

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what is noted in the block."""
        token = _METER.set(self)
        try:
            with counting_reads() as self._files:
                yield
        finally:
            _METER.reset(token)

    def work(self, *, rows: int | None, written: int, retries: int) -> Work:
        """Return what has been counted so far.

        Args:
            rows: Of the artifact.
            written: Bytes of it.
            retries: How often it had failed before.
        """
        return Work(
            rows=rows,
            read=self.read + sum(self._files.values()),
            written=self.written + written,
            seconds=time.monotonic() - self._started - sum(self.waited.values()),
            waited=dict(self.waited),
            retries=retries,
        )


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def waiting(what: str, entered: AbstractContextManager[T]) -> Iterator[T]:
    """Enter a context whose entering may take a while, and note how long it took.

    Args:
        what: Is waited for: ``device``.
        entered: The context; it is left when the block is.
    """
    start = time.monotonic()
    with entered as found:
        meter = _METER.get()
        if meter is not None:
            waited = time.monotonic() - start
            meter.waited[what] = meter.waited.get(what, 0.0) + waited
        yield found


def note_bytes(*, read: int = 0, written: int = 0) -> None:
    """Note bytes that the store does not see: sources that were read, parts stored beside."""
    meter = _METER.get()
    if meter is not None:
        meter.read += read
        meter.written += written
