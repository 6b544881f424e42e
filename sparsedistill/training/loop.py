"""The training loop: updates in a fixed order, a look at ``dev`` now and then, the best one kept.

Everything random is a function of the seed and the update's number, so a run that was killed and goes
on from its checkpoint ends in the same bits as one that was not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsedistill.errors import DataError
from sparsedistill.metrics import accuracy
from sparsedistill.objectives import as_tensor
from sparsedistill.training.checkpoint import (
    CurvePoint,
    RunState,
    discard_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from sparsedistill.training.order import DataOrder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sparsedistill.bags import Bags
    from sparsedistill.objectives import Objective
    from sparsedistill.students.base import Student
    from sparsedistill.training.recipe import TrainingRecipe


@dataclass(frozen=True, slots=True)
class Examples:
    """Bags and what the student is to say of them.

    Attributes:
        bags: N-gram rows of every example.
        targets: Teacher logits float32 [rows, classes], or labels int64 [rows].
    """

    bags: Bags
    targets: npt.NDArray[np.float32] | npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.bags) != len(self.targets):
            raise DataError(f"{len(self.bags)} bags but {len(self.targets)} targets")
        if len(self.bags) == 0:
            raise DataError("there is no example to train on")
        if not np.isfinite(self.targets).all():
            row = int(
                np.flatnonzero(~np.isfinite(self.targets).reshape(len(self.bags), -1).all(1))[0]
            )
            raise DataError(f"the targets of example {row} are not finite")


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run gives beside the student's weights."""

    updates: int
    best_update: int
    best_accuracy: float
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """Where and how often (seconds) a run puts down its state. Neither changes its result."""

    directory: Path
    every_seconds: float = 60.0


def fit(
    student: Student,
    examples: Examples,
    objective: Objective,
    recipe: TrainingRecipe,
    *,
    dev: Examples,
    seed: int,
    checkpointing: Checkpointing | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingResult:
    """Train the student in place and leave it at its best by accuracy on ``dev``.

    Args:
        student: Freshly made, or with weights to start from.
        examples: To learn from.
        objective: Matches the kind of targets in ``examples``.
        recipe: Schedule.
        dev: Bags and labels int64; the earliest of equally good moments is the best.
        seed: Of the data order.
        checkpointing: Where a kill loses little; a checkpoint found there is taken up.
        progress: Called with (updates done, updates in all).

    Raises:
        DataError: The loss is not finite; the message names the update.
    """
    order = DataOrder(len(examples.bags), recipe.batch_size, seed)
    total = recipe.total_updates(order.updates_per_epoch)
    every = recipe.evaluate_every or order.updates_per_epoch
    state, best = _resume(student, checkpointing)
    started = saved = time.monotonic()
    for update, rows in order.batches(state.update, total):
        number = update + 1
        state.losses.append(_one_update(student, examples, objective, rows, number, recipe, total))
        state.update = number
        if number % every == 0 or number == total:
            score = accuracy(dev.targets, student.predict(dev.bags).argmax(axis=1))  # type: ignore[arg-type]
            if score > state.best_accuracy:
                state.best_accuracy, state.best_update = score, number
                best = {name: value.copy() for name, value in student.weights().items()}
            epoch = number / order.updates_per_epoch
            loss = float(np.mean(state.losses))
            seconds = time.monotonic() - started
            state.points.append(CurvePoint(number, epoch, loss, score, round(seconds, 2)))
            state.losses = []
            progress(number, total)
        if checkpointing and time.monotonic() - saved > checkpointing.every_seconds:
            current = {**student.weights(), **student.optimiser_state()}
            save_checkpoint(checkpointing.directory, state, current, best)
            saved = time.monotonic()
    student.load(best)
    if checkpointing:
        discard_checkpoint(checkpointing.directory)
    return TrainingResult(total, state.best_update, state.best_accuracy, tuple(state.points))


def _resume(
    student: Student, checkpointing: Checkpointing | None
) -> tuple[RunState, dict[str, npt.NDArray[np.float32]]]:
    found = load_checkpoint(checkpointing.directory) if checkpointing else None
    if found is None:
        return RunState(), {}
    state, current, best = found
    student.load(current)
    return state, best


def _one_update(
    student: Student,
    examples: Examples,
    objective: Objective,
    rows: npt.NDArray[np.int64],
    number: int,
    recipe: TrainingRecipe,
    total: int,
) -> float:
    logits = student.forward(examples.bags.take(rows), update=number)
    loss = objective(logits, as_tensor(examples.targets[rows]))
    value = float(loss)
    if not np.isfinite(value):
        raise DataError(
            f"the loss at update {number} is {value}; a lower student.learning_rate usually helps"
        )
    loss.backward()  # type: ignore[no-untyped-call]
    student.update(number, recipe.rate(number, total))
    return value
