"""Weights that let rare labels count for more than their share of the rows.

Their mean over the labelled rows is 1: the size of the loss, and with it the learning rate and the
share of the teacher in a mixture, stays what it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparsedistill.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

Weighting = Literal["balanced"]
# Of a row by its label; and, for each of several labels, of not having it and of having it.
ClassWeights = tuple[float, ...]
LabelWeights = tuple[tuple[float, float], ...]
Weights = ClassWeights | LabelWeights


def class_weights(
    labels: npt.NDArray[np.integer[Any]], how: Weighting | Sequence[float], *, classes: int
) -> ClassWeights:
    """Return the weight of a row by its label.

    Args:
        labels: Of the rows that are trained on, [rows]; -1 for none.
        how: "balanced", as scikit-learn has it, rows / (classes * rows of the class); or one number
            a class, of which only the ratios matter.
        classes: How many there are.

    Raises:
        ConfigError: The numbers given are not one positive number a class.
        DataError: "balanced", and a class has no row; or no row has a label.
    """
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    if counts.sum() == 0:
        raise DataError("class weights need rows with labels, and there are none")
    if how != "balanced":
        return _normalised(_checked(how, classes), counts)
    if not counts.all():
        raise DataError(
            f"no row has label {int(np.argmin(counts))}, so the classes cannot be balanced; "
            "give their weights as numbers"
        )
    return _normalised(1 / counts, counts)


def label_weights(
    labels: npt.NDArray[np.integer[Any]], how: Weighting | Sequence[float]
) -> LabelWeights:
    """Return, for each of several labels a row may have, the weights of not having and having it.

    Args:
        labels: 0 and 1, [rows, labels]; -1 in rows without labels.
        how: "balanced", each label by itself, as if it were a task of two classes; or one number a
            label, the weight of a 1 over that of a 0.

    Raises:
        ConfigError: The numbers given are not one positive number a label.
        DataError: "balanced", and a label is the same in all rows; or no row has labels.
    """
    width = labels.shape[1]
    ratios = ["balanced"] * width if how == "balanced" else _checked(how, width).tolist()
    found = []
    for label, ratio in enumerate(ratios):
        try:
            given = ratio if ratio == "balanced" else (1.0, ratio)
            no, yes = class_weights(labels[:, label], given, classes=2)
        except DataError as error:
            raise DataError(f"label {label} of {width}, yes or no: {error}") from error
        found.append((no, yes))
    return tuple(found)


def _checked(given: Sequence[float], classes: int) -> npt.NDArray[np.float64]:
    weights = np.asarray(given, np.float64)
    if weights.shape != (classes,) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ConfigError(
            f'class weights must be "balanced" or {classes} positive numbers, one a class, '
            f"not {list(given)}"
        )
    return weights


def _normalised(weights: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> ClassWeights:
    """Return the weights over their mean over the rows."""
    return tuple((weights * counts.sum() / (weights * counts).sum()).tolist())
