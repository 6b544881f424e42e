"""Choosing the most frequent n-grams, exactly, one range of hashes at a time.

Counts come as ranges of hashes (all counts of one n-gram in one range, added up: see `merging`).
`select_top` keeps those that can still be among the first `size` and forgets the others, so that
memory is bounded by the size asked for and not by the corpus. The order is by count, then by
length, then by bytes; as strings are not known yet, everything that ties at the cut-off in count
and length is kept, the caller recovers the strings of what is left, and `finish` decides.

    selection = select_top(ranges, size=1_000_000)
    strings = <the strings of selection.origin, in that order>
    rows = finish(selection, strings)     # selection's entries by row of the vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.text.ngram_spec import MAX_ORDER
from sparsedistill.text.strings import hash_strings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from sparsedistill.merging import CountedHashes
    from sparsedistill.text.buffers import TextBuffer

_ORDER_BITS = MAX_ORDER.bit_length()


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The n-grams that can be in the vocabulary; arrays by count, then length, then hash.

    Attributes:
        size: Rows asked for; the vocabulary has fewer if there are fewer n-grams.
        hash: uint64[candidates].
        count: int64[candidates].
        order: uint8[candidates].
        origin: int64[candidates], as the caller gave it.
        distinct: Distinct n-grams seen, by order; entry 0 is not used.
        eligible: Of those, how many had `min_count`.
        occurrences: The sum of all counts.
    """

    size: int
    hash: NDArray[np.uint64]
    count: NDArray[np.int64]
    order: NDArray[np.uint8]
    origin: NDArray[np.int64]
    distinct: tuple[int, ...]
    eligible: int
    occurrences: int

    def __len__(self) -> int:
        return len(self.hash)

    @property
    def rows(self) -> int:
        """Rows that the vocabulary will have."""
        return min(self.size, len(self))

    def statistics(self) -> dict[str, int | list[int]]:
        """What a manifest should say of the choice; plain JSON values."""
        return {
            "asked": self.size,
            "rows": self.rows,
            "candidates": len(self),
            "distinct": sum(self.distinct),
            "distinct_by_order": list(self.distinct[1:]),
            "eligible": self.eligible,
            "occurrences": self.occurrences,
            "lowest_count": int(self.count[self.rows - 1]) if self.rows else 0,
        }


