"""From the hash of an n-gram to its row, and from texts to bags of rows.

The index also knows the *bridges*: n-grams that have no row, but with which one that has a row
begins. A text's n-grams can then be followed from each position one token at a time and given up
at the first that is not in the index, since nothing known begins with it. A vocabulary of the most
frequent n-grams needs no bridges (an n-gram is at most as frequent as what it begins with, and
ties go to the shorter), but one that leaves out single tokens, or was pruned, does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.bags import Bags
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.jit import kernel
from sparsedistill.parallel import map_ranges
from sparsedistill.prefetch import prefetch
from sparsedistill.text.buffers import TextBuffer, frozen
from sparsedistill.text.kernels import hash_ngrams
from sparsedistill.text.tokens import token_hashes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.text.ngram_spec import NgramSpec

# What `find_one` returns where there is no row.
UNKNOWN, BRIDGE = -2, -1

# Texts looked up at a time: their token hashes stay in the cache.
BLOCK = 512
# Tokens whose n-grams are looked up together: their slots stay in the first-level cache.
STRIDE = 64
# Slots taken in a row: of honest hashes some tens, at any size.
_LONGEST_RUN = 1024


@dataclass(frozen=True, slots=True, eq=False)
class NgramIndex:
    """The hashes of a vocabulary, ready to be searched.

    A slot is one word: the high bits of a hash, and in place of its low bits the row plus 2, or 1
    for a bridge; 0 if it is empty. So one load tells both whether an n-gram is known and which row
    it has, and the slots can lie in a file and be used where they lie. The low bits say at which
    slot a search begins, so little is lost by them: of a million rows, an unknown n-gram is taken
    for a known one with a chance of 2**-43, where whole hashes would have 2**-44.

    Attributes:
        hashes: uint64[rows], the hash of each row's n-gram.
        slots: uint64[slots], a power of two, half of them empty at least.

    Raises:
        DataError: The slots cannot be those of so many rows.
    """

    hashes: NDArray[np.uint64]
    slots: NDArray[np.uint64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "hashes", frozen(self.hashes, np.uint64))
        object.__setattr__(self, "slots", frozen(self.slots, np.uint64))
        least = slots_needed(len(self.hashes))
        if len(self.slots) < least or len(self.slots) & (len(self.slots) - 1):
            raise DataError(
                f"{len(self.hashes):,} rows need a power of two of slots, {least:,} or more, "
                f"not {len(self.slots):,}"
            )

    @classmethod
    def build(cls, hashes: NDArray[np.uint64], bridges: NDArray[np.uint64]) -> NgramIndex:
        """The index of some rows' hashes, and of bridges.

        Raises:
            DataError: A hash is there twice, or there are too many.
        """
        return cls(hashes, make_slots(frozen(hashes, np.uint64), frozen(bridges, np.uint64)))

    @property
    def row_bits(self) -> np.uint64:
        """A mask of those low bits of a slot that tell the row."""
        return row_mask(len(self.hashes))

    @property
    def bridges(self) -> int:
        """How many n-grams without a row are there because one with a row begins with them."""
        return int(np.count_nonzero((self.slots & self.row_bits) == 1))

    def check(self) -> None:
        """Read all slots: whoever searches them ends soon, and finds no row that is not there.

        Raises:
            DataError: Slots point outside, too few are empty, or too many in a row are not.
        """
        entries = self.slots & self.row_bits
        if entries.max(initial=np.uint64(0)) >= np.uint64(len(self.hashes) + 2):
            raise DataError(f"a slot points outside of the {len(self.hashes):,} rows")
        if 2 * np.count_nonzero(self.slots) > len(self.slots):
            raise DataError("more than half of the slots are taken")
        empty = np.flatnonzero(self.slots == 0)
        run = int(np.diff(np.append(empty, empty[0] + len(self.slots))).max()) - 1
        if run > _LONGEST_RUN:
            raise DataError(f"{run:,} slots in a row are taken: searches would not end soon")

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The row of each hash, int32; `UNKNOWN` or `BRIDGE` (both negative) for one without."""
        rows = np.empty(len(hashes), np.int32)
        find_all(frozen(hashes, np.uint64), self.slots, self.row_bits, rows)
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
            index = self.slots, self.row_bits
            look_up_rows(hashes, ends, (spec.min_n, spec.max_n), index, max_ngrams, rows, offsets)
            return Bags(rows[: offsets[-1]].copy(), offsets)

        parts = map_ranges(look_up, len(texts), block=BLOCK, threads=threads)
        return parts[0] if len(parts) == 1 else Bags.concat(parts)


def slots_needed(entries: int) -> int:
    """How many slots so many entries get: half empty at least, so that searches end soon."""
    return 1 << max(4, (2 * entries - 1).bit_length())


def row_mask(rows: int) -> np.uint64:
    """The low bits of a slot that hold the row plus 2."""
    return np.uint64((1 << (rows + 1).bit_length()) - 1)


