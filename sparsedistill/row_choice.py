"""Which labelled rows of a corpus a student learns from: those of enough margin, balanced.

A row's *margin* is the distance between the teacher's two best probabilities: where it is small,
the teacher is of two minds. *Balance* gives each class a share, and no class keeps more rows than
its share of all there are; classes that have less keep what they have. Of a class with too many,
those stay whose hash is smallest, a function of row id and seed. So what is chosen depends neither
on the order of the rows nor on how they are cut into shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.metrics import softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Labelled = tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]

# Rows whose probabilities are held at a time.
_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class RowChoice:
    """What a row needs to be learned from.

    Attributes:
        least_margin: Between the teacher's two best probabilities, 0 to 1.
        weights: Of each class; its part of their sum is the greatest share of the rows that it may
            have. None for no limit.
        seed: Of the hash that decides between rows of one class.
    """

    least_margin: float = 0.0
    weights: tuple[int, ...] | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a choice came to; rows are counted by the class that the teacher sees in them.

    Attributes:
        masks: bool [rows] of every shard: which rows stay.
        labelled: Rows there were, int64 [classes].
        small_margin: Of them left out for their margin, int64 [classes].
        over_share: Of the others left out for balance, int64 [classes].
    """

    masks: tuple[npt.NDArray[np.bool_], ...]
    labelled: npt.NDArray[np.int64]
    small_margin: npt.NDArray[np.int64]
    over_share: npt.NDArray[np.int64]

    def to_json(self) -> dict[str, list[int]]:
        """Return the counts, and those of the rows that stay, as plain JSON."""
        kept = self.labelled - self.small_margin - self.over_share
        return {
            "labelled": self.labelled.tolist(),
            "small_margin": self.small_margin.tolist(),
            "over_share": self.over_share.tolist(),
            "kept": kept.tolist(),
        }


def margins(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the distance between the two best probabilities of each row, float64 [rows]."""
    out = np.empty(len(logits))
    for start in range(0, len(logits), _BLOCK):
        best = np.partition(softmax(logits[start : start + _BLOCK]), -2, axis=1)
        out[start : start + _BLOCK] = best[:, -1] - best[:, -2]
    return out


def choose(shards: Sequence[Labelled], choice: RowChoice) -> Chosen:
    """Choose among labelled rows.

    Args:
        shards: Ids uint64 [rows] and logits float32 [rows, classes] of each.
        choice: What a row needs.

    Raises:
        DataError: No row is left.
    """
    classes = shards[0][1].shape[1]
    says = [logits.argmax(axis=1) for _, logits in shards]
    sure = [
        margins(logits) >= choice.least_margin
        if choice.least_margin
        else np.ones(len(logits), np.bool_)
        for _, logits in shards
    ]
    labelled = _counts(says, classes)
    after = _counts([one[keep] for one, keep in zip(says, sure, strict=True)], classes)
    masks = sure
    if choice.weights is not None:
        hashes = [_hashes(ids, choice.seed) for ids, _ in shards]
        total, weights = int(after.sum()), choice.weights
        # Rounded up in whole numbers, the same on every machine.
        most = [-(-weight * total // sum(weights)) for weight in weights]
        for label in np.flatnonzero(after > most):
            mine = [keep & (one == label) for one, keep in zip(says, sure, strict=True)]
            drawn = np.concatenate([h[rows] for h, rows in zip(hashes, mine, strict=True)])
            limit = _smallest(drawn, most[label])
            masks = [
                keep & ~(rows & (h >= limit))
                for keep, rows, h in zip(masks, mine, hashes, strict=True)
            ]
    kept = _counts([one[keep] for one, keep in zip(says, masks, strict=True)], classes)
    if not kept.sum():
        raise DataError(
            f"none of the {labelled.sum():,} labelled rows of the corpus is left to learn from: "
            f"set a smaller [student] least_margin than {choice.least_margin}, or balance = 'none'"
        )
    return Chosen(tuple(masks), labelled, labelled - after, after - kept)


def _counts(says: Sequence[npt.NDArray[np.int64]], classes: int) -> npt.NDArray[np.int64]:
    return sum(
        (np.bincount(one, minlength=classes) for one in says), start=np.zeros(classes, np.int64)
    )


def _smallest(hashes: npt.NDArray[np.uint64], count: int) -> np.uint64:
    """Return the hash below which there are so many, fewer than all."""
    return np.uint64(np.partition(hashes, count)[count])


def _hashes(ids: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Return ids mixed anew for each seed: the finaliser of splitmix64, twice, uint64 [rows]."""
    with np.errstate(over="ignore"):
        return _mixed(_mixed(ids + np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(seed & 2**64 - 1))


def _mixed(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)
