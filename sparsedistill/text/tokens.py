"""The tokens of many texts as hashes, which is all that n-grams are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.text import kernels
from sparsedistill.text.buffers import frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.text.buffers import TextBuffer
    from sparsedistill.text.ngram_spec import NgramSpec


def token_hashes(
    texts: TextBuffer, spec: NgramSpec
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of all tokens, uint64, end to end, and where those of each row end, [rows + 1]."""
    hashes = np.empty(texts.nbytes, np.uint64)  # a token has a byte at least
    ends = np.empty(len(texts) + 1, np.int64)
    kernels.token_rows(texts.data, texts.offsets, kernels.rules(spec.tokenizer), hashes, ends)
    return frozen(hashes[: ends[-1]], np.uint64), frozen(ends, np.int64)
