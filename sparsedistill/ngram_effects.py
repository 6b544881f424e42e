"""What a model makes of each n-gram by itself: which ones speak most for each label.

That is the answer to a text in which an n-gram is the only known one. Among others its share is
smaller, and parts of the hidden layer may be on that are off here, so it tells what the model has
learnt, not what a longer text will get; `explanation` does that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.folded import FoldedModel

_BLOCK = 1 << 14


def strongest_ngrams(folded: FoldedModel, most: int) -> list[list[tuple[int, float]]]:
    """For each class the rows that speak most for it when alone, and how much, the strongest first.

    How much is the logit of the class less the mean of all classes, compared with a text without
    any known n-gram: 0 changes nothing.

    Args:
        folded: The model; all of its table is read.
        most: Rows a class.
    """
    classes = len(folded.labels)
    rows = np.zeros((0, classes), np.int64)
    values = np.zeros((0, classes), np.float32)
    nothing = _centred(folded, np.zeros((1, folded.hidden), np.float32))
    for start in range(0, len(folded.table), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(folded.table)))
        effects = _centred(folded, folded.rows(block)) - nothing
        # The best so far come first: of equals the more frequent n-gram stays.
        rows = np.concatenate([rows, np.repeat(block[:, None], classes, axis=1)])
        values = np.concatenate([values, effects])
        best = np.argsort(-values, axis=0, kind="stable")[:most]
        rows = np.take_along_axis(rows, best, axis=0)
        values = np.take_along_axis(values, best, axis=0)
    return [
        list(zip(rows[:, c].tolist(), values[:, c].tolist(), strict=True)) for c in range(classes)
    ]


def _centred(folded: FoldedModel, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    logits = folded.head(rows + folded.hidden_bias)
    centred: NDArray[np.float32] = logits - logits.mean(axis=1, keepdims=True)
    return centred
