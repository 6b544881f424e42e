"""Running kernels in several threads.

What is computed, and in which order results come, depends on the input alone, never on the number
of threads: results are the same bytes whatever their number.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")


def map_ranges(
    function: Callable[[int, int], R], rows: int, *, block: int, threads: int
) -> list[R]:
    """Call `function(start, stop)` for each block of rows; results come in row order.

    Args:
        function: Releases the GIL for most of its time, or threads gain nothing.
        rows: How many rows there are; with none, `function` is not called.
        block: Rows per call; the last call may get fewer.
        threads: How many calls may run at once.
    """
    ranges = ((start, min(start + block, rows)) for start in range(0, rows, block))
    return list(
        map_ahead(lambda span: function(*span), ranges, threads=min(threads, rows // block))
    )


def map_ahead(function: Callable[[T], R], items: Iterable[T], *, threads: int) -> Iterator[R]:
    """Call `function` for each item, in threads, and yield the results in the items' order.

    Items are taken, and results held, for one call more than there are threads: what is long
    as a whole may be a generator on both sides.
    """
    if threads <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for call in waiting:
                call.cancel()
