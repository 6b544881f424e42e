"""`sparsedistill up` in a process of its own, with a Prefect server of its own, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Scheduled

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


@dataclass(frozen=True)
class Up:
    """One `up`: its process, its server, and all that it has said."""

    process: subprocess.Popen[bytes]
    api: str
    home: Path
    log: Path

    def said(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    def runs_of(self, client: SyncPrefectClient, deployment: str) -> list[FlowRun]:
        """Runs of a deployment, the newest first by when they were due."""
        only = DeploymentFilter(id=DeploymentFilterId(any_=[number(client, deployment)]))
        found = client.read_flow_runs(deployment_filter=only, limit=200)
        return sorted(found, key=lambda run: run.expected_start_time, reverse=True)

    def schedules_next(self, deployment: str) -> UUID:
        """Have the next run that a deployment's schedule has made be due now."""
        with get_client(sync_client=True) as client:
            due = until(
                lambda: [
                    run
                    for run in self.runs_of(client, deployment)
                    if run.auto_scheduled and run.state_name == "Scheduled"
                ],
                f"a scheduled run of {deployment}",
                self,
            )
            client.set_flow_run_state(due[-1].id, Scheduled(), force=True)
            return due[-1].id

    def start(self, deployment: str, **parameters: object) -> UUID:
        """Start a run on demand."""
        with get_client(sync_client=True) as client:
            made = client.create_flow_run_from_deployment(
                number(client, deployment), parameters=parameters
            )
        return made.id

    def ended(self, run: UUID, *, killed: bool = False) -> FlowRun:
        """A run when it has ended, though `up` itself may have been killed."""
        return until(lambda: _final(run), "the run's end", self, ended=killed)


def number(client: SyncPrefectClient, deployment: str) -> UUID:
    return client.read_deployment_by_name(deployment).id


def _final(run: UUID) -> FlowRun | None:
    with get_client(sync_client=True) as client:
        only = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
        found = client.read_flow_runs(flow_run_filter=only)[0]
    return found if found.state is not None and found.state.is_final() else None


def until(
    find: Callable[[], T | None], what: str, up: Up, *, seconds: float = 100, ended: bool = False
) -> T:
    """The first thing found that is not empty."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = find()
        if found:
            return found
        assert ended or up.process.poll() is None, (
            f"`up` ended while waiting for {what}:\n{up.said()}"
        )
        time.sleep(0.25)
    raise AssertionError(f"no {what} in {seconds} s:\n{up.said()[-5000:]}")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def up(
    configs: Sequence[Path],
    directory: Path,
    *,
    port: int,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Up]:
    """Run `up` while the block runs; Prefect's client in it talks to its server."""
    home, log = directory / "prefect", directory / "up.log"
    log.unlink(missing_ok=True)
    process = launch(
        [*map(str, configs), "--port", str(port), *arguments], home, log, environment or {}
    )
    one = Up(process, f"http://127.0.0.1:{port}/api", home, log)
    try:
        with temporary_settings({PREFECT_API_URL: one.api}):
            until(lambda: "Ctrl-C ends it" in one.said(), "deployments", one)
            yield one
    finally:
        try:
            # Of a flow that ran in this process: later flows' events would go to this server too.
            EventsWorker.drain_all(timeout=10)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def launch(
    arguments: Sequence[str], home: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(
                    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
                ),
                "PREFECT_HOME": str(home),
                "PREFECT_RUNNER_POLL_FREQUENCY": "1",
                "PREFECT_LOGGING_LEVEL": "INFO",
                **environment,
            },
        )
