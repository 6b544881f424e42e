"""Folding: the table takes the first linear layer in.

The mean and the layer are both linear, so ``W1 mean(E[g]) + b1 = mean((E W1^T)[g]) + b1`` and the
table can hold ``E W1^T``: exact, the largest multiplication is gone, and a row is as wide as the
hidden layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.folded import FoldedModel
from sparsedistill.training.row_types import BFLOAT16, from_bfloat16

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from sparsedistill.folded import Activation
    from sparsedistill.vocabulary import Vocabulary

_BLOCK_ROWS = 8192
_WEIGHTS = {"table", "hidden_weight", "hidden_bias", "head_weight", "head_bias"}


def fold(
    weights: Mapping[str, npt.NDArray[Any]],
    vocabulary: Vocabulary,
    *,
    labels: Sequence[str],
    activation: Activation,
    max_ngrams: int,
    pooling: str = "mean",
) -> FoldedModel:
    """Fold the first linear layer of a DAN over the mean of its n-grams into its table.

    Args:
        weights: ``table`` (float32, or bfloat16 as uint16), ``hidden_weight``, ``hidden_bias``,
            ``head_weight``, ``head_bias``.
        vocabulary: Its rows are the table's.
        labels: Names of the classes.
        activation: After the hidden layer.
        max_ngrams: Known n-grams of a text that count.
        pooling: Of a text's n-grams.

    Raises:
        DataError: There are more layers, or the pooling is another than the mean.
    """
    more = sorted(set(weights) - _WEIGHTS)
    if more or pooling != "mean":
        what = ", ".join(more) or f"the {pooling} of its n-grams"
        raise DataError(
            f"a student with {what} cannot be folded: "
            "only one with a single hidden layer over the mean can"
        )
    table, hidden_weight = weights["table"], weights["hidden_weight"]
    folded = np.empty((len(table), len(hidden_weight)), np.float32)
    for start in range(0, len(table), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        values = from_bfloat16(table[rows]) if table.dtype == BFLOAT16 else table[rows]
        folded[rows] = values.astype(np.float64) @ hidden_weight.T.astype(np.float64)
    return FoldedModel(
        labels=tuple(labels),
        spec=vocabulary.spec,
        index=vocabulary.index,
        max_ngrams=max_ngrams,
        table=folded,
        # Copies: a student's weights change when it is trained further.
        hidden_bias=weights["hidden_bias"].copy(),
        head_weight=weights["head_weight"].copy(),
        head_bias=weights["head_bias"].copy(),
        activation=activation,
    )
