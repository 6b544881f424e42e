"""The pipeline as a Prefect flow: order, retries, concurrency, and the view in the UI.

Each stage is at most a couple of hundred task runs, whatever the size of the corpus: what is there
already is one task that ends ``Cached``, and the rest goes out in chunks of shards. Between tasks
go recipes and keys, never data. A failed chunk does not stop its siblings; the flow then fails with
a table of what is missing, and the next run makes only that.

Task runs that need a GPU for the teacher are tagged ``gpu``: a concurrency limit of that tag in
Prefect holds them back, over all runs that the server knows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.futures import as_completed
from prefect.task_runners import ThreadPoolTaskRunner

from dashboards.markdown import render_markdown
from flows.chunking import chunk_name, chunks
from flows.config import DistillConfig
from flows.delivery import RunResult, artifacts_of, deliver
from flows.disk_budget import DiskBudget
from flows.errors import RunFailedError, reason_of
from flows.finished import note_run
from flows.looking import Looker
from flows.pipeline import Pipeline, Step
from flows.prefect_progress import ProgressArtifacts
from flows.student_needs import check_students
from flows.teacher_needs import GPU_TAG, check_teacher_devices, on_gpu
from flows.work_table import work_rows
from flows.workers import Ended, Workers
from storage import Artifact, ArtifactStore
from storage.errors import is_out_of_space
from tasks import progress
from tasks.earlier import Earlier
from tasks.logs import within
from tasks.prefect_task import Chunk, as_cached_task, as_task, logged
from tasks.raised import telling_no_secrets
from tasks.stage import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prefect.futures import PrefectFuture

    from tasks.stage import Job

_TRIES = 3


def run_with_prefect(
    config: DistillConfig, out: str | None = None, *, earlier: Earlier | None = None
) -> RunResult:
    """Run the flow; see ``distill``."""
    result: RunResult = distill(config, out, earlier)
    return result


@flow(
    name="distill",
    flow_run_name="distill {config.name}",
    description="Teacher and texts in, a fast student out; only what is missing is computed.",
    # For what takes no work. What does goes to the workers that the configuration asks for.
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    persist_result=False,
)
def distill(
    config: DistillConfig, out: str | None = None, earlier: Earlier | None = None
) -> RunResult:
    """Run the pipeline, and put the results under ``out``.

    Args:
        config: The whole configuration.
        out: Directory for report, numbers and model; nothing is delivered where not given.
        earlier: The current model, in a re-distillation.

    Raises:
        RunFailedError: Something could not be made; the message says what and why.
        DiskTooSmallError: What is to be made does not fit on the disk.
    """
    with telling_no_secrets():
        result = run_in_flow(config, earlier=earlier)
        if out is not None:
            deliver(result, out)
        return result


def run_in_flow(config: DistillConfig, *, earlier: Earlier | None = None) -> RunResult:
    """Run the pipeline inside whatever flow run this is, with the workers of ``[run]``.

    Nothing is delivered; the page of the flow run shows progress, work and results. Raises as
    ``distill``.
    """
    check_students(config)
    check_teacher_devices(config)
    result = run_pipeline(Pipeline(config, earlier))
    create_markdown_artifact(
        key="report",
        markdown=render_markdown(result.summary()),
        description=f"{config.name}: results",
    )
    return result


def run_pipeline(pipeline: Pipeline) -> RunResult:
    """Run the steps of a pipeline inside whatever flow run this is; raises as ``distill``."""
    config = pipeline.config
    store = ArtifactStore(config.run.store)
    with (
        logged(config.name, config.run.log_file()),
        within(run=config.name),
        progress.listening(ProgressArtifacts()),
        store.lease(config.name) as lease,
        Workers(config) as workers,
    ):
        run = _Run(pipeline, store, Looker(store, lease), workers)
        try:
            run.everything()
        finally:
            _show_work(run.outcomes)
        if "report" in run.made:  # else it was no whole run
            note_run(store, config.name, run.made["report"][0])
    return RunResult(run.made, run.outcomes)


def _show_work(outcomes: Mapping[str, Sequence[Outcome]]) -> None:
    try:
        create_table_artifact(
            key="work", table=work_rows(outcomes), description="What each stage took"
        )
    except Exception as error:  # a table that cannot be shown must not hide what ended the run
        get_run_logger().warning("the table of work could not be shown: %s", error)


class _Run:
    """One flow run: which steps are done, which are under way."""

    def __init__(
        self, pipeline: Pipeline, store: ArtifactStore, looker: Looker, workers: Workers
    ) -> None:
        self.made: dict[str, list[Artifact]] = {}
        self.outcomes: dict[str, list[Outcome]] = {}
        self._store = store
        self._pipeline = pipeline
        self._config = pipeline.config
        self._looker = looker
        self._workers = workers
        self._elsewhere = self._config.run.runner != "threads"
        self._budget = DiskBudget(self._config, store, [step.name for step in pipeline.steps])
        self._stages: dict[str, _Stage] = {}
        self._failures: list[dict[str, str]] = []

    def everything(self) -> None:
        """Run all steps, each as soon as what it needs is made."""
        waiting = list(self._pipeline.steps)
        while waiting or self._open():
            ready = [step for step in waiting if all(need in self.made for need in step.needs)]
            for step in ready:
                self._start(step)
                waiting.remove(step)
            if not self._open():
                break
            self._finish(self._first_done())
        if self._failures:
            self._report_failures(waiting)

    def _first_done(self) -> _Stage:
        """Wait until some stage under way has all its chunks done, and return it."""
        pending = {name: list(self._stages[name].futures) for name in self._open()}
        while all(pending.values()):
            first = next(as_completed([f for futures in pending.values() for f in futures]))
            for futures in pending.values():
                if first in futures:
                    futures.remove(first)
        return next(self._stages[name] for name, futures in pending.items() if not futures)

    def _open(self) -> list[str]:
        return [name for name in self._stages if name not in self.outcomes]

    def _start(self, step: Step, *, tries: int = 1) -> None:
        if step.check is not None:
            step.check(self.made)
        jobs = step.jobs(self.made)
        progress.expect(step.name, [job.recipe.key for job in jobs])
        try:
            found = self._looker.look(step, jobs)
        except Exception as error:
            if not is_out_of_space(error):
                raise
            reason = reason_of(error, rest=self._budget.rest(step.name, 0))
            raise RunFailedError([{"stage": step.name, "reason": reason}]) from error
        missing = [job for job, one in zip(jobs, found, strict=True) if one is None]
        self._budget.check(step.name, missing=len(missing), jobs=len(jobs))
        stage = _Stage(step, jobs, {one.key: one for one in found if one is not None}, tries)
        self._stages[step.name] = stage
        before = [
            ended
            for need in self._pipeline.direct_needs(step)
            for ended in self._stages[need].ended
        ]
        there = [job for job in jobs if job.recipe.key in stage.found]
        if there:
            named = as_cached_task(step.stage).with_options(
                task_run_name=chunk_name(step.name, there)
            )
            stage.there = named.submit(len(there), wait_for=before, return_state=False)
            for job in there:
                progress.finish(step.name, job.recipe.key, cached=True)
        tags = {GPU_TAG} if missing and on_gpu(step.name, self._config) else set()
        for chunk in chunks(missing, workers=self._config.run.workers):
            task = as_task(step.stage, tags=tags)
            stage.futures.append(
                self._workers.submit(
                    task.with_options(task_run_name=chunk_name(step.name, chunk)),
                    Chunk(chunk, run=self._config.name, log=self._config.run.log_file()),
                    self._store.url,
                    after=before,
                )
            )

    def _finish(self, stage: _Stage) -> None:
        """Take note of what a stage's chunks made."""
        name = stage.step.name
        if stage.there is not None:
            stage.there.wait()
        done = {key: Outcome(one.kind, key, cached=True) for key, one in stage.found.items()}
        failures: list[BaseException] = []
        for future in stage.futures:
            future.wait()
            outcomes = future.result(raise_on_failure=False)
            if isinstance(outcomes, BaseException):
                failures.append(outcomes)
            else:
                done.update((outcome.key, outcome) for outcome in outcomes)
                self._tell_of(outcomes)
        self.outcomes[name] = [done[job.recipe.key] for job in stage.jobs if job.recipe.key in done]
        made = [one for one in self.outcomes[name] if one.key not in stage.found]
        if failures:
            rest = self._budget.rest(name, sum(not one.cached for one in made))
            self._failures += [
                {"stage": name, "reason": reason_of(error, rest=rest)} for error in failures
            ]
        else:
            self._keep(stage, made)
        cached = sum(outcome.cached for outcome in self.outcomes.get(name, ()))
        get_run_logger().info(
            "%s: %d of %d, %d of them cached",
            name, len(self.outcomes.get(name, ())), len(stage.jobs), cached,
        )  # fmt: skip

    def _keep(self, stage: _Stage, made: Sequence[Outcome]) -> None:
        """Take a whole stage for made; begin it again where a part of it has gone meanwhile."""
        name = stage.step.name
        by_key = {**stage.found, **{one.key: one for one in artifacts_of(self._store, made)}}
        artifacts = [by_key[job.recipe.key] for job in stage.jobs]
        if not made or self._looker.keep(stage.step, artifacts):
            self.made[name] = artifacts
            self._budget.learn(name, artifacts)
        elif stage.tries < _TRIES:
            del self.outcomes[name]
            self._start(stage.step, tries=stage.tries + 1)
        else:
            self._failures.append({"stage": name, "reason": "what it made was removed; run again"})

    def _tell_of(self, outcomes: Sequence[Outcome]) -> None:
        """Tell the listeners of jobs that ran in other processes, where nobody listened."""
        if self._elsewhere:
            for one in outcomes:
                progress.finish(one.kind, one.key, cached=one.cached)

    def _report_failures(self, waiting: Sequence[Step]) -> None:
        rows = [
            *self._failures,
            *({"stage": step.name, "reason": "waits for the above"} for step in waiting),
        ]
        create_table_artifact(key="missing", table=rows, description="What could not be made")
        raise RunFailedError(rows)


class _Stage:
    """A stage under way.

    Attributes:
        step: Which.
        jobs: All of it.
        found: What was there, by key.
        tries: How often it has been begun.
        there: The task run that stands for what was there.
        futures: Of what was missing.
    """

    def __init__(self, step: Step, jobs: list[Job], found: dict[str, Artifact], tries: int) -> None:
        self.step = step
        self.jobs = jobs
        self.found = found
        self.tries = tries
        self.there: PrefectFuture[Any] | None = None
        self.futures: list[PrefectFuture[Any]] = []

    @property
    def ended(self) -> list[Ended]:
        """Its task runs, all of which have ended well."""
        futures = self.futures if self.there is None else [self.there, *self.futures]
        return [Ended(future) for future in futures]
