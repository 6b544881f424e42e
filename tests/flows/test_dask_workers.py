"""Dask workers that a run gets, and those it refuses: what it would wait for, for ever."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from helpers.dask_cluster import dask_cluster

from flows.dask_workers import dask_runner
from sparsedistill.errors import ConfigError

pytest.importorskip("prefect_dask")
import dask
from distributed import Client, Worker

pytestmark = pytest.mark.timeout(300)

PACKAGES = ("dashboards", "flows", "sparsedistill", "storage", "tasks")
# What Python reads first of all, and has it find none of our packages.
WITHOUT_US = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {PACKAGES}:
            raise ModuleNotFoundError(f"No module named {{name!r}}")

sys.meta_path.insert(0, Missing())
"""


@contextmanager
def scheduler(directory: Path, *, workers: int, environment: Mapping[str, str]) -> Iterator[str]:
    """A scheduler whose workers are there; yields the address."""
    with dask_cluster(directory, workers=workers, environment=lambda _: environment) as (
        address,
        _,
    ):
        with Client(address, timeout=60, set_as_default=False) as client:
            if workers:
                client.wait_for_workers(workers, timeout=60)
        yield address


def _namesakes(dask_worker: Worker) -> set[str]:
    """Directories as packages of ours are named, in one that Dask has its worker import from."""
    return {path.name for path in Path(dask_worker.local_directory).iterdir()} & set(PACKAGES)


def _most_memory(dask_worker: Worker) -> int | None:
    limit: int | None = dask_worker.memory_manager.memory_limit
    return limit


def test_workers_of_a_run_find_our_packages_and_take_the_memory_they_need():
    # Dask sets variables for its workers' sake.
    with patch.dict(os.environ), dask_runner(workers=2, address=None) as runner:
        client = runner.client
        assert list(client.run(_namesakes).values()) == [set(), set()]
        assert list(client.run(_most_memory).values()) == [None, None]


def test_a_directory_named_as_a_package_does_not_hide_it(tmp_path: Path):
    for name in PACKAGES:
        (tmp_path / name).mkdir()
    asked = "import " + ", ".join(PACKAGES) + "; print(storage.ArtifactStore.__name__)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-c", asked], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr) == ("ArtifactStore\n", "")


def test_workers_without_the_package_are_named_before_the_run_waits_for_them(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_US, "utf-8")
    environment = {"PYTHONPATH": str(tmp_path)}
    with scheduler(tmp_path, workers=2, environment=environment) as address:
        with pytest.raises(ConfigError) as caught, dask_runner(workers=1, address=address):
            pass
        assert f"of the 2 workers at the Dask scheduler {address}, 2 cannot" in str(caught.value)
        assert "(ModuleNotFoundError: No module named 'flows')" in str(caught.value)
        # They were asked in a way that they survive.
        with Client(address, set_as_default=False) as client:
            assert len(client.run(os.getpid)) == 2


def test_a_scheduler_without_workers_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with (
        scheduler(tmp_path, workers=0, environment={}) as address,
        caplog.at_level(logging.WARNING, "flows"),
        dask_runner(workers=1, address=address),
    ):
        (said,) = caplog.messages
    assert said.startswith(f"no worker is at the Dask scheduler {address}: the run waits")


def test_a_scheduler_that_is_not_there_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "500ms"}),
        pytest.raises(ConfigError, match="no scheduler answers at") as caught,
        dask_runner(workers=1, address=address),
    ):
        pass
    assert address in str(caught.value)
