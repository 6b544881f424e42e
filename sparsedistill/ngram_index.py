"""From the hash of an n-gram to its row, and from texts to bags of rows.

The index also knows the *bridges*: n-grams that have no row, but with which one that has a row
begins. A text's n-grams can then be followed from each position one token at a time and given up
at the first that is not in the index, since nothing known begins with it. A vocabulary of the most
frequent n-grams needs no bridges (an n-gram is at most as frequent as what it begins with, and
ties go to the shorter), but one that leaves out single tokens, or was pruned, does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.bags import Bags
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.jit import kernel
from sparsedistill.parallel import map_ranges
from sparsedistill.text.buffers import TextBuffer, frozen
from sparsedistill.text.kernels import hash_ngrams
from sparsedistill.text.tokens import token_hashes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.text.ngram_spec import NgramSpec

UNKNOWN, BRIDGE = -1, -2

# Texts looked up at a time: their token hashes stay in the cache.
BLOCK = 512
# Tokens whose n-grams are looked up together: what they touch stays in the first-level cache.
_STRIDE = 128


@dataclass(frozen=True, slots=True, eq=False)
class NgramIndex:
    """The hashes of a vocabulary, ready to be searched.

    Attributes:
        hashes: uint64[rows], the hash of each row's n-gram.
        bridges: uint64[bridges].
        keys: uint64[slots], open addressing by the low bits; an empty slot holds `empty`.
        slots: int32[slots], the row, or `BRIDGE`; `UNKNOWN` where empty.
        empty: A value that is no hash in the index.
    """

    hashes: NDArray[np.uint64]
    bridges: NDArray[np.uint64]
    keys: NDArray[np.uint64] = field(init=False, repr=False)
    slots: NDArray[np.int32] = field(init=False, repr=False)
    empty: np.uint64 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        hashes, bridges = frozen(self.hashes, np.uint64), frozen(self.bridges, np.uint64)
        keys, slots, empty = make_slots(hashes, bridges)
        for name, value in (
            ("hashes", hashes),
            ("bridges", bridges),
            ("keys", keys),
            ("slots", slots),
            ("empty", empty),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The row of each hash, int32; `UNKNOWN` or `BRIDGE` (both negative) for one without."""
        rows = np.empty(len(hashes), np.int32)
        find_all(frozen(hashes, np.uint64), self.keys, self.slots, self.empty, rows)
        return rows

    def bags(
        self, texts: TextBuffer, spec: NgramSpec, *, max_ngrams: int, threads: int = 1
    ) -> Bags:
        """The known n-grams of each text.

        Args:
            texts: Rows of text.
            spec: The n-grams of the vocabulary.
            max_ngrams: The first so many known ones are kept.
            threads: At most this many.

        Raises:
            ConfigError: `max_ngrams` is less than 1.
        """
        if max_ngrams < 1:
            raise ConfigError(f"max_ngrams must be 1 or more, not {max_ngrams}")

        def look_up(start: int, stop: int) -> Bags:
            hashes, ends = token_hashes(texts.slice(start, stop), spec)
            lengths = spec.max_n - spec.min_n + 1
            rows = np.empty(int(np.minimum(np.diff(ends) * lengths, max_ngrams).sum()), np.int32)
            offsets = np.empty(stop - start + 1, np.int64)
            table = (self.keys, self.slots, self.empty)
            look_up_rows(hashes, ends, (spec.min_n, spec.max_n), table, max_ngrams, rows, offsets)
            return Bags(rows[: offsets[-1]].copy(), offsets)

        parts = map_ranges(look_up, len(texts), block=BLOCK, threads=threads)
        return parts[0] if len(parts) == 1 else Bags.concat(parts)


def make_slots(
    hashes: NDArray[np.uint64], bridges: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.int32], np.uint64]:
    """Open addressing for hashes and bridges: `keys`, `slots` and `empty` of an `NgramIndex`.

    Raises:
        DataError: A hash is there twice, or there are too many.
    """
    entries = np.concatenate([hashes, bridges])
    if len(entries) >= 1 << 31:
        raise DataError(f"an index holds less than 2**31 n-grams, not {len(entries):,}")
    # Half empty at least: a search for what is not there ends soon.
    size = 1 << max(4, (2 * len(entries) - 1).bit_length())
    empty = np.uint64(0)
    while (entries == empty).any():
        empty += np.uint64(1)
    keys, slots = np.full(size, empty, np.uint64), np.full(size, UNKNOWN, np.int32)
    twice = fill(frozen(entries, np.uint64), len(hashes), keys, slots, empty)
    if twice >= 0:
        row = int(np.flatnonzero(entries == entries[twice])[0])
        raise DataError(
            f"entries {row} and {twice} of the vocabulary have one hash, "
            f"{int(entries[twice]):#018x}: is an n-gram there twice?"
        )
    return frozen(keys, np.uint64), frozen(slots, np.int32), empty


