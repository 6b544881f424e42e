"""Finding a student's learning rate, batch size and width by short runs, within a time budget.

No stage: what is found depends on how long it may take, so it is for people to put into their
configuration, where it decides artifacts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsedistill.training.search import Candidate, SearchResult, search, short_runs
from tasks.student import make_dan, objective_of, read_data
from tasks.student_config import StudentConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sparsedistill.students import DAN
    from storage import ArtifactStore
    from tasks.stage import Job


def changed(config: StudentConfig, candidate: Candidate) -> StudentConfig:
    """Return a student's configuration with a candidate's settings."""
    update: dict[str, float | int] = {
        "learning_rate": candidate.learning_rate,
        "batch_size": candidate.batch_size,
    }
    if candidate.width is not None:
        update |= {"width": candidate.width, "hidden": candidate.width}
    return config.model_copy(update=update)


def tune(
    job: Job,
    store: ArtifactStore,
    candidates: Sequence[Candidate],
    *,
    examples: int,
    budget: float,
    told: Callable[[Candidate, int, float], None],
) -> SearchResult:
    """Search among candidates for the settings of a student.

    Args:
        job: Of a student that imitates the teacher; all that it needs is in the store.
        store: Has it.
        candidates: What to try, all else being as the job has it.
        examples: Of the shortest runs.
        budget: Seconds.
        told: Called after each run with its candidate, examples and accuracy on ``dev``.
    """
    config = StudentConfig.model_validate(job.runtime["config"])
    data = read_data(job, store)

    def make(candidate: Candidate) -> DAN:
        its = changed(config, candidate)
        return make_dan(job, store, its, its.shape(rows=data.rows, classes=data.classes))

    run = short_runs(
        make,
        data.examples,
        objective_of(config, "kd", data.examples, data.classes),
        config.training("kd"),
        dev=data.dev,
        seed=int(job.recipe.config["seed"]),  # type: ignore[arg-type]
    )

    def one(candidate: Candidate, length: int) -> float:
        score = run(candidate, length)
        told(candidate, length, score)
        return score

    return search(candidates, one, examples=examples, budget=budget)
