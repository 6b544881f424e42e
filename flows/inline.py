"""The pipeline without Prefect: every job in order, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.delivery import RunResult, artifacts_of
from flows.pipeline import Pipeline
from flows.student_needs import check_students
from flows.teacher_needs import check_teacher_devices
from storage import Artifact, ArtifactStore
from tasks import progress

if TYPE_CHECKING:
    from flows.config import DistillConfig
    from tasks.stage import Job, Outcome


def run_inline(config: DistillConfig) -> RunResult:
    """Make everything that is missing; the first error ends the run."""
    made: dict[str, list[Artifact]] = {}
    outcomes: dict[str, list[Outcome]] = {}
    _run(config, made, outcomes)
    return RunResult(made, outcomes)


def run_until(config: DistillConfig, stage: str) -> list[Job]:
    """Make what is missing of the stages before one, and return that one's jobs."""
    return _run(config, {}, {}, until=stage)


def _run(
    config: DistillConfig,
    made: dict[str, list[Artifact]],
    outcomes: dict[str, list[Outcome]],
    *,
    until: str | None = None,
) -> list[Job]:
    check_students(config)
    check_teacher_devices(config)
    store = ArtifactStore(config.run.store)
    jobs: list[Job] = []
    for step in Pipeline(config).steps:
        if step.check is not None:
            step.check(made)
        jobs = step.jobs(made)
        if step.name == until:
            break
        progress.expect(step.name, [job.recipe.key for job in jobs])
        outcomes[step.name] = [step.stage.run(job, store) for job in jobs]
        made[step.name] = artifacts_of(store, outcomes[step.name])
    return jobs
