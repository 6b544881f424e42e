"""The thin Prefect task around a stage: a chunk of its jobs, one after another.

Prefect's own cache is off: it would trust its record without looking whether the file is still
there. The store decides what is done; a chunk that finds everything done ends in the state
``Cached``.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from storage import ArtifactStore

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from prefect import State, Task

    from tasks.stage import Job, Outcome, Stage

_RETRIES = 3
_NETWORK_LIBRARIES = {"aiohttp", "botocore", "httpcore", "httpx", "requests", "urllib3"}
_FINAL = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.ENOENT, errno.EROFS}


class Chunk:
    """The jobs of one task run.

    Neither a tuple nor a dataclass, so that Prefect and Dask, which look for futures in all that
    they are given, leave it as it is.
    """

    __slots__ = ("jobs",)

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = tuple(jobs)


def as_task(stage: Stage, *, tags: Collection[str] = ()) -> Task[[Chunk, str], Any]:
    """Return the stage as a Prefect task over a chunk of jobs and the URL of the store.

    Args:
        stage: Whose jobs they are.
        tags: Of the task's runs; Prefect holds back those of a tag for which it has a limit.
    """

    def run_chunk(chunk: Chunk, store_url: str) -> State[list[Outcome]] | list[Outcome]:
        store = ArtifactStore(store_url)
        outcomes = [stage.run(job, store) for job in chunk.jobs]
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


def _may_pass(state: State[object]) -> bool:
    """Return whether trying again can mend a failure: network and memory pressure, nothing else."""
    error = state.result(raise_on_failure=False)
    while isinstance(error, BaseException):
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, OSError):
            return error.errno not in _FINAL
        if type(error).__module__.partition(".")[0] in _NETWORK_LIBRARIES:
            return True
        error = error.__cause__ or error.__context__
    return False
