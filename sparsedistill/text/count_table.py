"""The table that n-grams are counted in, and the loops over it.

Open addressing with linear probing over one array, two words to a slot: the hash, and count << 32
with the place where the n-gram was first seen. An empty slot has count 0. A place numbers all
n-grams of all rows: token * lengths + (order - min_n), with the tokens of all rows end to end.

A table holds the hashes of one range only (those that begin with given bits), so that it fits the
caches whatever the corpus. A hash's slot is its next bits: the table is nearly sorted by hash, and
growing it and reading it out go through memory in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.jit import kernel
from sparsedistill.text.kernels import combine

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLOT = 2
HALF = np.uint64(32)
LOW_HALF = np.uint64(0xFFFFFFFF)
ONE = np.uint64(1)
BITS = np.uint64(64)

# Slots fetched together, so that their cache misses overlap.
BATCH = 16


@kernel
def slot_of(ngram: np.uint64, key: tuple[np.uint64, np.uint64, np.uint64]) -> np.int64:
    """The slot where probing for a hash begins.

    Args:
        ngram: The hash.
        key: Bits that are the same for the whole table; their value; bits that number a slot.
    """
    return np.int64((ngram << key[0]) >> (BITS - key[2]))


@kernel
def add(
    table: NDArray[np.uint64],
    key: tuple[np.uint64, np.uint64, np.uint64],
    ngram: np.uint64,
    counted: np.uint64,
) -> int:
    """Add to the count of an n-gram, or enter it; returns 1 if it is new."""
    slot: int | np.int64 = slot_of(ngram, key)
    while True:
        at = slot * SLOT
        if table[at + 1] == 0:
            table[at] = ngram
            table[at + 1] = counted
            return 1
        if table[at] == ngram:
            table[at + 1] += (counted >> HALF) << HALF
            return 0
        slot += 1
        if slot * SLOT == len(table):
            slot = 0


@kernel
def row_ngrams(
    hashes: NDArray[np.uint64],
    tokens: tuple[int, int],
    sizes: tuple[int, int],
    key: tuple[np.uint64, np.uint64, np.uint64],
    out: NDArray[np.uint64],
) -> int:
    """Write the (hash, count 1 and place) of a row's n-grams of the range; returns how many."""
    n = 0
    lengths = sizes[1] - sizes[0] + 1
    for token in range(tokens[0], tokens[1]):
        ngram = hashes[token]
        for order in range(1, min(sizes[1], tokens[1] - token) + 1):
            if order > 1:
                ngram = combine(ngram, hashes[token + order - 1])
            if order >= sizes[0]:
                out[2 * n] = ngram
                out[2 * n + 1] = (ONE << HALF) | np.uint64(token * lengths + order - sizes[0])
                # No branch: whether a hash is of the range cannot be foreseen.
                n += (ngram >> ONE) >> (BITS - ONE - key[0]) == key[1]
    return n


@kernel
def count_rows(
    hashes: NDArray[np.uint64],
    ends: NDArray[np.int64],
    row: int,
    sizes: tuple[int, int],
    table: NDArray[np.uint64],
    key: tuple[np.uint64, np.uint64, np.uint64],
    used: int,
) -> tuple[int, int]:
    """Count the n-grams of one range of hashes, until the table might get too full.

    Args:
        hashes: Of the tokens of all rows, end to end.
        ends: [rows + 1], where each row's tokens end.
        row: The row to begin with.
        sizes: Shortest and longest n-gram.
        table: To count in.
        key: See `slot_of`.
        used: Slots in use.

    Returns:
        The row to go on with (their number when all are done); slots in use.
    """
    limit = len(table) // SLOT * 3 // 4
    longest = 0
    for i in range(row, len(ends) - 1):
        longest = max(longest, ends[i + 1] - ends[i])
    # One more than there can be: what is out of range is written, too, and then written over.
    ngrams = np.empty(2 * (longest * (sizes[1] - sizes[0] + 1) + 1), np.uint64)
    touched = np.uint64(0)
    while row < len(ends) - 1:
        n = row_ngrams(hashes, (ends[row], ends[row + 1]), sizes, key, ngrams)
        if used + n > limit:
            break
        for first in range(0, n, BATCH):
            last = min(first + BATCH, n)
            for i in range(first, last):
                touched ^= table[slot_of(ngrams[2 * i], key) * SLOT]
            for i in range(first, last):
                used += add(table, key, ngrams[2 * i], ngrams[2 * i + 1])
        row += 1
    # Never true, but the compiler cannot know, and so keeps the loads that fetch the slots.
    if touched == ONE and used < 0:
        row = -1
    return row, used


@kernel
def grow(
    table: NDArray[np.uint64],
    larger: NDArray[np.uint64],
    key: tuple[np.uint64, np.uint64, np.uint64],
) -> None:
    """Enter all of a table into a larger, empty one, which `key` is for."""
    for at in range(0, len(table), SLOT):
        if table[at + 1] != 0:
            add(larger, key, table[at], table[at + 1])


@kernel
def drain(
    table: NDArray[np.uint64],
    key: tuple[np.uint64, np.uint64, np.uint64],
    hashes: NDArray[np.uint64],
    counted: NDArray[np.uint64],
) -> None:
    """Write the entries of a table by ascending hash, and leave it empty.

    Entries are in order but for neighbours within a run, which a step of insertion sort mends, and
    for what probing wrapped round to the front, which comes last.
    """
    n = 0
    for wrapped in range(2):
        for slot in range(len(table) // SLOT):
            at = slot * SLOT
            if wrapped and table[at + 1] == 0:
                break
            if table[at + 1] == 0 or (slot_of(table[at], key) > slot) != (wrapped == 1):
                continue
            i = n
            while i > 0 and hashes[i - 1] > table[at]:
                hashes[i] = hashes[i - 1]
                counted[i] = counted[i - 1]
                i -= 1
            hashes[i] = table[at]
            counted[i] = table[at + 1]
            n += 1
    table[:] = 0


@kernel
def locate(
    counted: NDArray[np.uint64],
    ends: NDArray[np.int64],
    row_of_token: NDArray[np.uint32],
    sizes: tuple[int, int],
    out: tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint32], NDArray[np.uint32]],
) -> None:
    """Split count and place into count, order, row and position."""
    counts, orders, rows, positions = out
    lengths = sizes[1] - sizes[0] + 1
    for i in range(len(counted)):
        place = np.int64(counted[i] & LOW_HALF)
        token = place // lengths
        row = row_of_token[token]
        counts[i] = counted[i] >> HALF
        orders[i] = place - token * lengths + sizes[0]
        rows[i] = row
        positions[i] = token - ends[row]
