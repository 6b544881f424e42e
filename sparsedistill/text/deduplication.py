"""Which rows of a corpus are kept: the first of equal ones, and none that is held out.

Digests of all rows go to disk, cut by their first bits into 64 partitions, and each partition is
looked at on its own; so the memory it takes is a few copies of one partition, some 100 bytes for
every 64 rows of the corpus. What is kept is one byte a row, on disk too.

Rows that are only alike go the same way, by digests of what they share
(``sparsedistill.text.likeness``). The first of alike rows is also the first of those equal to it,
so what both ways keep holds one row of every kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt

_PARTITION_BITS = 6
_BLOCK = 1 << 20
_ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])


@dataclass(frozen=True, slots=True)
class Kept:
    """The rows that stay.

    Attributes:
        mask: bool [rows], memory-mapped.
        ids: First half of every row's digest, uint64 [rows], memory-mapped.
        duplicates: Rows dropped because an earlier one is equal.
        held_out: Rows dropped because they are held out.
        near_duplicates: Rows dropped because they are only alike to one of either kind.
    """

    mask: npt.NDArray[np.bool_]
    ids: npt.NDArray[np.uint64]
    duplicates: int
    held_out: int
    near_duplicates: int = 0

    def without_alike(self, alike: Kept) -> Kept:
        """Return what is left once rows that are alike are dropped too.

        Args:
            alike: What is kept of the same rows, in the same order, by a coarser digest; ``mask``
                of this one is written over.
        """
        dropped = 0
        for start in range(0, len(self.mask), _BLOCK):
            block = slice(start, start + _BLOCK)
            dropped += int(np.count_nonzero(self.mask[block] & ~alike.mask[block]))
            self.mask[block] &= alike.mask[block]
        return replace(self, near_duplicates=dropped)


class Deduplicator:
    """Takes the digests of all rows in order, then says which rows to keep.

    Args:
        directory: Scratch space, about 33 bytes a row; whoever made it removes it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ids = (directory / "ids").open("wb")
        self._partitions = [self._partition_path(p).open("wb") for p in range(1 << _PARTITION_BITS)]
        self.rows = 0

    def __enter__(self) -> Deduplicator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._ids, *self._partitions):
            file.close()

    def add(self, digests: npt.NDArray[np.uint64]) -> None:
        """Take the digests of the next rows, uint64 [rows, 2]."""
        entries = np.empty(len(digests), _ENTRY)
        entries["high"], entries["low"] = digests[:, 0], digests[:, 1]
        entries["row"] = np.arange(self.rows, self.rows + len(digests))
        self._ids.write(entries["high"].tobytes())
        which = (digests[:, 0] >> np.uint64(64 - _PARTITION_BITS)).astype(np.int64)
        order = np.argsort(which, kind="stable")
        bounds = np.searchsorted(which[order], np.arange(len(self._partitions) + 1))
        for p in np.flatnonzero(np.diff(bounds)):
            self._partitions[p].write(entries[order[bounds[p] : bounds[p + 1]]].tobytes())
        self.rows += len(digests)

    def decide(self, held_out: npt.NDArray[np.uint64]) -> Kept:
        """Return which rows to keep; no row may be added afterwards.

        Args:
            held_out: Digests that no kept row may have, uint64 [n, 2].
        """
        for file in (self._ids, *self._partitions):
            file.close()
        if self.rows == 0:
            nothing = np.empty(0, np.uint64)
            return Kept(nothing.astype(np.bool_), nothing, 0, 0)
        mask = np.memmap(self._directory / "kept", np.bool_, "w+", shape=(self.rows,))
        duplicates = excluded = 0
        forbidden = {(int(high), int(low)) for high, low in held_out}
        forbidden_highs = np.unique(held_out[:, 0])
        for p in range(len(self._partitions)):
            entries = np.fromfile(self._partition_path(p), _ENTRY)
            first = _first_of_equal(entries)
            allowed = ~np.isin(first["high"], forbidden_highs)
            for i in np.flatnonzero(~allowed):
                allowed[i] = (int(first["high"][i]), int(first["low"][i])) not in forbidden
            mask[first["row"][allowed]] = True
            duplicates += len(entries) - len(first)
            excluded += len(first) - int(allowed.sum())
        ids = np.memmap(self._directory / "ids", np.uint64, "r")
        return Kept(mask, ids, duplicates=duplicates, held_out=excluded)

    def _partition_path(self, p: int) -> Path:
        return self._directory / f"partition-{p:02d}"


def _first_of_equal(entries: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return the entry with the smallest row of every digest."""
    # Entries come by row, and the sort is stable.
    ordered = entries[np.lexsort((entries["low"], entries["high"]))]
    new = np.ones(len(ordered), np.bool_)
    new[1:] = (np.diff(ordered["high"]) != 0) | (np.diff(ordered["low"]) != 0)
    return ordered[new]
