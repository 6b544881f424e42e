"""The pipeline without Prefect: every job in order, in this process."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.delivery import RunResult, artifacts_of
from flows.disk_budget import DiskBudget
from flows.errors import RunFailedError, reason_of
from flows.finished import note_run
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
    from collections.abc import Iterator

    from flows.config import DistillConfig
    from storage import Lease
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
    with _begun(config, Pipeline(config, earlier), keep=False) as run:
        for step in run.pipeline.steps:
            run.do(step, run.jobs(step))
        note_run(run.store, config.name, run.made["report"][0])
    return RunResult(run.made, run.outcomes)


@contextmanager
def run_until(config: DistillConfig, stage: str) -> Iterator[list[Job]]:
    """Make what is missing of the stages before one; during the block, have that one's jobs.

    No garbage collection takes away what they are made from, nor, for a while, after the block:
    only the run that goes on with it makes a report, which keeps it for good. Raises as
    ``run_inline``.
    """
    with _begun(config, Pipeline(config), keep=True) as run:
        for step in run.pipeline.steps:
            jobs = run.jobs(step)
            if step.name == stage:
                break
            run.do(step, jobs)
        yield jobs


@contextmanager
def _begun(config: DistillConfig, pipeline: Pipeline, *, keep: bool) -> Iterator[_Run]:
    """A run that holds its lease during the block, and leaves it where it is to be kept."""
    check_students(config)
    check_teacher_devices(config)
    store = ArtifactStore(config.run.store)
    with (
        log_file(config.run.log_file(), run=config.name),
        within(run=config.name),
        store.lease(config.name, keep=keep) as lease,
    ):
        yield _Run(pipeline, store, lease)


class _Run:
    """A run under way.

    Attributes:
        pipeline: What it makes.
        store: Where it makes it.
        made: Artifacts, by stage.
        outcomes: What was done for each, by stage.
    """

    def __init__(self, pipeline: Pipeline, store: ArtifactStore, lease: Lease) -> None:
        self.pipeline = pipeline
        self.store = store
        self.made: dict[str, list[Artifact]] = {}
        self.outcomes: dict[str, list[Outcome]] = {}
        self._looker = Looker(store, lease)
        self._budget = DiskBudget(pipeline.config, store, [step.name for step in pipeline.steps])

    def jobs(self, step: Step) -> list[Job]:
        """Return all jobs of a stage, made or not."""
        if step.check is not None:
            step.check(self.made)
        return step.jobs(self.made)

    def do(self, step: Step, jobs: list[Job]) -> None:
        """Make what is missing of a stage."""
        progress.expect(step.name, [job.recipe.key for job in jobs])
        for _ in range(_TRIES):
            found, done = self._try(step, jobs)
            ours = [outcome for outcome, one in zip(done, found, strict=True) if one is None]
            new = iter(artifacts_of(self.store, ours))
            artifacts = [next(new) if one is None else one for one in found]
            if not ours or self._looker.keep(step, artifacts):
                self.outcomes[step.name], self.made[step.name] = done, artifacts
                self._budget.learn(step.name, artifacts)
                return
        reason = "what it made was removed; run again"
        raise RunFailedError([{"stage": step.name, "reason": reason}])

    def _try(self, step: Step, jobs: list[Job]) -> tuple[list[Artifact | None], list[Outcome]]:
        """Return what was there of a stage, and what was done for each of its jobs."""
        done: list[Outcome] = []
        try:
            found = self._looker.look(step, jobs)
            missing = sum(one is None for one in found)
            self._budget.check(step.name, missing=missing, jobs=len(jobs))
            for job, one in zip(jobs, found, strict=True):
                done.append(_found(one) if one is not None else step.stage.run(job, self.store))
        except Exception as error:
            if not is_out_of_space(error):
                raise
            rest = self._budget.rest(step.name, sum(not outcome.cached for outcome in done))
            reason = reason_of(error, rest=rest)
            raise RunFailedError([{"stage": step.name, "reason": reason}]) from error
        return found, done


def _found(artifact: Artifact) -> Outcome:
    progress.finish(artifact.kind, artifact.key, cached=True)
    return Outcome(artifact.kind, artifact.key, cached=True)
