"""How far work has come, told to whoever listens in this process.

The runner says which jobs a stage has, jobs say how far they are, stages say when one is done; the
terminal's bars and Prefect's progress artifacts listen. A worker in another process has no
listener: there progress is seen by finished chunks.

It is also where work is told to stop: whoever tells of progress is between two pieces of it.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Figures = Mapping[str, float]


class Listener(Protocol):
    """Hears of the progress of all jobs of this process, from any of its threads."""

    def expect(self, stage: str, keys: Sequence[str]) -> None:
        """Hear which jobs a stage has, those already done among them."""
        ...

    def advance(self, stage: str, key: str, share: float) -> None:
        """Hear which share of a job is done, 0 to 1."""
        ...

    def measured(self, stage: str, key: str, label: str, figures: Figures) -> None:
        """Hear what was measured in a job that is under way, such as accuracy on ``dev``."""
        ...

    def finish(self, stage: str, key: str, *, cached: bool) -> None:
        """Hear that a job is done, or had been done before."""
        ...


_listeners: list[Listener] = []
_stopping = Event()
_LOG = logging.getLogger(__name__)


def expect(stage: str, keys: Sequence[str]) -> None:
    """Tell all listeners which jobs a stage has."""
    _tell(lambda listener: listener.expect(stage, keys))


def advance(stage: str, key: str, share: float) -> None:
    """Tell all listeners how far a job is.

    Raises:
        KeyboardInterrupt: The run is being ended.
    """
    _stop_here()
    _tell(lambda listener: listener.advance(stage, key, share))


def measured(stage: str, key: str, label: str, figures: Figures) -> None:
    """Tell all listeners what was measured in a job: its label, and numbers by name.

    Raises:
        KeyboardInterrupt: The run is being ended.
    """
    _stop_here()
    _tell(lambda listener: listener.measured(stage, key, label, figures))


def finish(stage: str, key: str, *, cached: bool) -> None:
    """Tell all listeners that a job is done."""
    _tell(lambda listener: listener.finish(stage, key, cached=cached))


def _tell(word: Callable[[Listener], None]) -> None:
    for listener in tuple(_listeners):
        try:
            word(listener)
        except Exception as error:  # a display that fails must not end the work it shows
            _LOG.warning("progress could not be shown: %s", error)


@contextmanager
def stopping() -> Iterator[None]:
    """Have the jobs of this process's other threads end, during the block, where they next tell.

    Ctrl-C reaches the main thread alone, and the others would work on to the end of their shards.
    """
    _stopping.set()
    try:
        yield
    finally:
        _stopping.clear()


def _stop_here() -> None:
    if _stopping.is_set() and current_thread() is not main_thread():
        raise KeyboardInterrupt


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a listener told of all jobs of this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
