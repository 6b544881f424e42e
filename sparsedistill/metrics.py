"""How good predictions are, and how far their probabilities can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]


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
    """Expected calibration error and the bins it is made of (Guo et al., 2017)."""

    error: float
    bins: tuple[CalibrationBin, ...]


def calibration(truth: Labels, probabilities: Floats, *, bins: int = 15) -> Calibration:
    """Compare confidence with accuracy over equal-width bins of the highest probability.

    Args:
        truth: int64 [rows].
        probabilities: [rows, classes].
        bins: Number of bins over (0, 1].
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    where = np.digitize(confidence, edges[1:-1], right=True)
    filled = [
        CalibrationBin(
            low=float(edges[b]),
            high=float(edges[b + 1]),
            confidence=float(confidence[where == b].mean()),
            accuracy=float(right[where == b].mean()),
            count=int(np.sum(where == b)),
        )
        for b in range(bins)
        if np.any(where == b)
    ]
    error = sum(abs(b.confidence - b.accuracy) * b.count for b in filled) / max(len(truth), 1)
    return Calibration(error=float(error), bins=tuple(filled))


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
