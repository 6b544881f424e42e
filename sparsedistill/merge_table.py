"""The table that counts of many runs are added up in, and the loops that fill it and read it out.

Open addressing with linear probing; a slot holds a hash and its count, 0 for an empty one. The
hashes in a table have their first bits in common (`known`), and a hash's slot is its next bits: so
the table is nearly sorted by hash, and growing it and reading it out go through memory in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsedistill.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONE = np.uint64(1)
_WORD = np.uint64(63)
# Slots of a new table: with 16 bytes each, half of a common second-level cache.
_FIRST_BITS = 15
# Entries that are merged in one table, at most.
_MERGED_BITS = 15


class Table(NamedTuple):
    """Hashes and counts by slot.

    Attributes:
        hashes: uint64[slots].
        counts: int64[slots], 0 where empty.
    """

    hashes: NDArray[np.uint64]
    counts: NDArray[np.int64]


@kernel
def new_table(bits: int) -> Table:
    """An empty table of `2**bits` slots."""
    return Table(np.empty(1 << bits, np.uint64), np.zeros(1 << bits, np.int64))


@kernel
def add(table: Table, shifts: tuple[np.uint64, np.uint64], ngram: np.uint64, count: int) -> int:
    """Add to the count of an n-gram, or enter it; returns 1 if it is new."""
    hashes, counts = table
    mask = len(hashes) - 1
    slot = np.int64((ngram << shifts[0]) >> shifts[1])
    while True:
        if counts[slot] == 0:
            hashes[slot] = ngram
            counts[slot] = count
            return 1
        if hashes[slot] == ngram:
            counts[slot] += count
            return 0
        slot = (slot + 1) & mask


@kernel
def grown(table: Table, known: int, bits: int) -> Table:
    """A table twice as large with all that is in this one, which has `2**bits` slots."""
    larger = new_table(bits + 1)
    shifts = (np.uint64(known), np.uint64(63 - bits))
    for slot in range(len(table.hashes)):
        if table.counts[slot] != 0:
            add(larger, shifts, table.hashes[slot], table.counts[slot])
    return larger


@kernel
def drain(
    table: Table,
    shifts: tuple[np.uint64, np.uint64],
    hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    start: int,
) -> int:
    """Write the entries of a table by ascending hash, from `start` on, and leave it empty.

    Entries are in order but for neighbours within a run, which a step of insertion sort mends, and
    for what probing wrapped round to the front, which comes last. Returns where they end.
    """
    n = start
    for wrapped in range(2):
        for slot in range(len(table.hashes)):
            count = table.counts[slot]
            if count == 0:
                if wrapped:
                    break
                continue
            ngram = table.hashes[slot]
            if (np.int64((ngram << shifts[0]) >> shifts[1]) > slot) != (wrapped == 1):
                continue
            i = n
            while i > start and hashes[i - 1] > ngram:
                hashes[i] = hashes[i - 1]
                counts[i] = counts[i - 1]
                i -= 1
            hashes[i] = ngram
            counts[i] = count
            n += 1
    table.counts[:] = 0
    return n


@kernel
def merge_sorted(
    hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    ends: NDArray[np.int64],
    known: int,
    out: tuple[NDArray[np.uint64], NDArray[np.int64]],
) -> int:
    """Add up the counts of runs, each by ascending hash, that lie end to end.

    Args:
        hashes: Of all runs; their first `known` bits are the same.
        counts: Of all runs.
        ends: Where each run ends.
        known: See `hashes`.
        out: For hashes and counts, ascending, each hash once; room for all.

    Returns:
        How many were written.
    """
    more = 0
    while (len(hashes) >> (_MERGED_BITS + more)) > 0 and known + more < 60:
        more += 1
    bits = _FIRST_BITS
    table = new_table(bits)
    at = np.zeros(len(ends), np.int64)
    at[1:] = ends[:-1]
    n = 0
    for part in range(1 << more):
        used = 0
        shifts = (np.uint64(known + more), np.uint64(64 - bits))
        for run in range(len(ends)):
            i = at[run]
            while i < ends[run]:
                ngram = hashes[i]
                following = ((ngram << np.uint64(known)) >> _ONE) >> (_WORD - np.uint64(more))
                if following != np.uint64(part):
                    break
                if (used + 1) * 4 > len(table.hashes) * 3:
                    table = grown(table, known + more, bits)
                    bits += 1
                    shifts = (np.uint64(known + more), np.uint64(64 - bits))
                used += add(table, shifts, ngram, counts[i])
                i += 1
            at[run] = i
        n = drain(table, shifts, out[0], out[1], n)
    return n
