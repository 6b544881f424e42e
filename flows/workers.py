"""The workers of a run, as ``[run]`` asks for them: threads, processes, or a Dask cluster.

The flow's own task runner is one thread. The one that works is started inside the flow run, from
the configuration that this run was given, so that a deployment obeys it as the command line does;
and only when there is something to make: a run that finds everything starts no process.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from prefect import Flow
from prefect.context import FlowRunContext
from prefect.futures import PrefectTaskRunFuture
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.dask_workers import dask_runner
from storage.repeating import repeating
from tasks import progress
from tasks.parent import end_with_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from multiprocessing.process import BaseProcess
    from types import TracebackType

    from prefect import Task
    from prefect.futures import PrefectFuture
    from prefect.settings.legacy import Setting

    from flows.config import DistillConfig
    from tasks.prefect_task import Chunk


_SECONDS_BETWEEN_ENDINGS = 0.1


class Ended(PrefectTaskRunFuture[Any]):
    """A task run that has ended well, as one that others come after: an edge of the run's graph.

    Small and plain, unlike the future it is made from, so that any runner can pass it on.
    """

    def __init__(self, future: PrefectFuture[Any]) -> None:
        super().__init__(future.task_run_id)
        # Without what the task run returned: nobody is to be sent that.
        self._final_state = future.state.model_copy(update={"data": True})

    def wait(self, timeout: float | None = None) -> None:
        """Return at once."""

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> bool:
        """Return True."""
        del timeout, raise_on_failure
        return True

    def add_done_callback(self, fn: Callable[[PrefectFuture[Any]], None]) -> None:
        """Call at once."""
        fn(self)


class Workers:
    """Runs tasks of a flow run; a context manager, which at its end waits for what is under way.

    Where it is interrupted, threads end at their next word of progress, and processes at once.
    """

    def __init__(self, config: DistillConfig) -> None:
        self._config = config
        self._stack = ExitStack()
        self._context: FlowRunContext | None = None
        self._others: set[BaseProcess] = set()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            self._stack.__exit__(kind, error, trace)
            return
        processes = self._config.run.runner == "processes"
        ending = self._ending_processes() if processes else nullcontext()
        with _undisturbed(), progress.stopping(), ending:
            self._stack.__exit__(kind, error, trace)

    def _ending_processes(self) -> AbstractContextManager[None]:
        """Have the child processes end while the block runs, those that are only starting too."""

        def end() -> None:
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()

        return repeating(end, seconds=_SECONDS_BETWEEN_ENDINGS, name="ending of workers")

    def submit(
        self, task: Task[..., Any], chunk: Chunk, store: str, *, after: Sequence[Ended]
    ) -> PrefectFuture[Any]:
        """Have a task run as soon as a worker is free.

        Args:
            task: Over a chunk of jobs and the URL of a store.
            chunk: The jobs.
            store: The URL.
            after: The task runs that came before.
        """
        if self._context is None:
            self._others = set(multiprocessing.active_children())
            runner = self._stack.enter_context(task_runner(self._config))
            flow_run = FlowRunContext.get()
            if flow_run is None:
                raise RuntimeError("a run with Prefect works only inside a flow run")
            self._context = flow_run.model_copy(
                update={"task_runner": runner, "flow": _name_alone(flow_run), "parameters": {}}
            )
        with self._context, temporary_settings(_server_of_this_run(self._config)):
            future: PrefectFuture[Any] = task.submit(chunk, store, wait_for=after)
        return future


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hear no second signal while the block runs: it would end the waiting, and not the workers.

    ``timeout`` sends two, and so do people.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _server_of_this_run(config: DistillConfig) -> dict[Setting, str]:
    """Return settings that lead other processes to the server that Prefect started for this one.

    None where it is not theirs, or where one is set. Each would start another for itself.
    """
    run = config.run
    here = run.runner != "threads" and run.dask_address is None
    if not here or get_current_settings().api.url is not None:
        return {}
    from prefect.server.api.server import SubprocessASGIServer

    return {PREFECT_API_URL: SubprocessASGIServer().api_url}


def _name_alone(context: FlowRunContext) -> Flow[[], None]:
    """Return a flow that stands for this one at a worker, which asks for its name and no more.

    The context goes along with every task run. With the real flow, and the configuration it was
    given, each worker would first import all stages, and torch, whatever its own stage needs.
    """
    return Flow(_nothing, name=context.flow.name if context.flow else None)


def _nothing() -> None:
    """Of a flow that is never called."""


def task_runner(config: DistillConfig) -> AbstractContextManager[TaskRunner[Any]]:
    """Return the task runner that ``[run]`` asks for, to be entered.

    Entering raises ConfigError where it is to be on a Dask cluster that is of no use.
    """
    run = config.run
    make: Mapping[str, Callable[[], AbstractContextManager[TaskRunner[Any]]]] = {
        "threads": lambda: ThreadPoolTaskRunner(max_workers=run.workers),
        "processes": lambda: ProcessPoolTaskRunner(
            max_workers=run.workers, initializer=end_with_parent
        ),
        "dask": lambda: dask_runner(workers=run.workers, address=run.dask_address),
    }
    return make[run.runner]()
