"""Running a kernel over row ranges in several threads.

The ranges depend on the number of rows alone, never on the number of threads, so that results are
the same bytes whatever the number of threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

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
    ranges = [(start, min(start + block, rows)) for start in range(0, rows, block)]
    if threads <= 1 or len(ranges) <= 1:
        return [function(start, stop) for start, stop in ranges]
    with ThreadPoolExecutor(max_workers=min(threads, len(ranges))) as pool:
        return list(pool.map(lambda span: function(*span), ranges))
