"""Adding up counts by hash: of several shards, or of several threads.

Parts come sorted by hash, so two are merged by walking both once. Many are merged pairwise, equals
with equals (as a binary counter carries), so that each entry is moved a logarithm of times and
parts can come from a stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.jit import kernel
from sparsedistill.text.buffers import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class CountedHashes:
    """Counts of n-grams by ascending hash; all arrays have one length and become read-only.

    Attributes:
        hash: uint64, ascending, each once.
        count: int64, 0 or more.
        order: uint8, tokens in the n-gram.
        origin: int64, whatever tells the caller where the n-gram's string can be had.
    """

    hash: NDArray[np.uint64]
    count: NDArray[np.int64]
    order: NDArray[np.uint8]
    origin: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, dtype in _COLUMNS.items():
            object.__setattr__(self, name, frozen(getattr(self, name), dtype))
        if len({len(getattr(self, name)) for name in _COLUMNS}) != 1:
            raise DataError("hash, count, order and origin must have one length")
        unsorted = np.flatnonzero(self.hash[1:] <= self.hash[:-1])
        if len(unsorted):
            raise DataError(f"hashes must ascend, each once; entry {unsorted[0] + 1} does not")

    def __len__(self) -> int:
        return len(self.hash)


_COLUMNS = {"hash": np.uint64, "count": np.int64, "order": np.uint8, "origin": np.int64}


def merge_counted(parts: Iterable[CountedHashes]) -> CountedHashes:
    """Add up the counts of parts; an n-gram keeps the origin it has in the first part with it.

    Raises:
        DataError: Two n-grams of different length have one hash, in one part or in two.
    """
    stack: list[tuple[int, CountedHashes]] = []
    for part in parts:
        level = 0
        while stack and stack[-1][0] == level:
            part = _merge_two(stack.pop()[1], part)
            level += 1
        stack.append((level, part))
    if not stack:
        return CountedHashes(*(np.zeros(0, dtype) for dtype in _COLUMNS.values()))
    _, result = stack.pop()
    while stack:
        result = _merge_two(stack.pop()[1], result)
    return result


def _merge_two(first: CountedHashes, second: CountedHashes) -> CountedHashes:
    size = len(first) + len(second)
    hashes, counts = np.empty(size, np.uint64), np.empty(size, np.int64)
    orders, origins = np.empty(size, np.uint8), np.empty(size, np.int64)
    n = merge_kernel(
        (first.hash, first.count, first.order, first.origin),
        (second.hash, second.count, second.order, second.origin),
        (hashes, counts, orders, origins),
    )
    if n < 0:
        raise DataError(
            f"two n-grams of different length have the hash {int(first.hash[-n - 1]):#018x}: "
            "were the parts counted with different settings?"
        )
    return CountedHashes(hashes[:n], counts[:n], orders[:n], origins[:n])


Columns = tuple["NDArray[np.uint64]", "NDArray[np.int64]", "NDArray[np.uint8]", "NDArray[np.int64]"]


@kernel
def merge_kernel(first: Columns, second: Columns, out: Columns) -> int:
    """Merge two parts; returns the entries written, or -1 - i if entry i of `first` clashes."""
    i = j = n = 0
    while i < len(first[0]) or j < len(second[0]):
        take_second = i == len(first[0]) or (j < len(second[0]) and second[0][j] < first[0][i])
        if take_second:
            out[0][n] = second[0][j]
            out[1][n] = second[1][j]
            out[2][n] = second[2][j]
            out[3][n] = second[3][j]
            j += 1
        else:
            out[0][n] = first[0][i]
            out[1][n] = first[1][i]
            out[2][n] = first[2][i]
            out[3][n] = first[3][i]
            if j < len(second[0]) and second[0][j] == first[0][i]:
                if second[2][j] != first[2][i]:
                    return -1 - i
                out[1][n] += second[1][j]
                j += 1
            i += 1
        n += 1
    return n
