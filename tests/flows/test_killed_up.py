"""`sparsedistill up` killed with everything it does, and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.prefect_server import prefect_server
from helpers.served import free_port, until, up
from helpers.tiny_task import run_config, write_toml
from prefect.client.orchestration import get_client

from flows import automations
from flows.automations import RUNS_LIMIT, ZOMBIES, end_dead_runs


@contextmanager
def server_stopped(home: Path) -> Iterator[None]:
    """End the server that a killed `up` left, as its user would."""
    try:
        yield
    finally:
        subprocess.run(
            [sys.executable, "-m", "prefect", "server", "stop"],
            env={**os.environ, "PREFECT_HOME": str(home)}, check=True, capture_output=True,
        )  # fmt: skip


def names(client: Any) -> Counter[str]:
    """All that `up` makes on a server, and how often it is there."""
    return Counter(
        [f"automation {one.name}" for one in client.read_automations()]
        + [f"deployment {one.name} of {one.flow_id}" for one in client.read_deployments()]
        + [f"limit {one.name}" for one in client.read_global_concurrency_limits(limit=50, offset=0)]
        + [f"schedule of {one.flow_id}" for one in client.read_deployments() for _ in one.schedules]
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_up_hinders_nothing_and_its_dead_run_is_ended(
    tiny_data: Path, tmp_path: Path, small: Mapping[str, Any]
):
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    config = write_toml(tmp_path / "tiny.toml", run_config(data, tmp_path / "store", **small))
    port = free_port()
    with (
        server_stopped(tmp_path / "prefect"),
        up([config], tmp_path, port=port) as first,
        get_client(sync_client=True) as client,
    ):
        made = names(client)
        assert set(made.values()) == {1}
        end_dead_runs(silence=timedelta(seconds=20))
        # An end by a name of our own is an end: silence after it means nothing.
        looked = first.ended(first.start("watch-corpus/tiny"))
        assert looked.state_name == "Unchanged"
        run = first.start("distill/tiny", settings=["teacher.epochs=5000"])
        until(lambda: slots(client) == 1, "a run that computes", first)
        process = psutil.Process(first.process.pid)
        family = [one for one in process.children(recursive=True) if not is_server(one)]
        assert len(family) >= 1
        for one in (process, *family):
            one.send_signal(signal.SIGKILL)
        first.process.wait()
        # The server lives, and nobody is left to say that the run ended.
        assert client.read_flow_run(run).state_name == "Running"

        dead = first.ended(run, killed=True)
        assert dead.state_name == "Crashed"
        assert dead.state is not None
        assert (dead.state.message or "").startswith("Nothing was heard of this run")

        assert client.read_flow_run(looked.id).state_name == "Unchanged"

        with up([config], tmp_path, port=port) as second:
            assert "was running, and stays when this ends" in second.said()
            assert names(client) == made
            # The dead run's slot is free again, and what it had made is there.
            again = second.ended(second.start("distill/tiny"))
            assert again.state_name == "Completed"
            (zombies,) = client.read_automations_by_name(ZOMBIES)
            assert zombies.trigger.within == automations.SILENCE
        assert answers(first.api)
    until(lambda: not answers(first.api), "the server's end", first, ended=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_in_a_terminal_cancels_runs_and_nobody_is_told_of_a_failure(
    tiny_data: Path, tmp_path: Path, small: Mapping[str, Any]
):
    """A terminal signals the whole foreground group, and people press twice."""
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    config = write_toml(tmp_path / "tiny.toml", run_config(data, tmp_path / "store", **small))
    with prefect_server(tmp_path / "prefect") as variables:
        port = int(variables["PREFECT_API_URL"].removesuffix("/api").rpartition(":")[2])
        with (
            up([config], tmp_path, port=port) as one,
            get_client(sync_client=True) as client,
        ):
            ended = one.ended(one.start("watch-corpus/tiny"))
            run = one.start("distill/tiny", settings=["teacher.epochs=5000"])
            until(lambda: slots(client) == 1, "a run that computes", one)
            os.killpg(one.process.pid, signal.SIGINT)
            until(lambda: "stopping" in one.said(), "a word at once", one)
            os.killpg(one.process.pid, signal.SIGINT)
            assert one.process.wait(60) == 0
            states = [state.name for state in client.read_flow_run_states(run)]
            assert states[-1] == "Cancelled"
            assert not {"Crashed", "Failed"}.intersection(states)
            assert client.read_flow_run(ended.id).state_name == "Unchanged"
            said = one.said()
            assert "Traceback" not in said
            assert "EventsWorker" not in said
            assert said.rstrip().endswith("stopped")


def slots(client: Any) -> int:
    return int(client.read_global_concurrency_limit_by_name(RUNS_LIMIT).active_slots)


def is_server(process: psutil.Process) -> bool:
    return "server" in process.cmdline()


def answers(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=5):
            return True
    except OSError:
        return False
