"""Pruning: which rows of a table are worth keeping.

A rule gives every row a place, the most useful row place 0; to keep ``n`` rows is to keep those
with a place below ``n``. So a smaller choice is always part of a larger one, and one ranking serves
every size that is tried.

A pruned n-gram is unknown to the model: it adds nothing to a text's mean and does not count in it.
The mean then stands for what was pruned, as if each pruned row were the average of those that stay.
(To go on counting it would need a place in the format, and measures within half a point of this.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt

    from sparsedistill.folded import FoldedModel
    from sparsedistill.vocabulary import Vocabulary

    Places = npt.NDArray[np.int64]

PruningRule = Literal["contribution", "count", "train_count", "order"]
_BLOCK_ROWS = 8192


class Rankings:
    """Places of a model's rows by each rule, ranked when they are first asked for.

    Attributes:
        rules: Those for which the vocabulary has the counts, the best first.
    """

    def __init__(self, model: FoldedModel, vocabulary: Vocabulary) -> None:
        self.rules: tuple[PruningRule, ...] = ("contribution", "count", "order")
        if vocabulary.train_counts.any():
            self.rules += ("train_count",)
        self._of = model, vocabulary
        self._places: dict[PruningRule, Places] = {}

    def __getitem__(self, rule: PruningRule) -> Places:
        if rule not in self._places:
            self._places[rule] = places(*self._of, rule)
        return self._places[rule]


def places(model: FoldedModel, vocabulary: Vocabulary, rule: PruningRule) -> Places:
    """Rank the rows of a model, int64[rows]; of equally useful ones the first in the table.

    Args:
        model: Whose table is looked at by ``contribution``.
        vocabulary: Its n-grams, in the model's order, with their counts. One whose counts are all
            zero stands for a model whose counts are not at hand.
        rule: ``count`` keeps the most frequent n-grams, and ``train_count`` those most frequent in
            ``train`` (the paper found it better). ``contribution`` keeps those that change texts
            most: the distance of a row from the average row times the root of how often it is used.
            With an n-gram pruned the average stands in its place, so the sum of ``use x distance
            squared`` over pruned rows is what texts lose. ``order`` keeps single tokens first, then
            pairs and so on, each by count.

    Raises:
        ConfigError: Counts in ``train`` are asked for and there are none.
    """
    if rule == "count":
        # Rows come in order of count, in a pruned table too.
        return np.arange(len(vocabulary))
    if rule == "order":
        return _places(vocabulary.orders)
    if rule == "train_count":
        if not vocabulary.train_counts.any():
            raise ConfigError(
                "to prune by train_count takes counts in train, which a packaged model does not "
                "have: give the run's vocabulary too, or prune by contribution"
            )
        return _places(-vocabulary.train_counts)
    use = row_use(vocabulary)
    return _places(-_distances(model, use) * np.sqrt(use))


def _places(keys: npt.NDArray[np.number]) -> Places:
    """Return each row's place if rows are sorted by ascending keys."""
    found = np.empty(len(keys), np.int64)
    found[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    return found


def row_use(vocabulary: Vocabulary) -> npt.NDArray[np.float64]:
    """Return how much each row is used: its share of all n-grams, float64[rows].

    The mean of the shares in corpus and train together and in train alone: the corpus is larger,
    train is nearer to what the model will be asked. Without counts, Zipf's law over the rows.
    """
    use = vocabulary.counts.astype(np.float64)
    if not use.any():
        use = 1 / np.arange(1, len(use) + 1)
    use /= use.sum()
    train = vocabulary.train_counts
    if train.any():
        use = (use + train / train.sum()) / 2
    return use


def _distances(model: FoldedModel, use: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how far each row is from the average of the rows in use."""
    blocks = [
        np.arange(start, min(start + _BLOCK_ROWS, len(use)))
        for start in range(0, len(use), _BLOCK_ROWS)
    ]
    average = np.zeros(model.hidden)
    for rows in blocks:
        average += use[rows] @ model.rows(rows)
    distances = np.empty(len(use))
    for rows in blocks:
        distances[rows] = np.linalg.norm(model.rows(rows) - average.astype(np.float32), axis=1)
    return distances


def rows_of_share(rows: int, share: float) -> int:
    """Return how many of so many rows a share of them is, one at least."""
    return max(1, round(share * rows))


def prune(
    model: FoldedModel, vocabulary: Vocabulary, ranking: Places, keep: int
) -> tuple[FoldedModel, Vocabulary]:
    """Return model and vocabulary with only the ``keep`` most useful rows, in the same order.

    Raises:
        ConfigError: ``keep`` is not between 1 and the number of rows.
    """
    if not 1 <= keep <= len(vocabulary):
        raise ConfigError(f"cannot keep {keep} of {len(vocabulary)} rows")
    if keep == len(vocabulary):
        return model, vocabulary
    rows = np.flatnonzero(ranking < keep)
    kept = vocabulary.take(rows)
    scale = None if model.scale is None else model.scale[rows]
    return replace(model, table=model.table[rows], scale=scale, index=kept.index), kept
