"""The student before this one: what a new student may start from, and is compared with.

Only a re-distillation has one. Where the new student cannot start from it (other labels, another
width), it starts as any other, and its key is that of any other.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sparsedistill.training.starts import same_ngrams, start_from_student
from storage import ArtifactStore, Input, Recipe
from tasks.shards import open_input
from tasks.student_file import FILE, read_weights
from tasks.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparsedistill.students import DAN
    from tasks.student_config import StudentConfig

ROLE = "earlier"
"""Of inputs: what has this role is kept with an artifact, but not all that it was made from."""

VARIANT = "kd"
"""Of the students that start from an earlier one."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a student was made of.

    Attributes:
        key: Of all that is in its recipe, but for its seed and what it started from.
        before: The student and vocabulary that it started from; empty where it was made anew.
    """

    key: str
    before: tuple[Input, ...]


@dataclass(frozen=True, slots=True)
class Earlier:
    """A model that was promoted before, with the student it was made of.

    Attributes:
        package: The model.
        student: As it was distilled, before fine-tuning and packaging.
        vocabulary: Its rows are the student's.
        train: The labelled texts that it learned from.
        labels: In the student's order.
        width: Of the student's table.
        origin: What that student was made of; None where a new one does not take its rows over. It
            is compared with the model anyway.
        epochs: Of a student that takes its rows over; None for those of ``[student]``.
    """

    package: Input
    student: Input
    vocabulary: Input
    train: Input
    labels: tuple[str, ...]
    width: int
    origin: Origin | None
    epochs: int | None = None


def origin_of(recipe: Recipe) -> Origin:
    """Return what a student was made of, from its recipe; its seed does not count."""
    inputs = {role: some for role, some in recipe.inputs.items() if role != ROLE}
    config = {name: value for name, value in recipe.config.items() if name != "seed"}
    alike = Recipe(recipe.kind, recipe.version, config, inputs)
    return Origin(alike.key, recipe.inputs.get(ROLE, ()))


def with_earlier(
    anew: Recipe, started: Recipe, before: tuple[Input, ...], earlier: Earlier | None
) -> Recipe:
    """Return the recipe of a student that starts from an earlier one, where it may.

    Where nothing else has changed since that one was made, it is that one, or one beside it with
    another seed: a student is not trained anew on the same texts.

    Args:
        anew: Of the student if it started as any other.
        started: With the settings of one that starts from another.
        before: What ``earlier_inputs`` gave.
        earlier: The student before.
    """
    if not before or earlier is None or earlier.origin is None:
        return anew
    if anew.config["variant"] != VARIANT:
        return anew
    there = earlier.origin
    if origin_of(started if there.before else anew).key == there.key:
        before = there.before
    return replace(started, inputs={**started.inputs, ROLE: before}) if before else anew


def earlier_inputs(
    earlier: Earlier | None, config: StudentConfig, labels: Sequence[str]
) -> tuple[Input, ...]:
    """Return what a student that starts from an earlier one is made of too; nothing where not.

    Args:
        earlier: The student before, if there is one.
        config: The table ``[student]``.
        labels: Of the task, in order.
    """
    if earlier is None or earlier.origin is None:
        return ()
    why = None
    if tuple(labels) != earlier.labels:
        why = f"it has the labels {', '.join(earlier.labels)}, the task has {', '.join(labels)}"
    elif config.width != earlier.width:
        why = f"its table is {earlier.width} wide, [student] width is {config.width}"
    if why is not None:
        _LOG.warning(
            "the student does not start from the earlier student/%s: %s", earlier.student.key, why
        )
        return ()
    return (earlier.student, earlier.vocabulary)


def start_from_earlier(student: DAN, recipe: Recipe, store: ArtifactStore) -> dict[str, Any] | None:
    """Take over the rows of the earlier student that a recipe names; None where it names none.

    Returns:
        For the manifest: how many rows were taken over, and which dense weights.
    """
    if ROLE not in recipe.inputs:
        return None
    old_student, old_vocabulary = recipe.inputs[ROLE]
    (vocabulary,) = recipe.inputs["vocabulary"]
    rows = same_ngrams(
        read_vocabulary(open_input(store, vocabulary)),
        read_vocabulary(open_input(store, old_vocabulary)),
    )
    dense = start_from_student(
        student, read_weights(open_input(store, old_student).path(FILE)), rows
    )
    return {"student": old_student.key, "rows": int((rows >= 0).sum()), "dense": dense}
