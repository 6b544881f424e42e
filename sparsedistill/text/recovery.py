"""The strings of n-grams that are known by their hashes, read off the texts they were counted in.

Every n-gram of the texts is looked for among those whose string is not known yet. Most are no
longer wanted or never were, and a bitmap that fits the cache tells so. As soon as many have been
found, bitmap and table are made anew for the rest, so that the search gets cheaper as it goes on;
when all are found, it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.jit import kernel
from sparsedistill.ngram_index import ask_for, find_one, make_slots, row_mask
from sparsedistill.parallel import map_ahead
from sparsedistill.text import kernels
from sparsedistill.text.buffers import TextBuffer, frozen
from sparsedistill.text.kernels import (
    SPACE,
    Rules,
    Scratch,
    hash_ngrams,
    make_scratch,
    tokenise,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from sparsedistill.text.ngram_spec import NgramSpec

# Rows of the first search; each further one has twice as many, up to the most.
_FIRST_ROWS, _MOST_ROWS = 1024, 16384
_STRIDE = 64
_FILTER_BITS, _SMALLEST_FILTER = 3, 12
_WORD = np.uint64(63)
_ROOM = 1 << 20


class Wanted(NamedTuple):
    """Hashes that are looked for.

    Attributes:
        filter: uint64[words], a bit for the first bits of each hash.
        bits: How many bits number one in the filter.
        slots: uint64[slots]: which hash it is; see `NgramIndex`.
        low: Which bits of a slot say so.
    """

    filter: NDArray[np.uint64]
    bits: int
    slots: NDArray[np.uint64]
    low: np.uint64


def ngram_strings(texts: TextBuffer, spec: NgramSpec, hashes: NDArray[np.uint64]) -> TextBuffer:
    """The strings of n-grams of some texts, in the order of their hashes; raises as `recover`."""
    entries, strings = recover([texts], spec, hashes)
    place = np.empty(len(entries), np.int64)
    place[entries] = np.arange(len(entries))
    return strings.take(place)


def recover(
    texts: Iterable[TextBuffer], spec: NgramSpec, hashes: NDArray[np.uint64], *, threads: int = 1
) -> tuple[NDArray[np.int64], TextBuffer]:
    """The strings of n-grams in no useful order, and which hash each is of, int64[n].

    Args:
        texts: What was counted; read until all are found.
        spec: As it was counted.
        hashes: uint64[n], each once.
        threads: At most this many; the strings do not depend on it.

    Raises:
        DataError: The texts do not have one of them; the message says how many are missing.
    """
    search = _Search(spec, hashes, threads)
    for part in texts:
        if search.add(part):
            break
    return search.result()


class _Search:
    """What has been found so far."""

    def __init__(self, spec: NgramSpec, hashes: NDArray[np.uint64], threads: int) -> None:
        self._spec = spec
        self._hashes = hashes
        self._threads = threads
        self._entries: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self._strings: list[TextBuffer] = []
        self._rows = _FIRST_ROWS
        self._look_for(np.arange(len(hashes)))

    def add(self, texts: TextBuffer) -> bool:
        """Search some texts; returns whether all n-grams are found."""
        start = 0
        while start < len(texts) and self._unseen:
            stop = min(start + self._rows, len(texts))
            share = -(-(stop - start) // self._threads)
            spans = [(a, min(a + share, stop)) for a in range(start, stop, share)]
            for found, strings in map_ahead(
                lambda span: self._scan(texts, *span), spans, threads=self._threads
            ):
                self._take(found, strings)
            if 2 * self._unseen < len(self._left):
                self._look_for(self._left[~self._seen])
            start = stop
            self._rows = min(2 * self._rows, _MOST_ROWS)
        return not self._unseen

    def _look_for(self, entries: NDArray[np.int64]) -> None:
        self._left = entries
        self._unseen = len(entries)
        self._seen = np.zeros(len(entries), np.bool_)
        self._wanted = _wanted(self._hashes[entries])

    def _take(self, found: NDArray[np.int64], strings: TextBuffer) -> None:
        first = ~self._seen[found]  # another thread may have found the same
        if not first.all():
            found, strings = found[first], strings.take(np.flatnonzero(first))
        self._seen[found] = True
        self._unseen -= len(found)
        self._entries.append(self._left[found])
        self._strings.append(strings)

    def result(self) -> tuple[NDArray[np.int64], TextBuffer]:
        """Which hash each string is of, and the strings."""
        if self._unseen:
            first = int(self._hashes[self._left[np.argmin(self._seen)]])
            raise DataError(
                f"{self._unseen:,} of {len(self._hashes):,} n-grams that were counted are not in "
                f"the texts, the first with the hash {first:#018x}; were the texts changed since? "
                "Count them again"
            )
        entries, strings = self._entries, self._strings
        self._entries, self._strings = [], []
        return np.concatenate(entries), TextBuffer.concat(strings)

    def _scan(
        self, texts: TextBuffer, start: int, stop: int
    ) -> tuple[NDArray[np.int64], TextBuffer]:
        """Which of those wanted are in these rows, and their strings."""
        seen = self._seen.copy()
        entries: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        parts: list[TextBuffer] = []
        row, token = start, 0
        room = _ROOM
        while row < stop:
            data = np.empty(room, np.uint8)
            ends = np.zeros(room // 8 + 2, np.int64)
            which = np.empty(room // 8 + 1, np.int64)
            before = row, token
            row, token, n = find_rows(
                texts.data, texts.offsets, kernels.rules(self._spec.tokenizer), (row, token, stop),
                (self._spec.min_n, self._spec.max_n), self._wanted, seen, (data, ends, which),
            )  # fmt: skip
            entries.append(which[:n].copy())
            parts.append(TextBuffer(data[: ends[n]].copy(), ends[: n + 1].copy()))
            if (row, token) == before and n == 0:
                room *= 2  # an n-gram longer than all that
        return np.concatenate(entries), TextBuffer.concat(parts)


def _wanted(hashes: NDArray[np.uint64]) -> Wanted:
    slots = make_slots(hashes, np.zeros(0, np.uint64))
    bits = max(_SMALLEST_FILTER, len(hashes).bit_length() + _FILTER_BITS - 1)
    bitmap = np.zeros(1 << bits >> 6, np.uint64)
    fill_filter(frozen(hashes, np.uint64), bits, bitmap)
    return Wanted(frozen(bitmap, np.uint64), bits, slots, row_mask(len(hashes)))


@kernel
def fill_filter(hashes: NDArray[np.uint64], bits: int, bitmap: NDArray[np.uint64]) -> None:
    """Set the bit of each hash."""
    for i in range(len(hashes)):
        bit = hashes[i] >> np.uint64(64 - bits)
        bitmap[np.int64(bit >> np.uint64(6))] |= np.uint64(1) << (bit & _WORD)


@kernel
def find_rows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rules: Rules,
    rows: tuple[int, int, int],
    sizes: tuple[int, int],
    wanted: Wanted,
    seen: NDArray[np.bool_],
    out: tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]],
) -> tuple[int, int, int]:
    """Write the strings of wanted n-grams in some rows, while there is room.

    Args:
        data: Text bytes.
        offsets: Of the rows.
        rules: The tokeniser.
        rows: The row to begin with, the first token in it, and the row to stop before.
        sizes: Shortest and longest n-gram.
        wanted: What to look for.
        seen: bool[wanted], which have been written; is updated.
        out: For bytes, for where each string ends (from entry 1 on), for which hash it is of.

    Returns:
        The row and token to go on with (the row to stop before when all are done), and how many
        strings were written.
    """
    row, token, stop = rows
    text, ends, which = out
    scratch = make_scratch(offsets, row, stop)
    ngrams = np.empty(_STRIDE * sizes[1], np.uint64)
    places = np.empty(len(ngrams), np.int64)
    n = 0
    while row < stop:
        tokens = tokenise(data, offsets[row], offsets[row + 1], rules, scratch)
        while token < tokens:
            until = min(tokens, token + _STRIDE)
            hashed = hash_ngrams(scratch.hashes, token, until, tokens, sizes[1], ngrams)
            written = filter_ngrams(ngrams, places, (token, hashed, tokens), sizes, wanted)
            ask_for(ngrams, written, wanted.slots)
            for i in range(written):
                entry = find_one(ngrams[i], wanted.slots, wanted.low)
                if entry < 0 or seen[entry]:
                    continue
                end = write_string(scratch, places[i] >> 3, places[i] & 7, text, ends[n])
                if end < 0 or n == len(which):
                    return row, token, n
                seen[entry] = True
                which[n] = entry
                n += 1
                ends[n] = end
            token = until
        row += 1
        token = 0
    return row, token, n


@kernel
def filter_ngrams(
    ngrams: NDArray[np.uint64],
    places: NDArray[np.int64],
    span: tuple[int, int, int],
    sizes: tuple[int, int],
    wanted: Wanted,
) -> int:
    """Keep, at the front, the n-grams that may be wanted, and note where each is.

    Args:
        ngrams: Hashes of the n-grams from a token on, as `hash_ngrams` writes them.
        places: For the first token of each that is kept, times 8, plus its length.
        span: That token; how many n-grams there are; where the row's tokens stop.
        sizes: Shortest and longest n-gram.
        wanted: Tells which may be.

    Returns:
        How many were kept.
    """
    shift = np.uint64(64 - wanted.bits)
    kept = 0
    begin = span[0]
    length = 1
    for i in range(span[1]):
        ngram = ngrams[i]
        bit = ngram >> shift
        word = wanted.filter[np.int64(bit >> np.uint64(6))]
        ngrams[kept] = ngram
        places[kept] = (begin << 3) | length
        # No branch: whether the bit is set cannot be foreseen.
        kept += length >= sizes[0] and (word >> (bit & _WORD)) & np.uint64(1) != 0
        length += 1
        if length > sizes[1] or begin + length > span[2]:
            begin += 1
            length = 1
    return kept


@kernel
def write_string(
    scratch: Scratch, first: int, order: int, text: NDArray[np.uint8], write: int
) -> int:
    """Write the tokens of an n-gram with spaces between; returns where it ends, -1 without room."""
    size = order - 1
    for token in range(first, first + order):
        size += scratch.ends[token] - scratch.begins[token]
    if write + size > len(text):
        return -1
    for token in range(first, first + order):
        if token > first:
            text[write] = SPACE
            write += 1
        for byte in range(scratch.begins[token], scratch.ends[token]):
            text[write] = scratch.lowered[byte]
            write += 1
    return write
