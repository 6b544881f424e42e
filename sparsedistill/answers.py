"""What a classifier says of many texts in one pass, and how much of each it knew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Threshold: TypeAlias = float | Mapping[str, float]
"""Below which probability a label is not given: one for all labels, or one a label.

A label that a mapping leaves out is always given.
"""


class Answer(NamedTuple):
    """What is said of one text.

    Attributes:
        label: The most probable label, or None where the classifier abstains.
        probability: Of the most probable label, given or not.
        coverage: Share of the text's n-grams that the model knows; 0 if it has none.
    """

    label: str | None
    probability: float
    coverage: float


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What is said of many texts, row by row.

    Attributes:
        classes: The labels, by class.
        probabilities: float32[texts, classes]; rows sum to 1.
        best: int64[texts], the most probable class.
        kept: bool[texts], False where the classifier abstains.
        coverage: float32[texts], share of a text's n-grams that the model knows.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]
    best: NDArray[np.int64]
    kept: NDArray[np.bool_]
    coverage: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.best)

    def __iter__(self) -> Iterator[Answer]:
        top = self.probabilities[np.arange(len(self)), self.best].tolist()
        return map(Answer, self.labels, top, self.coverage.tolist())

    @property
    def labels(self) -> list[str | None]:
        """The label of each text; None where the classifier abstains."""
        names = [self.classes[best] for best in self.best.tolist()]
        if self.kept.all():
            return list(names)
        return [name if kept else None for name, kept in zip(names, self.kept, strict=True)]


def kept_rows(
    classes: tuple[str, ...],
    probabilities: NDArray[np.float32],
    best: NDArray[np.int64],
    abstain_below: Threshold | None,
) -> NDArray[np.bool_]:
    """Which rows reach the threshold of their most probable class, bool[texts].

    Raises:
        ConfigError: A threshold is not between 0 and 1, or is for no label of the model.
    """
    if abstain_below is None:
        return np.ones(len(best), np.bool_)
    limits = class_thresholds(classes, abstain_below)
    top = probabilities[np.arange(len(best)), best]
    kept: NDArray[np.bool_] = top.astype(np.float64) >= limits[best]
    return kept


def class_thresholds(classes: tuple[str, ...], abstain_below: Threshold) -> NDArray[np.float64]:
    """The threshold of each class, float64[classes]; see `kept_rows` for the errors."""
    if isinstance(abstain_below, Mapping):
        unknown = sorted(set(abstain_below) - set(classes))
        if unknown:
            raise ConfigError(
                f"abstain_below has {unknown[0]!r:.60}, which is no label of the model: "
                f"its labels are {', '.join(classes):.200}"
            )
        limits = [abstain_below.get(name, 0.0) for name in classes]
    else:
        limits = [abstain_below] * len(classes)
    for limit in limits:
        if not is_threshold(limit):
            raise ConfigError(f"abstain_below is a probability between 0 and 1, not {limit}")
    return np.array(limits, np.float64)


def is_threshold(value: Any) -> bool:  # noqa: ANN401 - whatever a caller or a file has there
    """Whether it is a number from 0 to 1."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and bool(0 <= value <= 1)
