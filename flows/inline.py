"""The pipeline without Prefect: every job in order, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.delivery import RunResult, artifacts_of
from flows.pipeline import Pipeline
from flows.student_memory import check_student_memory
from storage import Artifact, ArtifactStore
from tasks import progress

if TYPE_CHECKING:
    from flows.config import DistillConfig
    from tasks.stage import Outcome


def run_inline(config: DistillConfig) -> RunResult:
    """Make everything that is missing; the first error ends the run."""
    check_student_memory(config)
    store = ArtifactStore(config.run.store)
    made: dict[str, list[Artifact]] = {}
    outcomes: dict[str, list[Outcome]] = {}
    for step in Pipeline(config).steps:
        jobs = step.jobs(made)
        progress.expect(step.name, [job.recipe.key for job in jobs])
        outcomes[step.name] = [step.stage.run(job, store) for job in jobs]
        made[step.name] = artifacts_of(store, outcomes[step.name])
    return RunResult(made, outcomes)
