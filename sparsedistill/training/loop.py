"""The training loop: updates in a fixed order, a look at ``dev`` now and then, the best one kept.

Everything random is a function of the seed and the update's number, so a run that was killed and
goes on from its checkpoint ends in the same bits as one that was not.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sparsedistill.errors import DataError
from sparsedistill.metrics import accuracy
from sparsedistill.training.checkpoint import (
    Arrays,
    CurvePoint,
    RunState,
    load_checkpoint,
    save_checkpoint,
)
from sparsedistill.training.order import DataOrder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

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
        finite = np.isfinite(self.targets)
        if not finite.all():
            row = int(np.argwhere(~finite)[0, 0])
            raise DataError(f"the targets of row {row} are not finite: {self.targets[row]}")


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run gives beside the student's weights."""

    updates: int
    best_update: int
    best_accuracy: float
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """Where and how often a run puts down its state. Neither changes its result.

    Attributes:
        directory: There already; holds one checkpoint at a time.
        every_seconds: From one to the next, and longer where saving would take more than a tenth of
            the time; 0 is after every update.
    """

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
    progress: Callable[[int, int], None] | None = None,
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
        progress: Called after every update with (updates done, updates in all).

    Raises:
        DataError: The loss, or a logit on ``dev``, is not finite; the message names the update.
    """
    order = DataOrder(len(examples.bags), recipe.batch_size, seed)
    total = recipe.total_updates(order.updates_per_epoch)
    every = recipe.evaluate_every or order.updates_per_epoch
    state, best = _resume(student, checkpointing)
    started = time.monotonic() - state.seconds
    saver = _Saver(checkpointing)
    for update, rows in order.batches(state.update, total):
        number = update + 1
        state.loss_sum += _one_update(
            student,
            examples.bags.take(rows),
            objective,
            examples.targets[rows],
            update=number,
            learning_rate=recipe.rate(number, total),
        )
        state.update, state.seconds = number, time.monotonic() - started
        if number % every == 0 or number == total:
            _look_at_dev(student, dev, state, best, number / order.updates_per_epoch)
        saver.save_if_due(student, state, best)
        if progress:
            progress(number, total)
    student.load(best)
    return TrainingResult(total, state.best_update, state.best_accuracy, tuple(state.points))


class _Saver:
    """Decides when the state is due to be put down, and does it."""

    def __init__(self, checkpointing: Checkpointing | None) -> None:
        self._checkpointing = checkpointing
        self._due = time.monotonic() + (checkpointing.every_seconds if checkpointing else math.inf)

    def save_if_due(self, student: Student, state: RunState, best: Arrays) -> None:
        begin = time.monotonic()
        if self._checkpointing is None or begin < self._due:
            return
        current = {**student.weights(), **student.optimiser_state()}
        save_checkpoint(self._checkpointing.directory, state, current, best)
        end, pause = time.monotonic(), self._checkpointing.every_seconds
        self._due = end + (max(pause, 9 * (end - begin)) if pause else 0.0)


def _resume(student: Student, checkpointing: Checkpointing | None) -> tuple[RunState, Arrays]:
    found = load_checkpoint(checkpointing.directory) if checkpointing else None
    if found is None:
        return RunState(), {}
    state, current, best = found
    student.load(current)
    return state, best


def _one_update(
    student: Student,
    bags: Bags,
    objective: Objective,
    targets: npt.NDArray[np.float32] | npt.NDArray[np.int64],
    *,
    update: int,
    learning_rate: float,
) -> float:
    """Return the batch's loss before the update."""
    loss = objective(student.forward(bags, update=update), torch.from_numpy(targets))
    value = loss.item()
    if not math.isfinite(value):
        raise DataError(
            f"the loss at update {update} is {value}; a lower learning rate usually helps"
        )
    loss.backward()  # type: ignore[no-untyped-call]
    student.update(update, learning_rate)
    return value


def _look_at_dev(
    student: Student, dev: Examples, state: RunState, best: Arrays, epoch: float
) -> None:
    """Add a point to the curve, and take the weights over into ``best`` where they are."""
    logits = student.predict(dev.bags)
    if not np.isfinite(logits).all():
        raise DataError(
            f"after update {state.update} the student's logits on dev are not finite; "
            "a lower learning rate usually helps"
        )
    score = accuracy(dev.targets, logits.argmax(axis=1))  # type: ignore[arg-type]
    if score > state.best_accuracy:
        state.best_accuracy, state.best_update = score, state.update
        for name, value in student.weights().items():
            if name in best:  # in place: one more copy of the table may not fit
                best[name][...] = value
            else:
                best[name] = value.copy()
    since = state.update - (state.points[-1].update if state.points else 0)
    loss, seconds = state.loss_sum / since, round(state.seconds, 2)
    state.points.append(CurvePoint(state.update, epoch, loss, score, seconds))
    state.loss_sum = 0.0