@kernel
def find_one(
    ngram: np.uint64, keys: NDArray[np.uint64], slots: NDArray[np.int32], empty: np.uint64
) -> np.int64:
    """The row of a hash, or `UNKNOWN` or `BRIDGE`."""
    mask = len(keys) - 1
    slot = np.int64(ngram) & mask
    while True:
        found = keys[slot]
        if found == ngram:
            # Also for a hash that happens to be `empty`: such a slot says UNKNOWN.
            return np.int64(slots[slot])
        if found == empty:
            return np.int64(UNKNOWN)
        slot = (slot + 1) & mask


@kernel
def find_all(
    hashes: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    empty: np.uint64,
    rows: NDArray[np.int32],
) -> None:
    """Find each of the hashes."""
    for i in range(len(hashes)):
        rows[i] = find_one(hashes[i], keys, slots, empty)


@kernel
def fill(
    entries: NDArray[np.uint64],
    rows: int,
    keys: NDArray[np.uint64],
    slots: NDArray[np.int32],
    empty: np.uint64,
) -> int:
    """Enter the hashes of rows, then those of bridges; returns one there twice, or -1."""
    mask = len(keys) - 1
    for i in range(len(entries)):
        slot = np.int64(entries[i]) & mask
        while keys[slot] != empty:
            if keys[slot] == entries[i]:
                return i
            slot = (slot + 1) & mask
        keys[slot] = entries[i]
        slots[slot] = i if i < rows else BRIDGE
    return -1


@kernel
def look_up_rows(
    hashes: NDArray[np.uint64],
    ends: NDArray[np.int64],
    sizes: tuple[int, int],
    table: tuple[NDArray[np.uint64], NDArray[np.int32], np.uint64],
    max_ngrams: int,
    rows: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> None:
    """Write the bag of each text; `hashes` and `ends` are those of its tokens.

    In three steps over some tokens at a time: hash all their n-grams; touch the slots of all, so
    that cache misses overlap, which they do only in a loop that does nothing else; follow each.
    """
    keys, slots, empty = table
    ngrams = np.empty(_STRIDE * sizes[1], np.uint64)
    touched = np.uint64(0)
    n: int | np.integer[Any] = 0
    offsets[0] = 0
    for text in range(len(ends) - 1):
        full = n + max_ngrams
        last = ends[text + 1]
        for token in range(ends[text], last, _STRIDE):
            until = min(token + _STRIDE, last)
            hashed = hash_ngrams(hashes, token, until, last, sizes[1], ngrams)
            touched ^= touch(ngrams, hashed, keys, slots)
            i = 0
            for first in range(token, until):
                longest = min(sizes[1], last - first)
                for order in range(1, longest + 1):
                    row = find_one(ngrams[i + order - 1], keys, slots, empty)
                    if row == UNKNOWN or n == full:
                        break
                    rows[n] = row
                    n += row >= 0 and order >= sizes[0]
                i += longest
            if n == full:
                break
        offsets[text + 1] = n
    # Never true, but the compiler cannot know, and so keeps the loads of `touch`.
    if touched == np.uint64(1) and n < 0:
        offsets[0] = n


@kernel
def touch(
    ngrams: NDArray[np.uint64], n: int, keys: NDArray[np.uint64], slots: NDArray[np.int32]
) -> np.uint64:
    """Load the slots of some n-grams, and nothing else; returns what keeps the loads alive.

    So that cache misses overlap, which they do only in a loop that does nothing else.
    """
    mask = len(keys) - 1
    touched = np.uint64(0)
    for i in range(n):
        touched ^= keys[np.int64(ngrams[i]) & mask]
    for i in range(n):
        touched ^= np.uint64(slots[np.int64(ngrams[i]) & mask])
    return touched
