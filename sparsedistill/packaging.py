"""From a trained DAN to the model that is deployed: fold, prune, quantise, calibrate.

Folding is exact: the mean and the first linear layer are both linear, so
``W1 mean(E[g]) + b1 = mean((E W1^T)[g]) + b1`` and the table can hold ``E W1^T``. What follows
trades size for closeness, and each step is compared with the model before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparsedistill.errors import ConfigError
from sparsedistill.folded import FoldedModel
from sparsedistill.metrics import best_temperature
from sparsedistill.text.buffers import TextBuffer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from sparsedistill.folded import Activation
    from sparsedistill.vocabulary import Vocabulary

PruningRule = Literal["count", "train_count", "contribution"]
EDGE_TEXTS = (
    "",
    " \t ",
    "\u2603 \u2603",
    "qzxv jqwk",
    "good " * 5000,
    "\u0130stanbul \u03a3\u03a3",
)
"""Texts that go wrong first: empty, blank, no word, nothing known, very long, odd lower case."""
_BLOCK_ROWS = 8192


def fold(
    weights: Mapping[str, npt.NDArray[np.float32]],
    vocabulary: Vocabulary,
    *,
    labels: Sequence[str],
    activation: Activation,
    max_ngrams: int,
) -> FoldedModel:
    """Fold the first linear layer of a DAN into its table.

    Args:
        weights: ``table``, ``hidden_weight``, ``hidden_bias``, ``head_weight``, ``head_bias``.
        vocabulary: Its rows are the table's.
        labels: Names of the classes.
        activation: After the hidden layer.
        max_ngrams: Known n-grams of a text that count.
    """
    table, hidden_weight = weights["table"], weights["hidden_weight"]
    folded = np.empty((len(table), len(hidden_weight)), np.float32)
    for start in range(0, len(table), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        folded[rows] = table[rows].astype(np.float64) @ hidden_weight.T.astype(np.float64)
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


def useful_rows(
    model: FoldedModel, vocabulary: Vocabulary, keep: int, rule: PruningRule
) -> npt.NDArray[np.int64]:
    """Return the ``keep`` most useful rows in ascending order.

    Args:
        model: Whose table is looked at by ``contribution``.
        vocabulary: Its counts.
        keep: How many rows stay.
        rule: ``count`` keeps the most frequent n-grams; ``train_count`` those most frequent in
            ``train`` (the paper found it better); ``contribution`` those with the largest norm
            times the root of their count.

    Raises:
        ConfigError: ``keep`` is not between 1 and the number of rows.
    """
    if not 1 <= keep <= len(vocabulary):
        raise ConfigError(f"cannot keep {keep} of {len(vocabulary)} rows")
    if rule == "count":
        return np.arange(keep)
    if rule == "train_count":
        score = vocabulary.train_counts.astype(np.float64)
    else:
        score = _row_norms(model) * np.sqrt(vocabulary.counts)
    # Of equal scores the first rows stay: the most frequent n-grams.
    return np.sort(np.argsort(-score, kind="stable")[:keep])


def _row_norms(model: FoldedModel) -> npt.NDArray[np.float64]:
    norms = np.empty(len(model.table))
    for start in range(0, len(norms), _BLOCK_ROWS):
        rows = np.arange(start, min(start + _BLOCK_ROWS, len(norms)))
        norms[rows] = np.linalg.norm(model.rows(rows), axis=1)
    return norms


def prune(
    model: FoldedModel, vocabulary: Vocabulary, rows: npt.NDArray[np.int64]
) -> tuple[FoldedModel, Vocabulary]:
    """Return model and vocabulary with only these rows, renumbered from 0."""
    kept = vocabulary.take(rows)
    scale = None if model.scale is None else model.scale[rows]
    return replace(model, table=model.table[rows], scale=scale, index=kept.index), kept


def calibrate(
    model: FoldedModel, logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]
) -> FoldedModel:
    """Return the model with the temperature that makes its probabilities fit labelled rows best.

    Args:
        model: To be calibrated.
        logits: Of the model for those rows, float32 [rows, classes].
        truth: Their labels, int64 [rows].
    """
    return replace(model, temperature=best_temperature(truth, logits))


def largest_difference(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> float:
    """Return the largest difference of two models' logits over the same texts."""
    return float(np.abs(before - after).max(initial=0.0))


def model_bytes(model: FoldedModel, vocabulary: Vocabulary) -> int:
    """Return about how many bytes the model takes on disk: table, layers, hashes and n-grams."""
    arrays = (model.table, model.scale, model.hidden_bias, model.head_weight, model.head_bias)
    tensors = sum(array.nbytes for array in arrays if array is not None)
    return int(tensors + vocabulary.hashes.nbytes + vocabulary.ngrams.nbytes)


def check_texts(texts: TextBuffer) -> TextBuffer:
    """Return the texts followed by ``EDGE_TEXTS``: what packaging steps are compared on."""
    return TextBuffer.concat([texts, TextBuffer.from_strings(EDGE_TEXTS)])
