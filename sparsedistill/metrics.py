"""How good predictions are, and how far their probabilities can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]
Binning = Literal["width", "mass"]


def softmax(logits: Floats, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Return probabilities float64 [rows, classes] whose rows sum to one."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


def accuracy(truth: Labels, predicted: Labels) -> float:
    """Return the share of rows where both say the same."""
    return float(np.mean(truth == predicted))


def confusion(truth: Labels, predicted: Labels, *, classes: int) -> npt.NDArray[np.int64]:
    """Return counts int64 [classes, classes]: rows are the truth, columns the prediction."""
    return np.bincount(truth * classes + predicted, minlength=classes**2).reshape(classes, classes)


def macro_f1(truth: Labels, predicted: Labels, *, classes: int) -> float:
    """Return the unweighted mean of the classes' F1; a class never seen nor predicted counts 0."""
    table = confusion(truth, predicted, classes=classes)
    hits = np.diag(table).astype(float)
    support = table.sum(axis=0) + table.sum(axis=1)
    return float(np.mean(np.divide(2 * hits, support, out=np.zeros(classes), where=support > 0)))


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows whose confidence lies in (low, high]: their mean confidence, accuracy and number."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Expected calibration error and the bins it is made of (Guo et al., 2017).

    Attributes:
        error: Mean over the rows of the distance between confidence and accuracy of their bin.
        bins: Those with rows.
        noise: The error that is expected of perfect probabilities as well, from so few rows.
            An error near it says nothing against the probabilities.
    """

    error: float
    bins: tuple[CalibrationBin, ...]
    noise: float


def calibration(
    truth: Labels, probabilities: Floats, *, bins: int = 15, binning: Binning = "width"
) -> Calibration:
    """Compare confidence with accuracy over bins of the highest probability.

    Bins of equal width are what is usually reported; most rows are then in the last one. In bins of
    equal mass each has as many rows as the others, so that none is left to chance.

    Args:
        truth: int64 [rows].
        probabilities: [rows, classes].
        bins: Number of bins over (0, 1].
        binning: By "width" or by "mass"; of equal mass but for rows of one confidence, which stay
            together.
    """
    confidence = np.asarray(probabilities.max(axis=1), np.float64)
    right = probabilities.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    if binning == "mass" and len(truth):
        inner = np.quantile(confidence, edges[1:-1], method="inverted_cdf")
        edges = np.unique([0.0, *inner, 1.0])
    where = np.digitize(confidence, edges[1:-1], right=True)
    filled = [
        CalibrationBin(
            low=float(edges[b]),
            high=float(edges[b + 1]),
            confidence=float(confidence[where == b].mean()),
            accuracy=float(right[where == b].mean()),
            count=int(np.sum(where == b)),
        )
        for b in range(len(edges) - 1)
        if np.any(where == b)
    ]
    rows = max(len(truth), 1)
    error = sum(abs(b.confidence - b.accuracy) * b.count for b in filled) / rows
    # If the probabilities were right, the number of hits in a bin would vary as a sum of coin
    # tosses does, and the mean distance from 0 of what is normal is sqrt(2 / pi) deviations.
    variance = np.bincount(where, (confidence * (1 - confidence)).clip(min=0))
    noise = np.sqrt(2 / np.pi * variance).sum() / rows
    return Calibration(error=float(error), bins=tuple(filled), noise=float(noise))


def brier_score(truth: Labels, probabilities: Floats) -> float:
    """Return the mean squared distance of the probabilities from the truth, 0 to 2.

    Unlike the calibration error it also falls as the probabilities tell more rows apart.
    """
    wanted = np.arange(probabilities.shape[1]) == np.asarray(truth)[:, None]
    return float(np.mean(((probabilities - wanted) ** 2).sum(axis=1)))


def negative_log_likelihood(truth: Labels, logits: Floats, *, temperature: float) -> float:
    """Return the mean of -log p(truth) under the tempered logits."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(truth)), truth]))


def best_temperature(truth: Labels, logits: Floats) -> float:
    """Return the temperature in [0.05, 20] with the least negative log likelihood.

    The negative log likelihood is convex in 1 / T, so it has one minimum; a golden-section search
    over log T narrows it to a thousandth. Where every row is right the bound 0.05 is returned.
    """
    golden = (5**0.5 - 1) / 2
    low, high = np.log(0.05), np.log(20.0)

    def loss(log_t: float) -> float:
        return negative_log_likelihood(truth, logits, temperature=float(np.exp(log_t)))

    a, b = high - golden * (high - low), low + golden * (high - low)
    loss_a, loss_b = loss(a), loss(b)
    while high - low > 1e-3:
        if loss_a <= loss_b:
            high, b, loss_b = b, a, loss_a
            a = high - golden * (high - low)
            loss_a = loss(a)
        else:
            low, a, loss_a = a, b, loss_b
            b = low + golden * (high - low)
            loss_b = loss(b)
    return round(float(np.exp((low + high) / 2)), 4)
