"""Something done again and again beside the work of a block, from a thread of its own."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def repeating(work: Callable[[], None], *, seconds: float, name: str) -> Iterator[None]:
    """Do it while the block runs, for the first time after so many seconds.

    Args:
        work: What is done; it raises nothing.
        seconds: Between two times.
        name: Of the thread.
    """
    ended = threading.Event()

    def again() -> None:
        while not ended.wait(seconds):
            work()

    thread = threading.Thread(target=again, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
