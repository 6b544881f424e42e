"""Hashing n-grams that are already strings: lowered tokens, joined by one space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.jit import kernel
from sparsedistill.parallel import map_ranges
from sparsedistill.text.kernels import SPACE, combine, hash_short, hash_token

# Rows hashed in one call.
_BLOCK = 1 << 16

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.text.buffers import TextBuffer


def hash_strings(
    ngrams: TextBuffer, *, threads: int = 1
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint64]]:
    """Hash n-grams as `oracle.ngram_hash` does, in at most so many threads.

    Returns:
        uint64[n], their hashes; uint8[n], their orders; uint64[sum of (order - 1)], the hashes of
        all that they begin with, in no useful order.
    """
    hashes = np.empty(len(ngrams), np.uint64)
    orders = np.empty(len(ngrams), np.uint8)

    def hash_some(start: int, stop: int) -> NDArray[np.uint64]:
        offsets = ngrams.offsets[start : stop + 1]
        spaces = np.count_nonzero(ngrams.data[offsets[0] : offsets[-1]] == SPACE)
        prefixes = np.empty(int(spaces), np.uint64)
        n = hash_rows(ngrams.data, offsets, hashes[start:stop], orders[start:stop], prefixes)
        return prefixes[:n]

    found = map_ranges(hash_some, len(ngrams), block=_BLOCK, threads=threads)
    return hashes, orders, np.concatenate([np.zeros(0, np.uint64), *found])


@kernel
def hash_rows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    orders: NDArray[np.uint8],
    prefixes: NDArray[np.uint64],
) -> int:
    """Hash each row, token by token; returns how many proper prefixes were written."""
    longest = 0
    for row in range(len(offsets) - 1):
        longest = max(longest, offsets[row + 1] - offsets[row])
    words = np.empty(longest // 8 + 1, np.uint64)
    token = words.view(np.uint8)
    n = 0
    for row in range(len(offsets) - 1):
        ngram = np.uint64(0)
        order = 0
        size = 0
        # The bytes of a short token, so that its hash need not wait for them to reach memory.
        word = np.uint64(0)
        for at in range(offsets[row], offsets[row + 1] + 1):
            if at < offsets[row + 1] and data[at] != SPACE:
                token[size] = data[at]
                word |= np.uint64(data[at]) << np.uint64((size & 7) << 3)
                size += 1
                continue
            if order > 0:
                prefixes[n] = ngram
                n += 1
            hashed = hash_token(words, 0, size) if size > 8 else hash_short(word, size)
            ngram = combine(ngram, hashed) if order > 0 else hashed
            order += 1
            size = 0
            word = np.uint64(0)
        hashes[row] = ngram
        orders[row] = order
    return n
