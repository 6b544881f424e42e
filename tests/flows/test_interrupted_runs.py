"""Ctrl-C at a terminal while a run with a Prefect server of its own is under way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers.tiny_task import run_config, write_toml

from flows import cli, local_server
from flows.cli import main

ROOT = Path(cli.__file__).parents[1]
# Longer than anybody waits, if nothing ended it.
LONG = {"student": {"epochs": 5000, "baselines": []}, "teacher": {"epochs": 1}}


@pytest.mark.timeout(300)
def test_ctrl_c_ends_a_run_and_the_server_that_was_started_for_it(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A terminal signals the whole group: the server, which must hear how the run ends, as well."""
    toml = write_toml(tmp_path / "tiny.toml", run_config(tiny_data, tmp_path / "store", **LONG))
    log, said = tmp_path / "run.jsonl", tmp_path / "said"
    # Not the database of other tests, which may be served.
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with said.open("wb") as file:
        run = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "distill", str(toml), "--log", str(log),
             "--out", str(tmp_path / "out")],
            stdout=file, stderr=file, start_new_session=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    try:
        end = time.monotonic() + 200
        while not (list((tmp_path / "store" / ".work").glob("student-*/*"))):
            assert run.poll() is None, said.read_text()
            assert time.monotonic() < end, said.read_text()
            time.sleep(0.2)
        family = psutil.Process(run.pid).children(recursive=True)
        assert any("uvicorn" in one.cmdline() for one in family)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(60) == 130, said.read_text()
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    told = said.read_text()
    assert told.rstrip().endswith("interrupted; run the same command again to go on")
    assert "starting a Prefect server for this run" in told
    assert "refused" not in told
    assert "Traceback" not in told
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert lines[-1]["stage"] != "finetune"


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
