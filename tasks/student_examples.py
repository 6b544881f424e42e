"""What students learn from: the bags of mapped feature shards, and what is said of each.

Features and logits of a shard are joined by row id; a row without logits is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.bag_source import BagPart, MappedBags
from sparsedistill.errors import DataError
from sparsedistill.targets import Targets
from sparsedistill.training.loop import Examples
from tasks.features import read_features
from tasks.logits import read_logits
from tasks.shards import open_input, positions, read_shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from storage import ArtifactStore, Input


def labelled_examples(
    store: ArtifactStore, split: Input, features: Input, *, vocabulary_rows: int
) -> Examples[MappedBags]:
    """Return the texts of a split and their labels."""
    texts = read_shard(store, split)
    _, bags = read_features(open_input(store, features))
    if texts.labels is None:
        raise DataError("a split has no labels: make the dataset again")
    source = MappedBags([BagPart(bags)], vocabulary_rows=vocabulary_rows)
    return Examples(source, Targets(labels=texts.labels))


def taught_examples(
    store: ArtifactStore,
    features: Sequence[Input],
    logits: Sequence[Input],
    *,
    vocabulary_rows: int,
    train: Input | None = None,
) -> Examples[MappedBags]:
    """Return texts and what the teacher says of them.

    Args:
        store: Has all of it.
        features: A shard each.
        logits: Of the same shards.
        vocabulary_rows: Of the student's table.
        train: Where given, the texts of the last shard, whose labels are wanted too; those of all
            others are -1.

    Raises:
        DataError: No row has logits.
    """
    parts, targets, labels = [], [], []
    for number, (feature_input, logit_input) in enumerate(zip(features, logits, strict=True)):
        ids, bags = read_features(open_input(store, feature_input))
        logit_ids, values = read_logits(open_input(store, logit_input))
        where = positions(ids, logit_ids)
        rows = np.flatnonzero(where >= 0)
        parts.append(BagPart(bags, None if len(rows) == len(ids) else rows))
        targets.append(values[where[rows]])
        known = train if number == len(features) - 1 else None
        labels.append(_labels(store, known, ids[rows]))
    joined: npt.NDArray[np.float32] = np.concatenate(targets)
    if len(joined) == 0:
        raise DataError(
            "no row of the corpus has logits: the files of [logits] path hold none of its texts"
        )
    return Examples(
        MappedBags(parts, vocabulary_rows=vocabulary_rows),
        Targets(logits=joined, labels=None if train is None else np.concatenate(labels)),
    )


def _labels(
    store: ArtifactStore, split: Input | None, ids: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Return the label of each id, int64; -1 where the texts are not those of a split."""
    found = np.full(len(ids), -1, np.int64)
    if split is not None:
        texts = read_shard(store, split)
        where = positions(ids, texts.ids)
        if texts.labels is not None:
            found[where >= 0] = texts.labels[where[where >= 0]]
    return found
