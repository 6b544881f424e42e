"""Progress in the terminal: one bar a stage, told by the jobs themselves."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tasks.progress import listening

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from tasks.progress import Figures


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
        self._finished: dict[str, set[str]] = {}
        self._cached: dict[str, int] = {}
        self._measured: dict[str, str] = {}
        self._lock = Lock()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars while the block runs."""
        with self._bars, listening(self):
            yield

    def expect(self, stage: str, keys: Sequence[str]) -> None:
        """Add a bar for a stage's jobs."""
        with self._lock:
            self._tasks[stage] = self._bars.add_task(stage, total=max(len(keys), 1), note="")
            self._shares[stage] = dict.fromkeys(keys, 0.0)
            self._finished[stage] = set()
            self._cached[stage] = 0

    def advance(self, stage: str, key: str, share: float) -> None:
        """Move a stage's bar."""
        with self._lock:
            if key in self._shares.get(stage, {}):
                self._shares[stage][key] = share
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
            self._shares[stage][key] = 1.0
            self._finished[stage].add(key)
            self._cached[stage] += cached
            self._draw(stage)
            if len(self._finished[stage]) == len(self._shares[stage]):
                self._measured.pop(stage, None)
                self._draw(stage)
                self._bars.stop_task(self._tasks[stage])
                if not self._console.is_terminal:
                    self._console.print(f"{stage}: {self._note(stage)}")

    def _draw(self, stage: str) -> None:
        done = sum(self._shares[stage].values())
        self._bars.update(self._tasks[stage], completed=done, note=self._note(stage))

    def _note(self, stage: str) -> str:
        jobs, cached = len(self._shares[stage]), self._cached[stage]
        if cached == jobs:
            return f"Cached ({jobs})" if jobs > 1 else "Cached"
        there = f", {cached} cached" if cached else ""
        measured = f" · {self._measured[stage]}" if stage in self._measured else ""
        return f"{len(self._finished[stage])} of {jobs}{there}{measured}"


def training_text(figures: Figures) -> str:
    """Return a point of a training curve in words."""
    return (
        f"update {figures['update']:,.0f}, dev {100 * figures['dev_accuracy']:.1f} %, "
        f"loss {figures['loss']:.3g}, {figures['examples_per_second']:,.0f} texts/s"
    )
