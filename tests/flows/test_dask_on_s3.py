"""The whole pipeline on an object store with a Dask cluster, of which a worker is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.chaos import ROOT, Forks
from helpers.prefect_server import prefect_server
from helpers.tiny_task import run_config, write_toml

from flows.delivery import RunResult
from storage import ArtifactStore

MEASURED = {"evaluation", "report"}


@contextmanager
def dask_cluster(
    directory: Path, environment: Mapping[str, str]
) -> Iterator[tuple[str, list[int]]]:
    """A scheduler and two workers, a process each, as on several machines.

    Yields the address, and the workers' processes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    dask = str(Path(sys.executable).with_name("dask"))
    cache = str(directory / "cache-of-")
    started = []
    try:
        for number, arguments in enumerate(
            (
                ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"],
                *(["worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"],) * 2,
            )
        ):
            # A cache each: workers on several machines share no disk.
            own = {**os.environ, **environment, "SPARSEDISTILL_CACHE": f"{cache}{number}"}
            paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
            own |= {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
            with (directory / f"dask-{number}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(
                        [dask, *arguments], stdout=log, stderr=log, env=own, cwd=directory,
                        start_new_session=True,
                    )
                )  # fmt: skip
        yield address, [worker.pid for worker in started[1:]]
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_that_loses_a_worker_makes_the_bytes_of_local_threads(
    tiny_data: Path,
    tiny_run: RunResult,
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("prefect_dask")
    pytest.importorskip("moto.server")
    from helpers.faulty_s3 import FaultyS3

    put: set[str] = set()

    def note(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/manifest.json"):
            put.add(path)

    with FaultyS3(rate=0.01, seed=6) as s3, prefect_server(tmp_path / "prefect") as prefect:
        url = s3.make_bucket("cluster")
        s3.on_request = note
        variables = {**s3.environment, **prefect, "SPARSEDISTILL_CACHE": str(tmp_path / "cache")}
        with (
            dask_cluster(tmp_path, variables) as (address, workers),
            Forks(tmp_path / "log", variables, ["prefect", "flows.prefect_runner"]) as forks,
        ):
            run = {"store": url, "runner": "dask", "dask_address": address, "workers": 2}
            config = run_config(tiny_data, Path("unused"), run=run)
            toml = write_toml(tmp_path / "tiny.toml", config)
            forks.start(["distill", str(toml), "--out", str(tmp_path / "out")])
            while len(put) < 12 and not forks.ended():
                time.sleep(0.01)
            assert not forks.ended(), forks.said()
            os.kill(workers[0], signal.SIGKILL)
            assert forks.wait() == 0, forks.said()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        s3.rate = 0.0
        store = ArtifactStore(url)
        there = {(one.kind, one.key): one for one in store.artifacts()}
        assert all(found.ok for found in store.verify())
    for one in ArtifactStore(tiny_store).artifacts():
        if one.kind not in MEASURED:
            assert there.pop((one.kind, one.key)).files == one.files
    assert {kind for kind, _ in there} == MEASURED
    sys.stdout.write(f"{s3.told()}\n")
