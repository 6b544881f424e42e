"""Signals to a run with a Prefect server of its own: what is left of it, and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from helpers.tiny_task import run_config, write_toml

from flows import cli, local_server
from flows.cli import main

ROOT = Path(cli.__file__).parents[1]
# Longer than anybody waits, if nothing ended it.
LONG = {"student": {"epochs": 5000, "baselines": []}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's. Not with the database of other tests, which may be served."""
    return tmp_path_factory.mktemp("prefect")


@contextmanager
def under_way(
    data: Path, store: Path, home: Path, runner: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A run that has a student to train, as a group of processes of its own, and what it says."""
    tables = {**LONG, "run": {"runner": runner}}
    directory = store.parent
    toml = write_toml(directory / "tiny.toml", run_config(data, store, **tables))
    said = directory / "said"
    with said.open("wb") as file:
        run = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "distill", str(toml),
             "--log", str(directory / "run.jsonl"), "--out", str(directory / "out")],
            stdout=file, stderr=file, start_new_session=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home)},
        )  # fmt: skip
    try:
        end = time.monotonic() + 200
        while not (list((store / ".work").glob("student-*/*"))):
            assert run.poll() is None, said.read_text()
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.2)
        yield run, said
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def family_of(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    family = psutil.Process(run.pid).children(recursive=True)
    # Workers have the run's server, and none of their own.
    assert sum(is_server(one) for one in family) == 1
    return family


def is_server(process: psutil.Process) -> bool:
    try:
        return "uvicorn" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("number", "group", "runner"),
    [
        (signal.SIGINT, True, "threads"),
        (signal.SIGTERM, True, "threads"),
        (signal.SIGTERM, False, "processes"),
    ],
)
def test_a_signal_ends_a_run_its_workers_and_the_server_that_was_started_for_it(
    own_data: Path,
    own_store: Path,
    home: Path,
    number: signal.Signals,
    group: bool,
    runner: str,
):
    """A terminal and ``timeout`` signal the group; the server must hear how the run ends."""
    with under_way(own_data, own_store, home, runner) as (run, said):
        family = family_of(run)
        # `timeout` sends two, one after the other.
        (os.killpg if group else os.kill)(run.pid, number)
        time.sleep(0.05)
        run.send_signal(number)
        assert run.wait(60) == 130, said.read_text()
    told = said.read_text()
    assert told.rstrip().endswith("interrupted; run the same command again to go on")
    assert "starting a Prefect server for this run" in told
    assert "refused" not in told
    assert "Traceback" not in told
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    lines = (own_store.parent / "run.jsonl").read_text("utf-8").splitlines()
    assert "finetune" not in {json.loads(line)["stage"] for line in lines}


@pytest.mark.timeout(300)
def test_what_a_run_that_is_killed_has_started_ends_as_well(
    own_data: Path, own_store: Path, home: Path
):
    with under_way(own_data, own_store, home, "processes") as (run, _):
        family = family_of(run)
        run.kill()
        assert run.wait(20) == -signal.SIGKILL
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def test_a_command_leaves_the_environment_as_it_found_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in ("OMP_WAIT_POLICY", "DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(local_server, "named_server", _no_server)
    toml = write_toml(tmp_path / "tiny.toml", run_config(tmp_path, tmp_path / "store"))
    before = dict(os.environ)
    for command in ("plan", "distill", "up"):
        main([command, str(toml)])
        assert dict(os.environ) == before, command
    assert "gone away" in capsys.readouterr().err


def _no_server(otherwise: str) -> str:
    raise local_server.ServerError(f"gone away: {otherwise}")
