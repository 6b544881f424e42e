"""One line on standard error that tells how far a command has got, where somebody can see it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from flows.input_files import Meter

_EVERY = 0.2
_CLEAR = "\r\033[K"


class ProgressLine:
    """Shows rows, rows a second and the share of bytes read, at most five times a second.

    Only on a terminal, and taken away at the end.

    Args:
        meter: What has been read.
        wanted: Whether to show anything.
        stream: Standard error.
        clock: Seconds.
    """

    def __init__(
        self,
        meter: Meter,
        *,
        wanted: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meter = meter
        self._stream = stream or sys.stderr
        self._wanted = wanted and self._stream.isatty()
        self._clock = clock
        self._started = self._shown = clock()
        self._rows = 0

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._wanted:
            self._stream.write(_CLEAR)
            self._stream.flush()

    def advance(self, rows: int) -> None:
        """Count rows that are done."""
        self._rows += rows
        now = self._clock()
        if self._wanted and now - self._shown >= _EVERY:
            self._shown = now
            self._stream.write(_CLEAR + self._line(now - self._started))
            self._stream.flush()

    def _line(self, seconds: float) -> str:
        pace = self._rows / max(seconds, 1e-9)
        line = f"{self._rows:,} rows  {pace:,.0f} rows/s"
        if self._meter.size:
            share = min(1.0, self._meter.read / self._meter.size)
            line += f"  {share:.0%} of {self._meter.size / 1e6:,.1f} MB"
            if 0 < share < 1:
                line += f"  {_time(seconds * (1 - share) / share)} left"
        return line


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
