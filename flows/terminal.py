"""Progress in the terminal: one bar a stage, told by the jobs themselves; warnings above them."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from dashboards.format import clean
from tasks.logs import Told, Where, handled_by
from tasks.progress import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import Console

    from tasks.progress import Figures


_WORDS: Mapping[str, Callable[[float], str]] = {
    "update": lambda value: f"update {value:,.0f}",
    "epoch": lambda value: f"epoch {value:,.0f}",
    "dev_accuracy": lambda value: f"dev {100 * value:.1f} %",
    "examples_per_second": lambda value: f"{value:,.0f} texts/s",
}


class StageBars:
    """Shows a bar for every stage, or without a terminal a line for every stage that is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._shares: dict[str, dict[str, float]] = {}
        self._done: dict[str, float] = {}
        self._finished: dict[str, set[str]] = {}
        self._cached: dict[str, int] = {}
        self._measured: dict[str, str] = {}
        self._lock = Lock()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars while the block runs, and above them what is worth a warning."""
        with (
            self._bars,
            listening(self),
            handled_by(self, lambda: _Warnings(self._console)),
        ):
            yield

    def expect(self, stage: str, keys: Sequence[str]) -> None:
        """Add a bar for a stage's jobs."""
        with self._lock:
            self._tasks[stage] = self._bars.add_task(stage, total=max(len(keys), 1), note="")
            self._shares[stage] = dict.fromkeys(keys, 0.0)
            self._done[stage] = 0.0
            self._finished[stage] = set()
            self._cached[stage] = 0

    def advance(self, stage: str, key: str, share: float) -> None:
        """Move a stage's bar."""
        with self._lock:
            if key in self._shares.get(stage, {}):
                self._set(stage, key, share)
                self._draw(stage)

    def measured(self, stage: str, key: str, label: str, figures: Figures) -> None:
        """Show the last look at ``dev`` beside a stage's bar."""
        with self._lock:
            if key in self._shares.get(stage, {}):
                self._measured[stage] = f"{label}: {training_text(figures)}"
                self._draw(stage)

    def finish(self, stage: str, key: str, *, cached: bool) -> None:
        """Move a stage's bar, and say how much of it was there before."""
        with self._lock:
            if key not in self._shares.get(stage, {}) or key in self._finished[stage]:
                return
            self._set(stage, key, 1.0)
            self._finished[stage].add(key)
            self._cached[stage] += cached
            self._draw(stage)
            if len(self._finished[stage]) == len(self._shares[stage]):
                self._measured.pop(stage, None)
                self._draw(stage)
                self._bars.stop_task(self._tasks[stage])
                if not self._console.is_terminal:
                    self._console.print(f"{stage}: {self._note(stage)}")

    def _set(self, stage: str, key: str, share: float) -> None:
        self._done[stage] += share - self._shares[stage][key]
        self._shares[stage][key] = share

    def _draw(self, stage: str) -> None:
        done = self._done[stage]
        self._bars.update(self._tasks[stage], completed=done, note=self._note(stage))

    def _note(self, stage: str) -> str:
        jobs, cached = len(self._shares[stage]), self._cached[stage]
        if cached == jobs:
            return f"Cached ({jobs})" if jobs > 1 else "Cached"
        there = f", {cached} cached" if cached else ""
        measured = f" · {self._measured[stage]}" if stage in self._measured else ""
        return f"{len(self._finished[stage])} of {jobs}{there}{measured}"


class _Warnings(logging.Handler):
    """Prints warnings and errors of our packages, a line each."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console
        self.setFormatter(Told())
        self.addFilter(Where())

    def emit(self, record: logging.LogRecord) -> None:
        told = clean(self.format(record))
        self._console.print(f"{record.levelname.lower()}: {told}", markup=False, highlight=False)


def training_text(figures: Figures) -> str:
    """Return a point of a training curve in words: whatever figures the training has."""
    return ", ".join(
        _WORDS[name](value) if name in _WORDS else f"{name.replace('_', ' ')} {value:.3g}"
        for name, value in figures.items()
    )
