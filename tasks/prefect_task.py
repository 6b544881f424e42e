"""The thin Prefect task around a stage: a chunk of its jobs, one after another.

Prefect's own cache is off: it would trust its record without looking whether the file is still
there. The store decides what is done; a chunk that finds everything done ends in the state
``Cached``, and so does the one task run that stands for all that a run has found already.

Records of our packages go to the log of the run in Prefect, and to the run's log file.
"""

from __future__ import annotations

import errno
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging.handlers import APILogHandler
from prefect.states import Completed

from storage import ArtifactStore
from tasks.logs import Told, Where, handled_by, log_file, within
from tasks.raised import telling_no_secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from prefect import State, Task

    from tasks.stage import Job, Outcome, Stage

_RETRIES = 3
_NETWORK_LIBRARIES = {"aiohttp", "botocore", "httpcore", "httpx", "requests", "urllib3"}
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EROFS}


class Chunk:
    """The jobs of one task run.

    Neither a tuple nor a dataclass, so that Prefect and Dask, which look for futures in all that
    they are given, leave it as it is.

    Args:
        jobs: To be made, one after another.
        run: Name of the run, for its log.
        log: File of that log, or None.
    """

    __slots__ = ("jobs", "log", "run")

    def __init__(self, jobs: Sequence[Job], *, run: str = "", log: str | None = None) -> None:
        self.jobs = tuple(jobs)
        self.run = run
        self.log = log


def as_task(stage: Stage, *, tags: Collection[str] = ()) -> Task[[Chunk, str], Any]:
    """Return the stage as a Prefect task over a chunk of jobs and the URL of the store.

    Args:
        stage: Whose jobs they are.
        tags: Of the task's runs; Prefect holds back those of a tag for which it has a limit.
    """

    def run_chunk(chunk: Chunk, store_url: str) -> State[list[Outcome]] | list[Outcome]:
        with (
            telling_no_secrets(),
            logged(chunk.run, chunk.log),
            within(run=chunk.run, stage=stage.kind),
        ):
            outcomes = stage.run_all(chunk.jobs, ArtifactStore(store_url), retries=_retries())
        if all(outcome.cached for outcome in outcomes):
            return Completed(name="Cached", message=f"{len(outcomes)} there already", data=outcomes)
        return outcomes

    decorate = task(
        name=stage.kind,
        description=stage.build.__doc__,
        cache_policy=NO_CACHE,
        persist_result=False,
        tags=tags,
        retries=_RETRIES,
        retry_delay_seconds=[2, 10, 60],
        retry_jitter_factor=0.5,
        retry_condition_fn=lambda _task, _run, state: _may_pass(state),
    )
    return decorate(run_chunk)


def as_cached_task(stage: Stage) -> Task[[int], State[int]]:
    """Return the task that stands for artifacts of a stage that are there already."""

    def found(count: int) -> State[int]:
        return Completed(name="Cached", message=f"{count} there already", data=count)

    decorate = task(
        name=stage.kind,
        description=stage.build.__doc__,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    return decorate(found)


@contextmanager
def logged(run: str, file: str | None) -> Iterator[None]:
    """Have the records of our packages in the log of the Prefect run, and in a file if named."""
    with handled_by("prefect", _prefect_handler), log_file(file, run=run):
        yield


def _prefect_handler() -> logging.Handler:
    handler = APILogHandler(logging.INFO)
    handler.setFormatter(Told())
    handler.addFilter(Where())
    # Prefect warns of records that belong to no run, such as those of a thread beside it.
    handler.addFilter(lambda _: bool(TaskRunContext.get() or FlowRunContext.get()))
    return handler


def _retries() -> int:
    """Return how often the task run of this context has been begun before."""
    context = TaskRunContext.get()
    return 0 if context is None else max(context.task_run.run_count - 1, 0)


def _may_pass(state: State[object]) -> bool:
    """Return whether trying again can mend a failure: network and memory pressure, nothing else."""
    error = state.result(raise_on_failure=False)
    while isinstance(error, BaseException):
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, PermissionError | FileNotFoundError):
            return False  # also those of s3fs, which carry no number
        if isinstance(error, OSError):
            return error.errno not in _FINAL
        if type(error).__module__.partition(".")[0] in _NETWORK_LIBRARIES:
            return True
        error = error.__cause__ or error.__context__
    return False