def select_top(ranges: Iterable[CountedHashes], *, size: int, min_count: int = 1) -> Selection:
    """Keep the `size` most frequent n-grams, and all that tie with the last of them.

    Args:
        ranges: Counts; an n-gram is in one range only.
        size: Rows wanted.
        min_count: N-grams with a smaller count are left out.

    Raises:
        ConfigError: `size` or `min_count` is less than 1.
        DataError: A count that is negative or beyond 2**60, an order out of range, or a hash that
            is in two ranges.
    """
    if size < 1 or min_count < 1:
        raise ConfigError(f"size and min_count must be 1 or more, not {size} and {min_count}")
    pool = _Pool(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.int64))
    threshold = min_count << _ORDER_BITS
    distinct = np.zeros(MAX_ORDER + 1, np.int64)
    eligible = occurrences = room = 0
    for part in ranges:
        _check(part)
        distinct += np.bincount(part.order, minlength=MAX_ORDER + 1)
        eligible += int(np.count_nonzero(part.count >= min_count))
        occurrences += int(part.count.sum())
        pool = pool.plus(part, threshold)
        if len(pool.key) > room:
            pool, threshold = pool.cut(size, threshold)
            room = 2 * max(size, len(pool.key))
    pool, _ = pool.cut(size, threshold)
    by_rank = np.lexsort((pool.hash, -pool.key))
    key, hashes = pool.key[by_rank], pool.hash[by_rank]
    return Selection(
        size=size,
        hash=hashes,
        count=key >> _ORDER_BITS,
        order=(MAX_ORDER - (key & MAX_ORDER)).astype(np.uint8),
        origin=pool.origin[by_rank],
        distinct=tuple(distinct.tolist()),
        eligible=eligible,
        occurrences=occurrences,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """What can still be chosen: int64 rank keys (larger is better), hashes, origins."""

    key: NDArray[np.int64]
    hash: NDArray[np.uint64]
    origin: NDArray[np.int64]

    def plus(self, part: CountedHashes, threshold: int) -> _Pool:
        """With the entries of `part` whose key reaches the threshold."""
        key = (part.count << _ORDER_BITS) | (MAX_ORDER - part.order.astype(np.int64))
        chosen = np.flatnonzero(key >= threshold)
        return _Pool(
            np.concatenate([self.key, key[chosen]]),
            np.concatenate([self.hash, part.hash[chosen]]),
            np.concatenate([self.origin, part.origin[chosen]]),
        )

    def cut(self, size: int, threshold: int) -> tuple[_Pool, int]:
        """The best `size` and what ties with the last of them, and the key that it takes."""
        excess = len(self.key) - size
        if excess <= 0:
            return self, threshold
        threshold = int(np.partition(self.key, excess)[excess])
        chosen = np.flatnonzero(self.key >= threshold)
        return _Pool(self.key[chosen], self.hash[chosen], self.origin[chosen]), threshold


def _check(part: CountedHashes) -> None:
    if not len(part):
        return
    if int(part.count.min()) < 0 or int(part.count.max()) >= 1 << (63 - _ORDER_BITS):
        raise DataError(f"a count is negative or too large: {part.count.min()}, {part.count.max()}")
    if not 1 <= int(part.order.min()) <= int(part.order.max()) <= MAX_ORDER:
        raise DataError(f"orders must be 1 to {MAX_ORDER}: {part.order.min()}, {part.order.max()}")


def finish(selection: Selection, strings: TextBuffer) -> NDArray[np.int64]:
    """Decide ties by bytes, and check the strings.

    Args:
        selection: What `select_top` kept.
        strings: The n-gram of each of its entries, in their order.

    Returns:
        int64[rows]: by row of the vocabulary, the entry of the selection.

    Raises:
        DataError: A string is not the one that was counted (the message names it), or one is
            there twice.
    """
    if len(strings) != len(selection):
        raise DataError(f"{len(strings)} strings for {len(selection)} candidates")
    hashes, orders, _ = hash_strings(strings)
    wrong = np.flatnonzero((hashes != selection.hash) | (orders != selection.order))
    if len(wrong):
        entry = int(wrong[0])
        raise DataError(
            f"candidate {entry}: {strings[entry]!r} does not have the hash that was counted, "
            f"{int(selection.hash[entry]):#018x}; were the texts changed since? Count them again"
        )
    if len(np.unique(hashes)) != len(hashes):
        raise DataError("an n-gram is in two ranges: were its counts not added up?")
    key = (selection.count << _ORDER_BITS) - selection.order
    group = np.cumsum(np.diff(key, prepend=key[:1]) != 0)
    return _by_bytes(strings, group)[: selection.rows]


def _by_bytes(strings: TextBuffer, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort strings by ascending group, then by bytes: 8 bytes at a time, of those still tied."""
    result = np.arange(len(strings))
    tied = result.copy()
    begin = 0
    while len(tied):
        entries = result[tied]
        words, left = _words(strings, entries, begin)
        by_word = np.lexsort((left, words, group))
        result[tied] = entries[by_word]
        words, left = words[by_word], left[by_word]
        same = (np.diff(group) == 0) & (np.diff(words) == 0) & (np.diff(left) == 0)
        # A run of equal ones stays; each run is a group of the next round.
        in_run = np.append(same, False) | np.insert(same, 0, False)
        group = np.cumsum(~np.insert(same, 0, False))[in_run]
        tied = tied[in_run]
        begin += 8
    return result


def _words(
    strings: TextBuffer, entries: NDArray[np.int64], begin: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Bytes `begin` to `begin + 8` as numbers that sort as they do, and how many there are."""
    starts = strings.offsets[entries] + begin
    left = np.clip(strings.offsets[entries + 1] - starts, 0, 8)
    words = np.zeros(len(entries), np.uint64)
    for at in range(8):
        inside = left > at
        words[inside] |= strings.data[starts[inside] + at].astype(np.uint64) << np.uint64(
            56 - 8 * at
        )
    return words, left
