"""How sure a classifier must be for its answers to be right as often as is wanted.

Thresholds are fitted on held-out rows, and those are few. The least threshold at which the rows
themselves have the wanted precision is a matter of luck: for new texts the precision is then below
it in half of all fits, and worse with few rows (docs/trust.md). So it is the lower bound of the
precision that has to reach what is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.chance import wilson_lower
from sparsedistill.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NEVER = 1.0
"""The threshold of a class whose answers cannot be trusted as far as is wanted.

Only a probability that rounds to 1 reaches it.
"""

_BAR = 40


def fit_thresholds(
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    classes: Sequence[str],
    *,
    precision: float,
    confidence: float = 0.95,
) -> dict[str, float]:
    """The least probability, by class, above which answers are right as often as is wanted.

    Args:
        truth: int64[rows], of rows that the model was not trained on.
        probabilities: float32[rows, classes], calibrated, as `predict_proba` gives them.
        classes: The labels.
        precision: Share of a class's answers that shall be right, above 0 and at most 1.
        confidence: How sure that shall be: the precision is the lower bound of Wilson's interval.
            With 0.5 it is what was seen on these rows.

    Returns:
        Threshold by label, for `abstain_below`: 0 where every answer may stand, `NEVER` where too
        few rows, or none, are that good. It lies half way between the last row that is answered and
        the next that is not.

    Raises:
        ConfigError: The precision or the confidence is out of range.
        DataError: The arrays do not fit one another.
    """
    if not 0 < precision <= 1:
        raise ConfigError(f"precision is a share above 0 and at most 1, not {precision}")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence is at least 0.5 and below 1, not {confidence}")
    _check(truth, probabilities, len(classes))
    best = probabilities.argmax(axis=1)
    top = probabilities.max(axis=1)
    return {
        name: _threshold(top[best == c], truth[best == c] == c, precision, confidence)
        for c, name in enumerate(classes)
    }


def _threshold(
    top: NDArray[np.float32], right: NDArray[np.bool_], precision: float, confidence: float
) -> float:
    order = np.argsort(-top, kind="stable")
    top, right = top[order], right[order]
    # Rows of one probability are answered together: a threshold is only where the next is lower.
    ends = np.flatnonzero(np.append(top[:-1] > top[1:], [True] * (len(top) > 0)))
    if len(ends) == 0:
        return NEVER
    bound = wilson_lower(np.cumsum(right)[ends], ends + 1, confidence=confidence)
    good = ends[bound >= precision]
    if len(good) == 0:
        return NEVER
    last = int(good[-1])
    if last == len(top) - 1:
        return 0.0
    middle = (top[last] + top[last + 1]) / np.float32(2)
    # As a float32, so that nothing changes when it is compared with one.
    return float(middle if middle > top[last + 1] else top[last])


@dataclass(frozen=True, slots=True)
class AbstentionPoint:
    """What is gained by leaving the least sure texts without an answer.

    Attributes:
        threshold: Texts are answered whose highest probability is at least this.
        answered: Share of the texts that are.
        accuracy: Share of those that are right.
    """

    threshold: float
    answered: float
    accuracy: float


def abstention_curve(
    truth: NDArray[np.int64], probabilities: NDArray[np.float32], *, points: int = 20
) -> tuple[AbstentionPoint, ...]:
    """Accuracy of what is answered against the share that is, from all texts to the surest few.

    Args:
        truth: int64[rows].
        probabilities: [rows, classes].
        points: At most so many, at about equal steps of the share answered.

    Raises:
        ConfigError: There is no point.
        DataError: The arrays do not fit one another.
    """
    if points < 1:
        raise ConfigError(f"points must be 1 or more, not {points}")
    _check(truth, probabilities, probabilities.shape[-1])
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    order = np.argsort(-top, kind="stable")
    top, hits = top[order], np.cumsum(right[order])
    wanted = np.arange(points, 0, -1) * len(top) // points
    # All rows of one probability are answered, or none of them.
    ends = np.searchsorted(-top, -top[wanted[wanted > 0] - 1], side="right")
    return tuple(
        AbstentionPoint(float(top[n - 1]), n / len(top), float(hits[n - 1] / n))
        for n in dict.fromkeys(ends.tolist())
    )


def render_curve(curve: Sequence[AbstentionPoint]) -> str:
    """The curve as a table with bars, for a terminal."""
    lines = ["answered  accuracy  probability at least"]
    least = min((point.accuracy for point in curve), default=0.0)
    for point in curve:
        # From the lowest accuracy on: differences are small, and they are what matters.
        length = round(_BAR * (point.accuracy - least) / max(1 - least, 1e-9))
        row = f"{point.answered:8.1%}  {point.accuracy:8.1%}  {point.threshold:.4f}"
        lines.append(f"{row}  {'█' * length}".rstrip())
    return "\n".join(lines) + "\n"


def _check(truth: NDArray[np.int64], probabilities: NDArray[np.float32], classes: int) -> None:
    if probabilities.shape != (len(truth), classes):
        raise DataError(
            f"probabilities must be [{len(truth)}, {classes}] for so many labels and classes, "
            f"not {list(probabilities.shape)}"
        )
