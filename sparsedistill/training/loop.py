"""The training loop: updates in a fixed order, a look at ``dev`` now and then, the best one kept.

Everything random is a function of the seed and the update's number, so a run that was killed and
goes on from its checkpoint ends in the same bits as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Sized
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.students.stepping import check_loss
from sparsedistill.training.best import Best, BestInMemory, BestOnDisk
from sparsedistill.training.checkpoint import Checkpoints, CurvePoint, RunState
from sparsedistill.training.loading import one_ahead
from sparsedistill.training.order import DataOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from sparsedistill.objectives import Objective
    from sparsedistill.students.base import Student
    from sparsedistill.targets import Targets
    from sparsedistill.training.recipe import TrainingRecipe

InputsT = TypeVar("InputsT", bound=Sized)
BatchT = TypeVar("BatchT")


@dataclass(frozen=True, slots=True)
class Examples(Generic[InputsT]):
    """What a student reads, and what it is to say of it.

    Attributes:
        inputs: Every example in the form that the student reads.
        targets: The teacher's logits, labels or both of the same examples.

    Raises:
        DataError: They differ in number, there are none, or a target is not finite.
    """

    inputs: InputsT
    targets: Targets

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise DataError(f"{len(self.inputs)} examples but {len(self.targets)} targets")
        if len(self.inputs) == 0:
            raise DataError("there is no example to train on")
        self.targets.check_finite()

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run gives beside the student's weights.

    Attributes:
        updates: Done.
        best_update: After which the weights were those that the student has now.
        best_accuracy: Theirs, on ``dev``.
        points: Every look at ``dev``.
        stopped_early: Whether the run's patience ended before its updates.
    """

    updates: int
    best_update: int
    best_accuracy: float
    points: tuple[CurvePoint, ...]
    stopped_early: bool


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """Where and how often a run puts down its state. Neither changes its result.

    Attributes:
        directory: There already; holds one checkpoint at a time, and room for two.
        every_seconds: From one to the next, and longer where saving would take more than a tenth of
            the time; 0 is after every update.
    """

    directory: Path
    every_seconds: float = 60.0


def fit(
    student: Student[InputsT, BatchT],
    examples: Examples[InputsT],
    objective: Objective,
    recipe: TrainingRecipe,
    *,
    dev: Examples[InputsT],
    seed: int,
    checkpointing: Checkpointing | None = None,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[CurvePoint], None] | None = None,
) -> TrainingResult:
    """Train the student in place and leave it at its best by accuracy on ``dev``.

    Args:
        student: Freshly made, or with weights to start from.
        examples: To learn from.
        objective: Matches the kind of targets in ``examples``.
        recipe: Schedule.
        dev: With labels; the earliest of equally good moments is the best.
        seed: Of the data order.
        checkpointing: Where a kill loses little; a checkpoint found there is taken up.
        progress: Called after every update with (updates done, updates in all).
        watch: Called after every look at ``dev``; where a run was resumed, with the looks from its
            checkpoint on.

    Raises:
        DataError: The loss, or a logit on ``dev``, is not finite; the message names the update. Or
            ``dev`` has no labels.
        ConfigError: The directory has the checkpoint of another run.
        ModelFileError: The best weights, which were put on disk, were changed there.
    """
    labels = _labels(dev)
    order = DataOrder(len(examples), recipe.batch_size, seed)
    total = recipe.total_updates(order.updates_per_epoch)
    every = recipe.evaluate_every or order.updates_per_epoch
    run = {"seed": seed, "examples": len(examples), **asdict(recipe)}
    saver = _Saver(student, checkpointing, run)
    state, best = saver.state, saver.best
    clock = _Clock(state)
    last = state.update if _gave_up(state, recipe) else total
    with closing(one_ahead(_batches(student, examples, order, state.update, last))) as batches:
        for number, batch, targets in batches:
            loss = student.step(
                batch, targets, objective, update=number, learning_rate=recipe.rate(number, total)
            )
            check_loss(loss, number)
            state.update, state.seconds = number, clock.seconds()
            state.loss_sum += loss
            state.examples += len(targets)
            if number % every == 0 or number == total:
                score = _score(student, dev.inputs, labels, number)
                if score > state.best_accuracy:
                    state.best_accuracy, state.best_update = score, number
                    # Without a checkpoint the last weights need no copy: nothing changes them.
                    if checkpointing or number < total:
                        best.keep(student, number)
                _add_point(state, score, number / order.updates_per_epoch, clock.seconds())
                if watch:
                    watch(state.points[-1])
            saver.save_if_due(student)
            if progress:
                progress(number, total)
            if _gave_up(state, recipe):
                break
    if state.best_update != state.update:
        best.restore(student, state.best_update)
    return TrainingResult(
        updates=state.update,
        best_update=state.best_update,
        best_accuracy=state.best_accuracy,
        points=tuple(state.points),
        stopped_early=state.update < total,
    )


