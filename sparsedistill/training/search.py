"""A search for the learning rate, and sizes, within a time budget: successive halving.

Every candidate gets a short run, the best of them a longer one, and so on until one is left (Karnin
et al., 2013; Jamieson and Talwalkar, 2016): most of the time goes to the candidates that matter.
Which go on is a function of the scores alone. The clock says only when to stop: no run is begun
that would not end in time, by the speed of those before it, and what was tried is in the result.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.training.loop import Examples, fit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sparsedistill.objectives import Objective
    from sparsedistill.students.base import Student
    from sparsedistill.training.recipe import TrainingRecipe

T = TypeVar("T")

# One of so many goes on, with a run so many times as long: every rung takes about the same time.
FACTOR = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is searched for.

    Attributes:
        learning_rate: The highest of a run.
        batch_size: Rows in a batch.
        width: Of the student, where that is searched for too.
    """

    learning_rate: float
    batch_size: int
    width: int | None = None


@dataclass(frozen=True, slots=True)
class Rung:
    """Runs of one length.

    Attributes:
        examples: Learned from in each run.
        candidates: Numbers of the candidates that got this far, the best of the rung before first.
        scores: Of those that were tried before the time was over; None where training failed.
    """

    examples: int
    candidates: tuple[int, ...]
    scores: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search came to.

    Attributes:
        best: Number of the best candidate.
        rungs: All runs.
        complete: Whether the budget was enough for all of them.
        seconds: Spent.
    """

    best: int
    rungs: tuple[Rung, ...]
    complete: bool
    seconds: float


def search(
    candidates: Sequence[T],
    run: Callable[[T, int], float],
    *,
    examples: int,
    budget: float = math.inf,
) -> SearchResult:
    """Find the candidate whose run scores best.

    Args:
        candidates: Those named first are preferred where scores are equal, and where the time is
            not enough for a run of each.
        run: Returns the score of a candidate, of which more is better, after a run from its start
            over that many examples; a ``DataError`` is the worst score.
        examples: Of the shortest runs.
        budget: Seconds. At least one candidate is tried.

    Raises:
        ConfigError: There is no candidate, or runs are of no example.
        DataError: None of the candidates could be trained.
    """
    if not candidates or examples < 1:
        raise ConfigError("a search needs candidates, and runs of at least one example")
    start = time.monotonic()
    rungs: list[Rung] = []
    going, took, failure = tuple(range(len(candidates))), dict[int, float](), ""
    complete = True
    while complete and (len(going) > 1 or not rungs):
        scores: list[float | None] = []
        for number in going:
            begin = time.monotonic()
            # As long as its last run, times what this one is longer; at first, as the slowest.
            expected = FACTOR * took[number] if rungs else max(took.values(), default=0.0)
            if took and begin - start + expected > budget:
                complete = False
                break
            try:
                scores.append(run(candidates[number], examples))
            except DataError as error:
                scores.append(None)
                failure = str(error)
            took[number] = time.monotonic() - begin
        if scores:
            rungs.append(Rung(examples, going, tuple(scores)))
        going = promoted(rungs[-1])
        examples *= FACTOR
    ranked = [ranking(rung) for rung in rungs]
    best = next((order[0] for order in reversed(ranked) if order), None)
    if best is None:
        raise DataError(f"none of the candidates could be trained; the last one: {failure}")
    return SearchResult(best, tuple(rungs), complete, time.monotonic() - start)


def ranking(rung: Rung) -> tuple[int, ...]:
    """Return the candidates with a score, the best first; of equal ones the first named."""
    tried = zip(rung.candidates, rung.scores, strict=False)
    scored = [(score, number) for number, score in tried if score is not None]
    return tuple(number for _, number in sorted(scored, key=lambda one: -one[0]))


def promoted(rung: Rung) -> tuple[int, ...]:
    """Return the candidates that go on to longer runs, the best first."""
    return ranking(rung)[: math.ceil(len(rung.candidates) / FACTOR)]


def short_runs(
    make_student: Callable[[Candidate], Student[Any, Any]],
    data: Examples[Any],
    objective: Objective,
    recipe: TrainingRecipe,
    *,
    dev: Examples[Any],
    seed: int,
) -> Callable[[Candidate, int], float]:
    """Return what ``search`` calls: accuracy on ``dev`` at the end of a short training run.

    A short run has the whole schedule, warm-up and decay, in small. It looks at ``dev`` once.

    Args:
        make_student: Makes a candidate's student.
        data: To learn from.
        objective: As in ``fit``.
        recipe: Everything that is not searched for.
        dev: With labels.
        seed: Of the data order.
    """

    def run(candidate: Candidate, examples: int) -> float:
        updates = -(-examples // candidate.batch_size)
        short = replace(
            recipe,
            learning_rate=candidate.learning_rate,
            batch_size=candidate.batch_size,
            epochs=None,
            updates=updates,
            evaluate_every=updates,
            patience=None,
        )
        student = make_student(candidate)
        return fit(student, data, objective, short, dev=dev, seed=seed).best_accuracy

    return run
