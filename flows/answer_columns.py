"""What is said of each text, as columns: which there are, and how they are called and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sparsedistill.answers import Answers


class Column(NamedTuple):
    """One value for each text: labels (None where the model abstains), or float32 shares."""

    name: str
    values: Sequence[str | None] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shown:
    """What is asked for beside the label.

    Attributes:
        every: The probability of each class.
        top: So many of the most probable labels; 0 for none.
        coverage: The share of known n-grams.
    """

    every: bool = False
    top: int = 0
    coverage: bool = False

    def __bool__(self) -> bool:
        return self.every or self.top > 0 or self.coverage

    def columns(self, answers: Answers, *, bare: bool = False) -> list[Column]:
        """The columns of some answers, the label first.

        Args:
            answers: What to show.
            bare: As in lines of text: no probability of the label, and classes by their names.
        """
        rows = np.arange(len(answers))
        found = [Column("label", answers.labels)]
        if not bare:
            found.append(Column("probability", answers.probabilities[rows, answers.best]))
        if self.coverage:
            found.append(Column("coverage", answers.coverage))
        if self.top:
            for place, best in enumerate(best_classes(answers, self.top).T, start=1):
                # Not probability_1, which the class "1" has: labels are often numbers.
                found.append(Column(f"top_{place}", [answers.classes[c] for c in best.tolist()]))
                found.append(Column(f"top_{place}_probability", answers.probabilities[rows, best]))
        if self.every:
            found += [
                Column(name if bare else f"probability_{name}", answers.probabilities[:, c])
                for c, name in enumerate(answers.classes)
            ]
        return found

    def objects(self, answers: Answers) -> list[dict[str, Any]]:
        """The same for JSON: what is there several times is nested."""
        shares = np.round(answers.probabilities.astype(np.float64), 6)
        labels, best = answers.labels, answers.best.tolist()
        found: list[dict[str, Any]] = [
            {"label": label, "probability": row[c]}
            for label, row, c in zip(labels, shares.tolist(), best, strict=True)
        ]
        if self.coverage:
            for one, share in zip(found, answers.coverage.tolist(), strict=True):
                one["coverage"] = round(share, 6)
        if self.top:
            order = best_classes(answers, self.top).tolist()
            for one, row, chosen in zip(found, shares.tolist(), order, strict=True):
                one["top"] = [{"label": answers.classes[c], "probability": row[c]} for c in chosen]
        if self.every:
            for one, row in zip(found, shares.tolist(), strict=True):
                one["probabilities"] = dict(zip(answers.classes, row, strict=True))
        return found


def best_classes(answers: Answers, most: int) -> NDArray[np.int64]:
    """The most probable classes of each text, best first, int64[texts, most]."""
    return np.argsort(-answers.probabilities, axis=1, kind="stable")[:, :most]


def written(column: Column) -> list[str]:
    """A column's values as text; an abstention is empty."""
    if isinstance(column.values, np.ndarray):
        return [f"{value:.6f}" for value in column.values.tolist()]
    return [label or "" for label in column.values]


def free_prefix(names: Sequence[str], taken: Sequence[str]) -> str:
    """What to put before all of our names so that none is one of the input's."""
    prefix = ""
    while any(prefix + name in taken for name in names):
        prefix += "predicted_"
    return prefix