class _Clock:
    """Seconds of a run, those before it was killed included."""

    def __init__(self, state: RunState) -> None:
        self._start = time.monotonic() - state.seconds

    def seconds(self) -> float:
        return time.monotonic() - self._start


class _Saver:
    """Takes a run up where it was; decides when its state is due to be put down, and does it."""

    def __init__(
        self,
        student: Student[Any, Any],
        checkpointing: Checkpointing | None,
        run: dict[str, Any],
    ) -> None:
        self.state = RunState()
        self.best: Best = BestInMemory()
        self._checkpoints: Checkpoints | None = None
        if checkpointing is None:
            return
        self.best = best = BestOnDisk(checkpointing.directory)
        self._checkpoints = Checkpoints(checkpointing.directory, run=run, best=best)
        self.state = self._checkpoints.load(student) or self.state
        self._pause = checkpointing.every_seconds
        self._due = time.monotonic() + self._pause

    def save_if_due(self, student: Student[Any, Any]) -> None:
        begin = time.monotonic()
        if self._checkpoints is None or begin < self._due:
            return
        self._checkpoints.save(student, self.state)
        end = time.monotonic()
        self._due = end + (max(self._pause, 9 * (end - begin)) if self._pause else 0.0)
        self.state.paused += end - begin


def _batches(
    student: Student[InputsT, BatchT],
    examples: Examples[InputsT],
    order: DataOrder,
    first: int,
    last: int,
) -> Iterator[tuple[int, BatchT, Targets]]:
    """Yield (update, batch, targets) for the updates after ``first`` to ``last``."""
    for update, rows in order.batches(first, last):
        batch = student.prepare(examples.inputs, rows, update=update + 1)
        yield update + 1, batch, examples.targets.take(rows)


def _gave_up(state: RunState, recipe: TrainingRecipe) -> bool:
    """Whether the last looks at ``dev`` were in vain, as many as the run has patience for."""
    if recipe.patience is None:
        return False
    return sum(point.update > state.best_update for point in state.points) >= recipe.patience


def _labels(dev: Examples[Any]) -> npt.NDArray[Any]:
    labels = dev.targets.labels
    if labels is None or not (labels >= 0).any():
        raise DataError("dev has no labels to measure accuracy on")
    return labels


def _score(
    student: Student[InputsT, Any], inputs: InputsT, labels: npt.NDArray[Any], update: int
) -> float:
    """Return the share of the labelled rows that are right, with several labels: in all of them."""
    logits = student.predict(inputs)
    if not np.isfinite(logits).all():
        raise DataError(
            f"after update {update} the student's logits on dev are not finite; "
            "a lower learning rate usually helps"
        )
    if labels.ndim == 1:
        return float(np.mean((logits.argmax(axis=1) == labels)[labels >= 0]))
    return float(np.mean(((logits > 0) == (labels > 0)).all(axis=1)[(labels >= 0).all(axis=1)]))


def _add_point(state: RunState, score: float, epoch: float, now: float) -> None:
    """Close the part of the curve since the last point."""
    state.paused += now - state.seconds
    updates = state.update - (state.points[-1].update if state.points else 0)
    spent = max(now - state.looked, 1e-9)
    state.points.append(
        CurvePoint(
            update=state.update,
            epoch=epoch,
            loss=state.loss_sum / updates,
            dev_accuracy=score,
            seconds=round(now, 2),
            examples_per_second=round(state.examples / max(spent - state.paused, 1e-9), 1),
            pauses=round(state.paused / spent, 3),
        )
    )
    state.seconds, state.looked = now, now
    state.loss_sum, state.examples, state.paused = 0.0, 0, 0.0
