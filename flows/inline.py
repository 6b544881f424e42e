"""The pipeline without Prefect: every job in order, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.delivery import RunResult, artifacts_of
from flows.disk_budget import DiskBudget
from flows.errors import RunFailedError, reason_of
from flows.looking import Looker
from flows.pipeline import Pipeline, Step
from flows.student_needs import check_students
from flows.teacher_needs import check_teacher_devices
from storage import Artifact, ArtifactStore
from storage.errors import is_out_of_space
from tasks import progress
from tasks.logs import log_file, within
from tasks.stage import Outcome

if TYPE_CHECKING:
    from flows.config import DistillConfig
    from tasks.earlier import Earlier
    from tasks.stage import Job

_TRIES = 3


def run_inline(config: DistillConfig, *, earlier: Earlier | None = None) -> RunResult:
    """Make everything that is missing; the first error ends the run.

    Args:
        config: The whole configuration.
        earlier: The current model, in a re-distillation.

    Raises:
        DiskTooSmallError: What is to be made does not fit on the disk.
        RunFailedError: The disk is full; the message says how much the stage still needs.
    """
    made: dict[str, list[Artifact]] = {}
    outcomes: dict[str, list[Outcome]] = {}
    _run(config, made, outcomes, earlier=earlier)
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
    earlier: Earlier | None = None,
) -> list[Job]:
    check_students(config)
    check_teacher_devices(config)
    store = ArtifactStore(config.run.store)
    pipeline = Pipeline(config, earlier)
    budget = DiskBudget(config, store, [step.name for step in pipeline.steps])
    jobs: list[Job] = []
    with (
        log_file(config.run.log_file(), run=config.name),
        within(run=config.name),
        store.lease(config.name) as lease,
    ):
        looker = Looker(store, lease)
        for step in pipeline.steps:
            if step.check is not None:
                step.check(made)
            jobs = step.jobs(made)
            if step.name == until:
                break
            progress.expect(step.name, [job.recipe.key for job in jobs])
            outcomes[step.name], made[step.name] = _do(step, jobs, store, looker, budget)
            budget.learn(step.name, made[step.name])
    return jobs


def _do(
    step: Step, jobs: list[Job], store: ArtifactStore, looker: Looker, budget: DiskBudget
) -> tuple[list[Outcome], list[Artifact]]:
    """Make what is missing of a stage."""
    for _ in range(_TRIES):
        done: list[Outcome] = []
        try:
            found = looker.look(step, jobs)
            missing = [job for job, one in zip(jobs, found, strict=True) if one is None]
            budget.check(step.name, missing=len(missing), jobs=len(jobs))
            for job, one in zip(jobs, found, strict=True):
                done.append(_found(one) if one is not None else step.stage.run(job, store))
        except Exception as error:
            if not is_out_of_space(error):
                raise
            rest = budget.rest(step.name, sum(not outcome.cached for outcome in done))
            reason = reason_of(error, rest=rest)
            raise RunFailedError([{"stage": step.name, "reason": reason}]) from error
        new = iter(artifacts_of(store, [o for o, f in zip(done, found, strict=True) if f is None]))
        artifacts = [next(new) if one is None else one for one in found]
        if not missing or looker.keep(step, artifacts):
            return done, artifacts
    raise RunFailedError([{"stage": step.name, "reason": "what it made was removed; run again"}])


def _found(artifact: Artifact) -> Outcome:
    progress.finish(artifact.kind, artifact.key, cached=True)
    return Outcome(artifact.kind, artifact.key, cached=True)
