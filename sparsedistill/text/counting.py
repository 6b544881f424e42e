"""Counting the n-grams of many texts, exactly, by hash.

Strings are the wrong unit to count (a 4-gram is some 25 bytes and a Python object): n-grams are
counted by their 64-bit hash, and remember where they were first seen, so that the strings of the
few that are chosen can be read off the texts afterwards (`ngram_strings`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.parallel import map_ranges
from sparsedistill.text import count_table, kernels
from sparsedistill.text.buffers import TextBuffer, frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.text.ngram_spec import NgramSpec

# Rows whose tokens are hashed at a time.
_BLOCK = 512
_PLACES = 1 << 32
_SMALLEST_TABLE = 12
# Above so many n-grams the hashes are counted in 2**3 ranges, one after another: hashing all of
# them eight times costs less than a table that does not fit the cache.
_MANY = 1 << 20
_RANGE_BITS = 3


@dataclass(frozen=True, slots=True, eq=False)
class NgramCounts:
    """The distinct n-grams of some texts, by ascending hash; all arrays have one length.

    Attributes:
        hash: uint64, ascending, each once.
        count: uint32, occurrences.
        order: uint8, tokens in the n-gram.
        row: uint32, the first row it occurs in.
        position: uint32, the index of its first token among that row's tokens, there.
    """

    hash: NDArray[np.uint64]
    count: NDArray[np.uint32]
    order: NDArray[np.uint8]
    row: NDArray[np.uint32]
    position: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.hash)


def count_ngrams(texts: TextBuffer, spec: NgramSpec, *, threads: int = 1) -> NgramCounts:
    """Count the n-grams of the texts.

    Memory: 12 bytes per token, 21 per distinct n-gram (as much again while the parts of several
    threads are put together), and per thread a table of 16 bytes per slot for an eighth of the
    distinct n-grams, 3/8 to 3/4 full.

    Args:
        texts: Rows; less than 2**32 n-grams in all.
        spec: Which n-grams.
        threads: At most this many; the result does not depend on it.

    Raises:
        DataError: More n-grams than that.
    """
    tokens = _all_tokens(texts, spec, threads)
    hashes, ends = tokens
    lengths = spec.max_n - spec.min_n + 1
    if len(hashes) * lengths >= _PLACES or len(texts) >= _PLACES:
        raise DataError(
            f"{len(texts):,} rows have {len(hashes):,} tokens; at most "
            f"{_PLACES // lengths - 1:,} can be counted at once: use fewer rows"
        )
    row_of_token = frozen(np.repeat(np.arange(len(texts), dtype=np.uint32), np.diff(ends)), "u4")
    range_bits = _RANGE_BITS if len(hashes) * lengths > _MANY else 0
    ranges = 1 << range_bits
    parts = map_ranges(
        lambda start, stop: _count_ranges(
            (hashes, ends, row_of_token), spec, range(start, stop), range_bits
        ),
        ranges,
        block=-(-ranges // max(1, threads)),
        threads=threads,
    )
    if len(parts) == 1:
        return parts[0]
    columns = NgramCounts.__slots__
    return NgramCounts(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
    )


def token_hashes(
    texts: TextBuffer, spec: NgramSpec
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of all tokens, uint64, end to end, and where those of each row end, [rows + 1]."""
    hashes = np.empty(texts.nbytes, np.uint64)  # a token has a byte at least
    ends = np.empty(len(texts) + 1, np.int64)
    kernels.token_rows(texts.data, texts.offsets, kernels.rules(spec.tokenizer), hashes, ends)
    return frozen(hashes[: ends[-1]], np.uint64), frozen(ends, np.int64)


