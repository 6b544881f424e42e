"""Hashing n-grams that are already strings: lowered tokens, joined by one space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.jit import kernel
from sparsedistill.text.kernels import SPACE, combine, hash_short, hash_token

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.text.buffers import TextBuffer


def hash_strings(
    ngrams: TextBuffer,
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint64]]:
    """Hash n-grams as `oracle.ngram_hash` does.

    Returns:
        uint64[n], their hashes; uint8[n], their orders; uint64[sum of (order - 1)], the hashes of
        all that they begin with, in no useful order.
    """
    hashes = np.empty(len(ngrams), np.uint64)
    orders = np.empty(len(ngrams), np.uint8)
    spaces = int(np.count_nonzero(ngrams.data == SPACE))
    prefixes = np.empty(spaces, np.uint64)
    n = hash_rows(ngrams.data, ngrams.offsets, hashes, orders, prefixes)
    return hashes, orders, prefixes[:n]


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
