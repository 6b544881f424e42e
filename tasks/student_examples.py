"""What students learn from: the bags of mapped shards, and what is said of each.

Bags (of n-grams or of tokens) and logits of a shard are joined by row id. A teacher labels every
row; of logits that were given, those that are missing leave their rows out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.bag_source import BagPart, MappedBags
from sparsedistill.errors import DataError
from sparsedistill.row_choice import choose
from sparsedistill.targets import Targets
from sparsedistill.training.loop import Examples
from tasks.features import read_features
from tasks.logit_file import read_logits
from tasks.shards import open_input, positions, read_shard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from sparsedistill.bags import Bags
    from sparsedistill.row_choice import Chosen, RowChoice
    from sparsedistill.students import DAN
    from sparsedistill.students.subwords import SubwordStudent
    from sparsedistill.training.memory_plan import MemoryPlan
    from sparsedistill.training.recipe import TrainingRecipe
    from storage import Artifact, ArtifactStore, Input


@dataclass(frozen=True, slots=True)
class Data:
    """What a DAN learns from.

    Attributes:
        examples: To learn from.
        dev: To be measured on.
        rows: Of the vocabulary.
        classes: Number of labels.
        chosen: Which rows of the corpus are among the examples, where not all are.
    """

    examples: Examples[MappedBags]
    dev: Examples[MappedBags]
    rows: int
    classes: int
    chosen: Chosen | None


@dataclass(frozen=True, slots=True)
class Setup:
    """A student before its first update, and all that it is trained on.

    Attributes:
        student: Freshly made.
        examples: To learn from.
        dev: To be measured on.
        recipe: Schedule.
        memory: What it takes.
        classes: Number of labels.
        chosen: Which rows of the corpus are among the examples, where not all are.
        started: What was taken over from an earlier student, where there was one.
    """

    student: DAN | SubwordStudent
    examples: Examples[MappedBags]
    dev: Examples[MappedBags]
    recipe: TrainingRecipe
    memory: MemoryPlan
    classes: int
    chosen: Chosen | None
    started: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Taught:
    """Texts and what the teacher says of them.

    Attributes:
        examples: To learn from.
        chosen: Which rows of the corpus these are, where not all were wanted.
    """

    examples: Examples[MappedBags]
    chosen: Chosen | None


def check_vocabulary(store: ArtifactStore, features: Sequence[Input], vocabulary: Input) -> None:
    """See that the rows of features are those of a vocabulary.

    Raises:
        DataError: They are another's.
    """
    for one in features:
        (used,) = open_input(store, one).manifest.inputs["vocabulary"]
        if used.digest != vocabulary.digest:
            raise DataError(
                f"features/{one.key} were made with vocabulary/{used.key}, but the student is to "
                f"be trained with vocabulary/{vocabulary.key}: their rows mean other n-grams"
            )


def labelled_examples(
    store: ArtifactStore, split: Input, features: Input, *, vocabulary_rows: int
) -> Examples[MappedBags]:
    """Return the texts of a split and their labels."""
    _, bags = read_features(open_input(store, features))
    return labelled_bags(store, split, bags, rows=vocabulary_rows)


def labelled_bags(
    store: ArtifactStore, split: Input, bags: Bags, *, rows: int
) -> Examples[MappedBags]:
    """Return bags of a split's texts, in their order, and the texts' labels.

    Args:
        store: Has the split.
        split: With labels.
        bags: Of its texts.
        rows: Of the student's table.
    """
    texts = read_shard(store, split)
    if texts.labels is None:
        raise DataError("a split has no labels: make the dataset again")
    source = MappedBags([BagPart(bags)], vocabulary_rows=rows)
    return Examples(source, Targets(labels=texts.labels))


def taught_examples(
    store: ArtifactStore,
    features: Sequence[Input],
    logits: Sequence[Input],
    *,
    vocabulary_rows: int,
    whole: bool,
    train: Input | None = None,
    choice: RowChoice | None = None,
    train_shards: int = 0,
) -> Taught:
    """Return texts and what the teacher says of them.

    Args:
        store: Has all of it.
        features: A shard each.
        logits: Of the same shards.
        vocabulary_rows: Of the student's table.
        whole: Whether every text must have logits, but for those that the teacher could not label;
            else all without are left out.
        train: Where given, the texts of the last shard, whose labels are wanted too; those of all
            others are -1.
        choice: Which rows of the corpus are wanted; None for all.
        train_shards: How many of the last shards are of ``train``, where all rows are wanted.

    Raises:
        DataError: No row has logits, or not every one that must, or none is chosen.
    """
    shards = [read_features(open_input(store, one)) for one in features]
    return taught_bags(
        store,
        shards,
        logits,
        rows=vocabulary_rows,
        whole=whole,
        train=train,
        choice=choice,
        train_shards=train_shards,
    )


def taught_bags(
    store: ArtifactStore,
    shards: Sequence[tuple[npt.NDArray[np.uint64], Bags]],
    logits: Sequence[Input],
    *,
    rows: int,
    whole: bool,
    train: Input | None = None,
    choice: RowChoice | None = None,
    train_shards: int = 0,
) -> Taught:
    """Return bags and what the teacher says of their texts; see ``taught_examples``.

    Args:
        store: Has the logits.
        shards: Ids uint64 [rows] and bags of each.
        logits: Of the same shards.
        rows: Of the student's table.
        whole: Whether every text must have logits.
        train: The texts of the last shard, where their labels are wanted too.
        choice: Which rows of the corpus are wanted; None for all.
        train_shards: How many of the last shards are of ``train``.
    """
    known, targets = [], []
    for number, ((ids, _), logit_input) in enumerate(zip(shards, logits, strict=True)):
        artifact = open_input(store, logit_input)
        logit_ids, values = read_logits(artifact)
        where = positions(ids, logit_ids)
        found = np.flatnonzero(where >= 0)
        expected = len(ids) - _quarantined(artifact)
        if whole and not len(found) == expected == len(logit_ids):
            raise DataError(
                f"shard {number} has features of {len(ids):,} texts, but logits/{logit_input.key} "
                f"are of {len(logit_ids):,}, {len(found):,} of them the same: "
                "`sparsedistill store verify` has what is damaged made again"
            )
        known.append(found)
        targets.append(values[where[found]])
    if not any(map(len, known)):
        raise DataError(
            "no row of the corpus has logits: the files of [logits] path hold none of its texts"
        )
    chosen = None
    if choice is not None:
        corpus = range(len(shards) - train_shards)
        chosen = choose([(shards[i][0][known[i]], targets[i]) for i in corpus], choice)
        for i, mask in zip(corpus, chosen.masks, strict=True):
            known[i], targets[i] = known[i][mask], targets[i][mask]
    labels = None
    if train is not None:
        others = np.full(sum(map(len, known[:-1])), -1, np.int64)
        labels = np.concatenate([others, _labels(store, train, shards[-1][0][known[-1]])])
    parts = [
        BagPart(bags, None if len(mine) == len(ids) else mine)
        for (ids, bags), mine in zip(shards, known, strict=True)
    ]
    source = MappedBags(parts, vocabulary_rows=rows)
    return Taught(Examples(source, Targets(np.concatenate(targets), labels)), chosen)


def _quarantined(logits: Artifact) -> int:
    """Return how many rows of a shard the teacher could not label."""
    reasons: Any = logits.statistics.get("quarantined", {})
    return sum(reasons.values())


def _labels(
    store: ArtifactStore, split: Input, ids: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """Return the label of each id, int64; -1 where a split does not have it."""
    texts = read_shard(store, split)
    where = positions(ids, texts.ids)
    found = np.full(len(ids), -1, np.int64)
    if texts.labels is not None:
        found[where >= 0] = texts.labels[where[where >= 0]]
    return found