def _all_tokens(
    texts: TextBuffer, spec: NgramSpec, threads: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    def tokens(start: int, stop: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        hashes, ends = token_hashes(texts.slice(start, stop), spec)
        return hashes.copy(), np.diff(ends)  # the copy lets go of the generous original

    blocks = map_ranges(tokens, len(texts), block=_BLOCK, threads=threads)
    hashes = np.concatenate([np.zeros(0, np.uint64), *(block[0] for block in blocks)])
    ends = np.cumsum(np.concatenate([np.zeros(1, np.int64), *(block[1] for block in blocks)]))
    return frozen(hashes, np.uint64), frozen(ends, np.int64)


def _count_ranges(
    tokens: tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint32]],
    spec: NgramSpec,
    ranges: range,
    range_bits: int,
) -> NgramCounts:
    """Count some ranges of hashes, one after another, in one table."""
    hashes, ends, row_of_token = tokens
    sizes = (spec.min_n, spec.max_n)
    # Room for the worst case is only reserved: memory is taken when it is written.
    room = len(hashes) * (spec.max_n - spec.min_n + 1)
    out = NgramCounts(
        hash=np.empty(room, np.uint64),
        count=np.empty(room, np.uint32),
        order=np.empty(room, np.uint8),
        row=np.empty(room, np.uint32),
        position=np.empty(room, np.uint32),
    )
    bits = _SMALLEST_TABLE
    table = np.zeros(count_table.SLOT << bits, np.uint64)
    done = 0
    for number in ranges:
        key = _key(range_bits, number, bits)
        row, used = count_table.count_rows(hashes, ends, 0, sizes, table, key, 0)
        while row < len(ends) - 1:
            bits += 1
            key = _key(range_bits, number, bits)
            larger = np.zeros(count_table.SLOT << bits, np.uint64)
            count_table.grow(table, larger, key)
            table = larger
            row, used = count_table.count_rows(hashes, ends, row, sizes, table, key, used)
        span = slice(done, done + used)
        counted = np.empty(used, np.uint64)
        count_table.drain(table, key, out.hash[span], counted)
        columns = (out.count[span], out.order[span], out.row[span], out.position[span])
        count_table.locate(counted, ends, row_of_token, sizes, columns)
        done += used
    return NgramCounts(**{name: getattr(out, name)[:done] for name in NgramCounts.__slots__})


def _key(range_bits: int, number: int, bits: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    return np.uint64(range_bits), np.uint64(number), np.uint64(bits)


def ngram_strings(
    texts: TextBuffer,
    spec: NgramSpec,
    *,
    rows: NDArray[np.uint32],
    positions: NDArray[np.uint32],
    orders: NDArray[np.uint8],
) -> TextBuffer:
    """The strings of n-grams by where they occur, as `NgramCounts` tells it, in the given order.

    Args:
        texts: The texts that were counted.
        spec: As they were counted.
        rows: Row of each n-gram, [n].
        positions: Index of its first token there, [n].
        orders: Its number of tokens, [n].

    Raises:
        DataError: A row or position that the texts do not have; the message names the first.
    """
    if len(rows) and int(rows.max()) >= len(texts):
        raise DataError(f"n-gram of row {int(rows.max())}, but there are {len(texts)} rows")
    by_row = np.argsort(rows, kind="stable")
    places = (
        frozen(rows[by_row], np.uint32),
        frozen(positions[by_row], np.uint32),
        frozen(orders[by_row], np.uint8),
    )
    rules = kernels.rules(spec.tokenizer)
    offsets = np.zeros(len(rows) + 1, np.int64)
    data = np.empty(32 * len(rows), np.uint8)
    done = 0
    while done < len(rows):
        done = kernels.string_rows(texts.data, texts.offsets, rules, places, done, data, offsets)
        if done < 0:
            row, position, order = (int(column[-1 - done]) for column in places)
            raise DataError(
                f"row {row} has no n-gram of {order} tokens at position {position}: "
                "were the texts changed since they were counted?"
            )
        if done < len(rows):
            data = np.concatenate([data, np.empty(len(data), np.uint8)])
    back = np.empty_like(by_row)
    back[by_row] = np.arange(len(by_row))
    return TextBuffer(data[: offsets[-1]], offsets).take(back)
