"""A Dask cluster started by hand: a scheduler and its workers, a process each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def dask_cluster(
    directory: Path, *, workers: int, environment: Callable[[int], Mapping[str, str]]
) -> Iterator[tuple[str, list[int]]]:
    """Have a cluster while the block lasts; it logs into the directory.

    Args:
        directory: The current one of all processes.
        workers: How many.
        environment: Variables of each process: 0 is the scheduler, the workers are 1 and so on.

    Yields the address, and the workers' processes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    dask = str(Path(sys.executable).with_name("dask"))
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    worker = ["worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, arguments in enumerate([scheduler, *[worker] * workers]):
            with (directory / f"dask-{number}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        [dask, *arguments], stdout=log, stderr=log, cwd=directory,
                        env={**os.environ, **environment(number)}, start_new_session=True,
                    )
                )  # fmt: skip
        yield address, [process.pid for process in started[1:]]
    finally:
        for process in started:
            process.kill()
            process.wait()
