"""Calibration: one number that makes probabilities honest and changes no answer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sparsedistill.metrics import best_temperature

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sparsedistill.folded import FoldedModel


def calibrate(
    model: FoldedModel,
    logits: npt.NDArray[np.float32],
    truth: npt.NDArray[np.int64],
) -> FoldedModel:
    """Return the model with the temperature that makes its probabilities fit labelled rows best.

    Args:
        model: To be calibrated.
        logits: Of the model for those rows, float32 [rows, classes].
        truth: Their labels, int64 [rows].
    """
    return replace(model, temperature=best_temperature(truth, logits))
