"""How well a vocabulary knows new texts: which of their n-grams have a row, and among how many.

Rows are in order of frequency, so how much a smaller vocabulary would know can be read off the rows
that the texts have in this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.text.tokens import token_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sparsedistill.text.buffers import TextBuffer
    from sparsedistill.vocabulary import Vocabulary

_SIZES_PER_DECADE = (1, 2, 5)
_SMALLEST = 1000
_BLOCK = 4096


def coverage(vocabulary: Vocabulary, texts: TextBuffer, *, threads: int = 1) -> dict[str, Any]:
    """What share of the texts' n-grams a vocabulary knows.

    Returns:
        Plain JSON values. `occurrences` and `known`: n-grams of the texts, all and those with a
        row, counted as often as they occur, and the same by order as `occurrences_by_order` and
        `known_by_order`; `out_of_vocabulary`: the share without a row; `by_size`: for growing
        sizes, the share that the first so many rows know; `known_per_text`: mean and percentiles;
        `texts_without`: texts with no known n-gram.
    """
    spec = vocabulary.spec
    lengths = range(spec.min_n, spec.max_n + 1)
    occurrences = np.zeros(spec.max_n + 1, np.int64)
    known = np.zeros(spec.max_n + 1, np.int64)
    sizes = _sizes(len(vocabulary))
    by_size = np.zeros(len(sizes) + 1, np.int64)
    per_text: list[int] = []
    for start in range(0, len(texts), _BLOCK):
        block = texts.slice(start, min(start + _BLOCK, len(texts)))
        tokens = np.diff(token_hashes(block, spec)[1])
        for order in lengths:
            occurrences[order] += np.maximum(tokens - order + 1, 0).sum()
        bags = vocabulary.bags(block, max_ngrams=1 << 40, threads=threads)
        known += np.bincount(vocabulary.orders[bags.rows], minlength=len(known))
        by_size += np.bincount(np.searchsorted(sizes, bags.rows, "right"), minlength=len(by_size))
        per_text += np.diff(bags.offsets).tolist()
    total = int(occurrences.sum())
    shares = np.cumsum(by_size)[: len(sizes)] / max(1, total)
    return {
        "occurrences": total,
        "known": int(known.sum()),
        "occurrences_by_order": occurrences[1:].tolist(),
        "known_by_order": known[1:].tolist(),
        "out_of_vocabulary": 1 - int(known.sum()) / total if total else 0.0,
        "by_size": [
            {"size": size, "share": float(share)} for size, share in zip(sizes, shares, strict=True)
        ],
        "known_per_text": spread(per_text),
        "texts_without": per_text.count(0),
    }


def spread(counts: Sequence[int] | NDArray[np.int64]) -> dict[str, float]:
    """Mean and percentiles of some counts, 0 where there are none."""
    p10, p50, p90 = np.percentile(counts, (10, 50, 90)).tolist() if len(counts) else (0.0, 0.0, 0.0)
    mean = float(np.mean(counts)) if len(counts) else 0.0
    return {"mean": mean, "p10": p10, "p50": p50, "p90": p90}


def _sizes(rows: int) -> list[int]:
    """1, 2, 5, 10, ... thousand, and the whole."""
    found = []
    decade = _SMALLEST
    while decade < rows:
        found += [step * decade for step in _SIZES_PER_DECADE if step * decade < rows]
        decade *= 10
    return [*found, rows]
