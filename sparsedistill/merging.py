"""Adding up the counts of any number of sources, in a stated amount of memory.

Sources are sorted by hash, so all of them are walked at once, one range of hashes at a time: of
each no more is held than the part it is in. Ranges are as small as the number of n-grams asks for.
Where even one part of every source would be too much, some are merged to runs on disk first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.counted import ENTRY_BYTES, PART, CountedHashes, CountSource
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.jit import kernel
from sparsedistill.memory import format_size
from sparsedistill.parallel import map_ahead
from sparsedistill.spill import Run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Slices = list[tuple[NDArray[np.uint64], NDArray[np.int64]]]

# What a source holds while it is walked: a part, the next one, and what decoding it takes.
SOURCE_BYTES = 4 * PART * ENTRY_BYTES
# Entries of a range, at most, where memory allows.
_RANGE = 1 << 18
_LEAST_RANGE = 1 << 14
# Files that are open at a time: systems commonly allow 1,024.
_MOST_SOURCES = 512


def least_memory(threads: int) -> int:
    """Bytes that merging cannot do without."""
    return 2 * SOURCE_BYTES + _held(threads) * _LEAST_RANGE


def merge_counted(
    sources: Sequence[CountSource],
    *,
    memory: int,
    spill: Path | None,
    threads: int = 1,
) -> Iterator[CountedHashes]:
    """Add up counts; the result comes by order and then by ascending hash.

    Args:
        sources: In any order.
        memory: For all arrays together.
        spill: Directory for runs, where there are more sources than fit the memory.
        threads: At most this many.

    Raises:
        ConfigError: The memory is too little; names what is enough.
        DataError: A source's hashes do not ascend.
        OSError: The disk is full.
    """
    held = _held(threads)
    fan_in = min(_MOST_SOURCES, (memory - held * _LEAST_RANGE) // SOURCE_BYTES)
    if fan_in < 2:
        raise ConfigError(
            f"{format_size(memory)} of memory are too little to merge counts in {threads} threads; "
            f"{format_size(least_memory(threads))} are the least"
        )
    if len(sources) > fan_in:
        if spill is None:
            raise ConfigError(
                f"{len(sources)} sources of counts do not fit {format_size(memory)} of memory"
            )
        fewer: list[CountSource] = []
        for first in range(0, len(sources), fan_in):
            group = sources[first : first + fan_in]
            merged = merge_counted(group, memory=memory, spill=spill, threads=threads)
            if len(group) == 1:
                fewer.append(group[0])
                continue
            fewer.append(Run.write(spill, merged))
            for source in group:
                if isinstance(source, Run):  # in little memory the disk may be little, too
                    source.remove()
        yield from merge_counted(fewer, memory=memory, spill=spill, threads=threads)
        return
    entries = min(_RANGE, (memory - len(sources) * SOURCE_BYTES) // held)
    for order in sorted({order for source in sources for order in source.entries}):
        yield from _merge_order(order, sources, entries, threads)


def _held(threads: int) -> int:
    # Of a range there are the slices, put together, sorted, and copied to size: for each thread
    # and two that wait.
    return (threads + 2) * 4 * ENTRY_BYTES


def _merge_order(
    order: int, sources: Sequence[CountSource], entries: int, threads: int
) -> Iterator[CountedHashes]:
    total = sum(source.entries.get(order, 0) for source in sources)
    known = max(0, (total // entries).bit_length())
    walks = [_Walk(source.parts(order)) for source in sources if source.entries.get(order)]

    def ranges() -> Iterator[Slices]:
        for number in range(1, (1 << known) + 1):
            bound = number << (64 - known)
            yield [piece for walk in walks for piece in walk.until(bound)]

    yield from map_ahead(
        lambda slices: CountedHashes(order, *add_up(slices)), ranges(), threads=threads
    )


def add_up(slices: Slices) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Merge sorted hashes and their counts.

    By sorting all of them anew: a library's vectorised sort is several times faster than a merge
    of runs, or a table, that goes entry by entry.
    """
    empty = (np.zeros(0, np.uint64), np.zeros(0, np.int64))
    hashes, counts = (np.concatenate(columns) for columns in zip(empty, *slices, strict=True))
    if _is_sorted(hashes):  # of one source, or of several that hold different ranges
        return hashes, counts
    order = np.argsort(hashes)
    hashes, counts = hashes[order], counts[order]
    n = add_equal(hashes, counts)
    return hashes[:n].copy(), counts[:n].copy()


@kernel
def add_equal(hashes: NDArray[np.uint64], counts: NDArray[np.int64]) -> int:
    """Add up the counts of equal neighbours, at the front; returns how many are left."""
    n = 0
    for i in range(1, len(hashes)):
        # No branch: whether an n-gram comes again cannot be foreseen.
        fresh = hashes[i] != hashes[n]
        count = counts[i] if fresh else counts[n] + counts[i]
        n += fresh
        hashes[n] = hashes[i]
        counts[n] = count
    return min(n + 1, len(hashes))


class _Walk:
    """Where the merge is in one source."""

    def __init__(self, parts: Iterator[CountedHashes]) -> None:
        self._parts = parts
        self._part: CountedHashes | None = None
        self._at = 0
        self._last: np.uint64 | None = None

    def until(self, bound: int) -> Slices:
        """Hashes below `bound`, and their counts, from where the last call ended."""
        found: Slices = []
        while self._more():
            assert self._part is not None  # noqa: S101 - _more() said so
            hashes = self._part.hash
            stop = len(hashes)
            if int(hashes[-1]) >= bound:
                stop = int(np.searchsorted(hashes, np.uint64(bound)))
            if stop > self._at:
                found.append((hashes[self._at : stop], self._part.count[self._at : stop]))
            self._at = stop
            if stop < len(hashes):
                break
        return found

    def _more(self) -> bool:
        """Whether there are entries left; fetches the next part where one is through."""
        while self._part is None or self._at == len(self._part):
            if self._part is not None and len(self._part):
                self._last = self._part.hash[-1]
            self._part = next(self._parts, None)
            self._at = 0
            if self._part is None:
                self._parts = iter(())
                return False
            hashes = self._part.hash
            ascends = self._last is None or not len(hashes) or hashes[0] > self._last
            if not (ascends and _is_sorted(hashes)):
                raise DataError("counts are not sorted by hash: what they come from is damaged")
        return True


def _is_sorted(hashes: NDArray[np.uint64]) -> bool:
    return bool((hashes[1:] > hashes[:-1]).all())
