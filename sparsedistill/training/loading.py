"""Making the next batch while the model works on this one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

T = TypeVar("T")


def one_ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """Yield the items, the next of which is made in a thread meanwhile.

    An error in the making comes where its item would have. Close the generator (``closing``) where
    not all items are taken: it then waits for the one in hand, and leaves no thread behind.

    Args:
        items: Gone through in the other thread; none is None.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        waiting = thread.submit(next, iterator, None)
        while (item := waiting.result()) is not None:
            waiting = thread.submit(next, iterator, None)
            yield item
