"""The Dask workers of a run: a cluster of its own on this machine, or the one at an address.

A worker that cannot import this package fails no task: it ends when it is sent one, and the run
would wait for another for ever. So all that are there are asked first.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client
    from prefect.task_runners import TaskRunner

_LOG = logging.getLogger(__name__)


@contextmanager
def dask_runner(*, workers: int, address: str | None) -> Iterator[TaskRunner[Any]]:
    """Have a task runner on Dask while the block lasts.

    Args:
        workers: Processes of the run's own cluster, on this machine.
        address: Of the scheduler of another cluster; None for the run's own.

    Raises:
        ConfigError: No scheduler answers, or a worker cannot do this package's work.
    """
    from prefect_dask import DaskTaskRunner

    if address is not None:
        made = DaskTaskRunner(address=address)
    else:
        cluster = {
            "n_workers": workers,
            "threads_per_worker": 1,
            "dashboard_address": None,
            # A large student takes more than a worker's part of the memory, and there is nothing
            # to move to disk: between tasks go keys.
            "memory_limit": None,
        }
        made = DaskTaskRunner(cluster_kwargs=cluster)
    with made as runner:
        try:
            client = runner.client
        except OSError as error:
            if address is None:
                raise
            raise ConfigError(
                f"[run] dask_address: no scheduler answers at {address} ({error}). Start one there "
                "(`dask scheduler`), or set the address of one that runs"
            ) from error
        # Those of a cluster of our own have what we have, and import what their stages need.
        check_workers(client, "tasks.prefect_task" if address is None else "flows.pipeline")
        yield runner


def check_workers(client: Client, needed: str) -> None:
    """Have the workers of a cluster import what the tasks need.

    Args:
        client: Of the cluster.
        needed: Name of the module.

    Raises:
        ConfigError: A worker cannot.
    """
    address = client.scheduler_info()["address"]
    # By reference, so that it gets there whatever is missing there.
    answers = client.run(import_module, needed, on_error="return")
    there: dict[str, int] = client.ncores()  # type: ignore[no-untyped-call]
    if not there:
        _LOG.warning(
            "no worker is at the Dask scheduler %s: the run waits until one comes "
            "(`dask worker %s --nthreads 1 --memory-limit 0`)", address, address,
        )  # fmt: skip
    # Those that went away meanwhile answer with an error as well.
    unable = {
        worker: answer
        for worker, answer in answers.items()
        if isinstance(answer, Exception) and worker in there
    }
    if unable:
        error = next(iter(unable.values()))
        raise ConfigError(
            f"of the {len(answers)} workers at the Dask scheduler {address}, {len(unable)} cannot "
            f"import what the stages need ({type(error).__name__}: {error}): "
            f"{', '.join(sorted(unable))}. Install there what is installed here, the same "
            "versions, and start them again"
        )
