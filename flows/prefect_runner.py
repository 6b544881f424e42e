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
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from dashboards.markdown import render_markdown
from flows.config import DistillConfig
from flows.delivery import RunResult, artifacts_of, deliver
from flows.errors import RunFailedError
from flows.pipeline import Pipeline, Step
from flows.prefect_progress import ProgressArtifacts
from flows.student_needs import check_students
from flows.teacher_needs import GPU_TAG, check_teacher_devices, on_gpu
from storage import Artifact, ArtifactStore
from tasks import progress
from tasks.prefect_task import Chunk, as_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prefect.futures import PrefectFuture

    from tasks.stage import Job, Outcome

_MAX_CHUNKS = 40


def run_with_prefect(config: DistillConfig, out: str | None = None) -> RunResult:
    """Run the flow with the task runner that ``[run]`` asks for; see ``distill``."""
    result: RunResult = distill.with_options(task_runner=task_runner(config))(config, out)
    return result


@flow(
    name="distill",
    flow_run_name="distill {config.name}",
    description="Teacher and texts in, a fast student out; only what is missing is computed.",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    persist_result=False,
)
def distill(config: DistillConfig, out: str | None = None) -> RunResult:
    """Run the pipeline and put the results under ``out``.

    Args:
        config: The whole configuration.
        out: Directory for report, numbers and model; ``runs/<name>`` where not given.

    Raises:
        RunFailedError: Something could not be made; the message says what and why.
    """
    check_students(config)
    check_teacher_devices(config)
    run = _Run(ArtifactStore(config.run.store), config)
    with progress.listening(ProgressArtifacts()):
        run.everything()
    result = RunResult(run.made, run.outcomes)
    deliver(result, out or f"runs/{config.name}")
    create_markdown_artifact(
        key="report",
        markdown=render_markdown(result.summary()),
        description=f"{config.name}: results",
    )
    return result


class _Run:
    """One flow run: which steps are done, which are under way."""

    def __init__(self, store: ArtifactStore, config: DistillConfig) -> None:
        self.made: dict[str, list[Artifact]] = {}
        self.outcomes: dict[str, list[Outcome]] = {}
        self._store = store
        self._pipeline = Pipeline(config)
        self._elsewhere = config.run.runner != "threads"
        self._futures: dict[str, list[PrefectFuture[Any]]] = {}
        self._jobs: dict[str, list[Job]] = {}
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

    def _first_done(self) -> str:
        """Wait until some stage under way has all its chunks done, and return its name."""
        pending = {name: list(self._futures[name]) for name in self._open()}
        while all(pending.values()):
            first = next(as_completed([f for futures in pending.values() for f in futures]))
            for futures in pending.values():
                if first in futures:
                    futures.remove(first)
        return next(name for name, futures in pending.items() if not futures)

    def _open(self) -> list[str]:
        return [name for name in self._futures if name not in self.outcomes]

    def _start(self, step: Step) -> None:
        if step.check is not None:
            step.check(self.made)
        jobs = step.jobs(self.made)
        self._jobs[step.name] = jobs
        progress.expect(step.name, [job.recipe.key for job in jobs])
        direct = self._pipeline.direct_needs(step)
        before = [future for need in direct for future in self._futures[need]]
        there = step.stage.find_all(jobs, self._store)
        missing = {job.recipe.key for job, one in zip(jobs, there, strict=True) if one is None}
        tags = {GPU_TAG} if missing and on_gpu(step.name, self._pipeline.config) else set()
        self._futures[step.name] = [
            as_task(step.stage, tags=tags if chunk[0].recipe.key in missing else ())
            .with_options(task_run_name=name)
            .submit(  # type: ignore[call-overload]
                Chunk(chunk),
                self._store.url,
                wait_for=before,
            )
            for name, chunk in chunks(step.name, jobs, [found is not None for found in there])
        ]

    def _finish(self, name: str) -> None:
        """Wait for a stage's chunks and take note of what they made."""
        self.outcomes[name] = []
        for future in self._futures[name]:
            future.wait()
            outcome = future.result(raise_on_failure=False)
            if isinstance(outcome, BaseException):
                reason = f"{type(outcome).__name__}: {outcome}"
                self._failures.append({"stage": name, "reason": reason})
            else:
                self.outcomes[name].extend(outcome)
                self._tell_of(outcome)
        if len(self.outcomes[name]) == len(self._jobs[name]):
            by_key = {outcome.key: outcome for outcome in self.outcomes[name]}
            ordered = [by_key[job.recipe.key] for job in self._jobs[name]]
            self.outcomes[name] = ordered
            self.made[name] = artifacts_of(self._store, ordered)
        cached = sum(outcome.cached for outcome in self.outcomes[name])
        get_run_logger().info(
            "%s: %d of %d, %d of them cached",
            name, len(self.outcomes[name]), len(self._jobs[name]), cached,
        )  # fmt: skip

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


def chunks(
    stage: str, jobs: Sequence[Job], there: Sequence[bool]
) -> Iterator[tuple[str, list[Job]]]:
    """Yield (name, jobs) of a stage's task runs: all that is there in one, the rest in chunks."""
    cached = [job for job, found in zip(jobs, there, strict=True) if found]
    missing = [job for job, found in zip(jobs, there, strict=True) if not found]
    if cached:
        yield _chunk_name(stage, cached), cached
    size = max(1, -(-len(missing) // _MAX_CHUNKS))
    for start in range(0, len(missing), size):
        chunk = missing[start : start + size]
        yield _chunk_name(stage, chunk), chunk


def _chunk_name(stage: str, jobs: Sequence[Job]) -> str:
    first, last = jobs[0].label, jobs[-1].label
    if len(jobs) == 1:
        return f"{stage} {first}".strip()
    return f"{stage} {first} to {last} ({len(jobs)})"


def task_runner(config: DistillConfig) -> TaskRunner[Any]:
    """Return the task runner that ``[run]`` asks for."""
    make: Mapping[str, Callable[[], TaskRunner[Any]]] = {
        "threads": lambda: ThreadPoolTaskRunner(max_workers=config.run.workers),
        "processes": lambda: ProcessPoolTaskRunner(max_workers=config.run.workers),
        "dask": lambda: _dask(config),
    }
    return make[config.run.runner]()


def _dask(config: DistillConfig) -> TaskRunner[Any]:
    from prefect_dask import DaskTaskRunner

    runner: TaskRunner[Any]
    if config.run.dask_address:
        runner = DaskTaskRunner(address=config.run.dask_address)
        return runner
    runner = DaskTaskRunner(
        cluster_kwargs={
            "n_workers": config.run.workers,
            "threads_per_worker": 1,
            "dashboard_address": None,
        }
    )
    return runner
