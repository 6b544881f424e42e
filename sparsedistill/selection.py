"""Choosing the most frequent n-grams, exactly, from counts that are seen once and forgotten.

The order is by count, then by length, then by bytes. `select_top` keeps what can still be among the
first `size` and forgets the rest, so memory is bounded by the size asked for and not by the corpus.
As strings are not known yet, all that ties at the cut-off in count and length is kept; the caller
recovers the strings of what is left, and `finish` decides.

    selection = select_top(counts, size=1_000_000)
    chosen = finish(selection, *recover(texts, spec, selection.hash))

Counts may be too low by a known bound, where rare n-grams of a shard were dropped. Then all that
can be among the first `size` is kept, an n-gram that was dropped everywhere is proved not to be,
and `finish` takes the exact counts of what was kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsedistill.counted import ENTRY_BYTES
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.jit import kernel
from sparsedistill.memory import format_size
from sparsedistill.text.buffers import frozen
from sparsedistill.text.ngram_spec import MAX_ORDER
from sparsedistill.text.strings import hash_strings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from sparsedistill.counted import CountedHashes
    from sparsedistill.text.buffers import TextBuffer

_ORDER_BITS = MAX_ORDER.bit_length()
# Candidates held for each row asked for, before those that fell behind are let go.
_POOL = 1.5
# Counts below this are told apart by the running cut-off.
_COMMON = 1 << 12
# A candidate with its string, the index to find that by, and what sorting and saving them takes.
CANDIDATE_BYTES = 160


class UnprovedError(DataError):
    """What was dropped could be among the most frequent.

    Attributes:
        bound: How often a dropped n-gram may occur.
        lowest: How often the last of the rows occurs at least, or `min_count`.
        provable: How many rows could be proved.
    """

    def __init__(self, *, bound: int, lowest: int, provable: int) -> None:
        self.bound, self.lowest, self.provable = bound, lowest, provable
        super().__init__(
            f"the vocabulary is not proved exact: an n-gram that was dropped may occur {bound:,} "
            f"times, and the last row's only {lowest:,}; {provable:,} rows could be proved"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The n-grams that can be in the vocabulary; arrays by count and then by length.

    Attributes:
        size: Rows asked for; the vocabulary has fewer if there are fewer n-grams.
        min_count: What a row must have.
        hash: uint64[candidates].
        count: int64[candidates].
        order: uint8[candidates].
        distinct: Different n-grams seen, by order; entry 0 is not used.
        occurrences: Sums of their counts, likewise.
        eligible: How many of them had `min_count`.
    """

    size: int
    min_count: int
    hash: NDArray[np.uint64]
    count: NDArray[np.int64]
    order: NDArray[np.uint8]
    distinct: tuple[int, ...]
    occurrences: tuple[int, ...]
    eligible: int

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
            "occurrences": sum(self.occurrences),
            "occurrences_by_order": list(self.occurrences[1:]),
            "eligible": self.eligible,
            "lowest_count": int(self.count[self.rows - 1]) if self.rows else 0,
        }


def pool_bytes(size: int) -> int:
    """Memory that choosing so many n-grams takes while counts come, if few tie at the cut-off."""
    return int(2 * _POOL * size) * ENTRY_BYTES


def select_top(
    counts: Iterable[CountedHashes],
    *,
    size: int,
    min_count: int = 1,
    bound: int = 0,
    memory: int | None = None,
) -> Selection:
    """Keep the `size` most frequent n-grams, and all that could have their place.

    Args:
        counts: Every n-gram once.
        size: Rows wanted.
        min_count: N-grams with a smaller count are left out.
        bound: True counts are at most so much higher, and an n-gram that is not there at all
            occurs at most so often.
        memory: What candidates may take, with their strings later.

    Raises:
        ConfigError: `size` or `min_count` is less than 1, or the memory is too little for the
            candidates; says what is enough.
        DataError: A count of 2**60 or more, or an order out of range.
        UnprovedError: By the bound, what is not there could be among the first.
    """
    if size < 1 or min_count < 1:
        raise ConfigError(f"size and min_count must be 1 or more, not {size} and {min_count}")
    pool = _Pool(size, min_count, bound, memory)
    distinct, occurrences = [0] * (MAX_ORDER + 1), [0] * (MAX_ORDER + 1)
    eligible = 0
    for part in counts:
        if not len(part):
            continue
        if not 1 <= part.order <= MAX_ORDER:
            raise DataError(f"orders must be 1 to {MAX_ORDER}, not {part.order}")
        distinct[part.order] += len(part)
        occurrences[part.order] += int(part.count.sum())
        if min_count > 1:
            eligible += int(np.count_nonzero(part.count >= min_count))
        pool.add(part)
    key, hashes = pool.best()
    return Selection(
        size=size,
        min_count=min_count,
        hash=hashes,
        count=key >> _ORDER_BITS,
        order=(MAX_ORDER - (key & MAX_ORDER)).astype(np.uint8),
        distinct=tuple(distinct),
        occurrences=tuple(occurrences),
        eligible=eligible if min_count > 1 else sum(distinct),
    )


