"""A Prefect server as people start it: a process of its own, on a database of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sys import executable

_SECONDS_TO_START = 120.0


@contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """Have a server while the block lasts; yields the variables that lead a process to it."""
    home.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    environment = {**os.environ, **variables}
    environment.pop("PREFECT_API_URL")
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1",
             "--port", str(port), "--no-ui"],
            stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(variables["PREFECT_API_URL"], server, home / "server.log")
        yield variables
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"no server: {log.read_text('utf-8', errors='replace')[-3000:]}")