def make_slots(hashes: NDArray[np.uint64], bridges: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Open addressing for hashes and bridges: the `slots` of an `NgramIndex`.

    Raises:
        DataError: A hash is there twice, or there are too many.
    """
    entries = np.concatenate([hashes, bridges])
    if len(entries) >= 1 << 31:
        raise DataError(f"an index holds less than 2**31 n-grams, not {len(entries):,}")
    slots = np.zeros(slots_needed(len(entries)), np.uint64)
    twice = fill(frozen(entries, np.uint64), len(hashes), slots, row_mask(len(hashes)))
    if twice >= 0:
        row = int(np.flatnonzero(entries == entries[twice])[0])
        if row == twice:
            raise DataError(
                f"entry {twice} of the vocabulary, with the hash {int(entries[twice]):#018x}, "
                "cannot be told from another one: leave one of them out"
            )
        raise DataError(
            f"entries {row} and {twice} of the vocabulary have one hash, "
            f"{int(entries[twice]):#018x}: is an n-gram there twice?"
        )
    return frozen(slots, np.uint64)


@kernel
def find_one(ngram: np.uint64, slots: NDArray[np.uint64], low: np.uint64) -> np.int64:
    """The row of a hash, or `UNKNOWN` or `BRIDGE`; `low` is the index's `row_bits`."""
    mask = len(slots) - 1
    slot = np.int64(ngram) & mask
    while True:
        found = slots[slot]
        if found == 0 or (found ^ ngram) & ~low == 0:
            # An empty slot reads as UNKNOWN, even if it looks like the hash.
            return np.int64(found & low) - 2
        slot = (slot + 1) & mask


@kernel
def find_all(
    hashes: NDArray[np.uint64],
    slots: NDArray[np.uint64],
    low: np.uint64,
    rows: NDArray[np.int32],
) -> None:
    """Find each of the hashes."""
    for i in range(len(hashes)):
        rows[i] = find_one(hashes[i], slots, low)


@kernel
def fill(entries: NDArray[np.uint64], rows: int, slots: NDArray[np.uint64], low: np.uint64) -> int:
    """Enter the hashes of rows, then those of bridges; returns one there twice, or -1."""
    mask = len(slots) - 1
    for i in range(len(entries)):
        slot = np.int64(entries[i]) & mask
        while slots[slot] != 0:
            if (slots[slot] ^ entries[i]) & ~low == 0:
                return i
            slot = (slot + 1) & mask
        slots[slot] = (entries[i] & ~low) | (np.uint64(i + 2) if i < rows else np.uint64(1))
    return -1


@kernel
def look_up_rows(
    hashes: NDArray[np.uint64],
    ends: NDArray[np.int64],
    sizes: tuple[int, int],
    index: tuple[NDArray[np.uint64], np.uint64],
    max_ngrams: int,
    rows: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> None:
    """Write the bag of each text; `hashes` and `ends` are those of its tokens."""
    ngrams = np.empty(STRIDE * sizes[1], np.uint64)
    offsets[0] = 0
    for text in range(len(ends) - 1):
        span = ends[text], ends[text + 1]
        n, _ = look_up_text(hashes, span, sizes, index, max_ngrams, ngrams, rows[offsets[text] :])
        offsets[text + 1] = offsets[text] + n


@kernel
def look_up_text(
    hashes: NDArray[np.uint64],
    span: tuple[int | np.int64, int | np.int64],
    sizes: tuple[int, int],
    index: tuple[NDArray[np.uint64], np.uint64],
    max_ngrams: int,
    ngrams: NDArray[np.uint64],
    rows: NDArray[np.int32],
) -> tuple[int, int | np.int64]:
    """Write the rows of one text's known n-grams, at most `max_ngrams`.

    Some tokens at a time: hash all their n-grams and ask for the slot of each, then follow each,
    so that the waits for memory overlap.

    Args:
        hashes: Of tokens.
        span: The text's first token and where its tokens stop.
        sizes: Shortest and longest n-gram.
        index: `slots` and `row_bits`.
        max_ngrams: Known ones to find.
        ngrams: uint64[STRIDE * longest] to work in.
        rows: For the rows; has room for all that may be found.

    Returns:
        How many rows were written, and how many tokens were gone through.
    """
    slots, low = index
    first, last = span
    n = 0
    i: int | np.int64 = 0
    for token in range(first, last, STRIDE):
        until = min(token + STRIDE, last)
        hashed = hash_ngrams(hashes, token, until, last, sizes[1], ngrams)
        ask_for(ngrams, hashed, slots)
        i = 0
        for begin in range(token, until):
            longest = min(sizes[1], last - begin)
            for order in range(1, longest + 1):
                row = find_one(ngrams[i + order - 1], slots, low)
                if row == UNKNOWN:
                    break
                if row >= 0 and order >= sizes[0]:
                    rows[n] = row
                    n += 1
                    if n == max_ngrams:
                        return n, begin + 1 - first
            i += longest
    return n, last - first


@kernel
def ask_for(ngrams: NDArray[np.uint64], n: int, slots: NDArray[np.uint64]) -> None:
    """Have the slots of the first `n` n-grams fetched."""
    mask = len(slots) - 1
    for i in range(n):
        prefetch(slots, (np.int64(ngrams[i]) & mask) * slots.itemsize)