class _Pool:
    """What can still be chosen: rank keys (larger is better) and hashes, in no order."""

    def __init__(self, size: int, min_count: int, bound: int, memory: int | None) -> None:
        self._size = size
        self._min_count = min_count
        self._bound = bound
        self._memory = memory
        self._least = max(1, min_count - bound)
        self._histogram = np.zeros(_COMMON + 1, np.int64)
        self._key = np.empty(int(_POOL * size), np.int64)
        self._hash = np.empty(int(_POOL * size), np.uint64)
        self._held = 0

    def add(self, part: CountedHashes) -> None:
        """Take the entries that can still be chosen."""
        chosen = np.flatnonzero(part.count >= self._least)
        if not len(chosen):
            return
        count = part.count[chosen]
        if int(count.max()) >= 1 << (63 - _ORDER_BITS):
            raise DataError(f"a count is too large: {count.max()}")
        if self._held + len(chosen) > len(self._key):
            self._make_room(len(chosen))
        place = slice(self._held, self._held + len(chosen))
        self._key[place] = _keys(count, np.uint8(part.order))
        self._hash[place] = part.hash[chosen]
        self._held = place.stop
        self._raise_least(count)

    def _make_room(self, more: int) -> None:
        """Let go what has fallen behind; where that is not enough, take more memory."""
        self._keep(self._key[: self._held] >= self._least << _ORDER_BITS)
        if self._held + more > len(self._key) or 4 * self._held > 3 * len(self._key):
            self._cut()
        if self._held + more > len(self._key):
            room = int(_POOL * (self._held + more))
            self._check_memory(self._held + more, room * 2 * ENTRY_BYTES, "at least ")
            self._key = np.concatenate([self._key, np.empty(room - len(self._key), np.int64)])
            self._hash = np.concatenate([self._hash, np.empty(room - len(self._hash), np.uint64)])

    def _cut(self) -> None:
        """Keep the best `size`, and what could have their place."""
        excess = self._held - self._size
        if excess > 0 and not self._bound:  # by counts that are not exact, none can be let go
            key = self._key[: self._held]
            self._keep(key >= np.partition(key, excess)[excess])

    def _keep(self, chosen: NDArray[np.bool_]) -> None:
        where = np.flatnonzero(chosen)
        self._key[: len(where)] = self._key[where]
        self._hash[: len(where)] = self._hash[where]
        self._held = len(where)

    def _raise_least(self, count: NDArray[np.int64]) -> None:
        """Forget what is rarer than `size` others already are."""
        self._histogram += np.bincount(np.minimum(count, _COMMON), minlength=_COMMON + 1)
        at_least = np.cumsum(self._histogram[::-1])[::-1]
        self._least = max(
            self._least, int(np.searchsorted(-at_least, -self._size, "right")) - 1 - self._bound
        )

    def best(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Keys and hashes, best first."""
        self._keep(self._key[: self._held] >= self._least << _ORDER_BITS)
        self._cut()
        self._check_memory(self._held, self._held * CANDIDATE_BYTES, "")
        lowest = self._min_count
        if self._held >= self._size:
            last = self._held - self._size
            lowest = max(
                lowest, int(np.partition(self._key[: self._held], last)[last]) >> _ORDER_BITS
            )
        if self._bound >= lowest:
            provable = int(np.count_nonzero(self._key[: self._held] >> _ORDER_BITS > self._bound))
            raise UnprovedError(bound=self._bound, lowest=lowest, provable=provable)
        if self._bound:
            self._keep(self._key[: self._held] >> _ORDER_BITS >= lowest - self._bound)
        order = np.argsort(-self._key[: self._held])
        return self._key[order], self._hash[order]

    def _check_memory(self, candidates: int, taken: int, at_least: str) -> None:
        if self._memory is not None and taken > self._memory:
            needed = format_size(max(candidates * CANDIDATE_BYTES, taken))
            raise ConfigError(
                f"{at_least}{candidates:,} n-grams can be among the first {self._size:,}, because "
                f"so many tie, and take {at_least}{needed} of memory; give that, or raise min_count"
            )


def _keys(count: NDArray[np.int64], order: NDArray[np.uint8] | np.uint8) -> NDArray[np.int64]:
    return (count << _ORDER_BITS) | (MAX_ORDER - np.asarray(order, np.int64))


class Chosen(NamedTuple):
    """The n-grams of a vocabulary, by row.

    Attributes:
        strings: The n-grams.
        hashes: uint64[rows].
        counts: int64[rows].
    """

    strings: TextBuffer
    hashes: NDArray[np.uint64]
    counts: NDArray[np.int64]


def finish(
    selection: Selection,
    entries: NDArray[np.int64],
    strings: TextBuffer,
    exact: NDArray[np.int64] | None = None,
    *,
    threads: int = 1,
) -> Chosen:
    """Decide ties by bytes, and check the strings.

    Args:
        selection: What `select_top` kept.
        entries: int64[candidates], for each string the entry of the selection that it is of.
        strings: The n-grams of all entries.
        exact: int64[candidates], the true count of each string, where the selection's are too low.
        threads: At most this many; the result does not depend on it.

    Raises:
        DataError: A string is not the one that was counted (the message names it), or one is
            there twice.
    """
    if len(strings) != len(selection) or len(entries) != len(selection):
        raise DataError(f"{len(strings)} strings for {len(selection)} candidates")
    wanted, order = selection.hash[entries], selection.order[entries]
    count = selection.count[entries] if exact is None else exact
    hashes, orders = hash_strings(strings, threads=threads)[:2]
    wrong = np.flatnonzero((hashes != wanted) | (orders != order))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"candidate {int(entries[first])}: {strings[first]!r} does not have the hash that was "
            f"counted, {int(wanted[first]):#018x}; were the texts changed since? Count them again"
        )
    if (np.diff(np.sort(hashes)) == 0).any():
        raise DataError("an n-gram is there twice: were its counts not added up?")
    key = -_keys(count, order)
    best = np.argsort(key)[: np.count_nonzero(count >= selection.min_count)]
    strings = strings.take(best, threads=threads)  # what is compared lies together
    group = np.cumsum(np.diff(key[best], prepend=key[best[:1]]) != 0)
    rows = _by_bytes(strings, group)[: selection.rows]
    return Chosen(strings.take(rows, threads=threads), hashes[best[rows]], count[best[rows]])


def _by_bytes(strings: TextBuffer, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort strings by ascending group, then by bytes: of those still tied, some bytes at a time."""
    result = np.arange(len(strings))
    tied = result.copy()
    begin = 0
    lengths = np.diff(strings.offsets)
    longest = int(lengths.max(initial=0))
    while len(tied):
        entries = result[tied]
        if begin > longest:  # they differ in NULs at their end alone: the shorter comes first
            result[tied] = entries[np.lexsort((lengths[entries], group))]
            break
        bits = int(group[-1]).bit_length()
        words = np.empty(len(entries), np.uint64)
        read_words(strings.data, strings.offsets, frozen(entries, np.int64), begin, words)
        width = (64 - bits) // 8
        word = (group.astype(np.uint64) << np.uint64(8 * width)) if bits else np.uint64(0)
        word = word | words >> np.uint64(64 - 8 * width)
        by_word = np.argsort(word)
        result[tied] = entries[by_word]
        same = np.diff(word[by_word]) == 0
        # A run of equal ones stays; each run is a group of the next round.
        in_run = np.append(same, False) | np.insert(same, 0, False)
        group = np.cumsum(~np.insert(same, 0, False))[in_run]
        if len(group):
            group -= group[0]
        tied = tied[in_run]
        begin += width
    return result


@kernel
def read_words(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    entries: NDArray[np.int64],
    begin: int,
    words: NDArray[np.uint64],
) -> None:
    """Bytes `begin` to `begin + 8` of strings as numbers that sort alike, filled with zeros."""
    for i in range(len(entries)):
        first = offsets[entries[i]] + begin
        last = offsets[entries[i] + 1]
        word = np.uint64(0)
        for at in range(first, min(first + 8, last)):
            word |= np.uint64(data[at]) << np.uint64(56 - 8 * (at - first))
        words[i] = word
