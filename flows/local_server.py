"""The Prefect server that ``up`` works with: one that is there, or one of its own.

A server of its own ends with ``up``. After ``kill -9`` it stays, so that runs under way can finish
and be seen; the next ``up`` finds it and works with it.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import refresh_global_settings_context
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)

from flows.environment import FOR_SERVERS, environment_by_default
from sparsedistill.errors import SparseDistillError
from storage.urls import shown
from tasks.logs import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_SECONDS = 180
_STOP_SECONDS = 20
_HEALTHY = b"true"
# Where a server is named: a restart of it is waited for, and no more.
_RETRIES = 2
_REFUSED = {401, 403}
_DEFAULTS = {
    **FOR_SERVERS,
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # Old runs go, with their logs and artifacts; Prefect's default removes old events alone.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
}


class ServerError(SparseDistillError):
    """There is no Prefect server to work with; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers.

    Attributes:
        api: Its address for programs.
        log: Where a server of our own writes; None for one that was there.
    """

    api: str
    log: Path | None

    @property
    def shown(self) -> str:
        """Its address for programs, without a password."""
        return shown(self.api)

    @property
    def ui(self) -> str:
        """Its address for people, without a password."""
        return self.shown.removesuffix("/api")


@contextmanager
def server(port: int) -> Iterator[Server]:
    """Work with a server while the block runs: within it Prefect's API is that server's.

    It is the one that Prefect is set to use (``PREFECT_API_URL`` or its profile), or the one that
    listens at ``port`` of this machine, or else one that is started there and ended afterwards.

    Raises:
        ServerError: The one that is set does not answer, or ours does not start.
    """
    named = named_server("unset PREFECT_API_URL to have one here")
    if named is not None:
        yield Server(named, None)
        return
    api = f"http://127.0.0.1:{port}/api"
    with temporary_settings({PREFECT_API_URL: api}):
        if answers(api):
            yield Server(api, None)
            return
        _check_free(port)
        with _started(api, port) as log:
            yield Server(api, log)


@contextmanager
def using(api: str) -> Iterator[None]:
    """Have Prefect use a server while the block runs.

    In all threads of this process, some of which are Prefect's and know of no setting of another
    one's, and in the processes it starts.
    """
    try:
        with environment_by_default(PREFECT_API_URL=api):
            refresh_global_settings_context()
            yield
    finally:
        refresh_global_settings_context()


def named_server(otherwise: str) -> str | None:
    """Return the server that Prefect is set to use, which answers; None if none is set.

    Args:
        otherwise: What else can be done where it does not answer.

    Raises:
        ServerError: It does not answer.
    """
    named = get_current_settings().api.url
    if named is None:
        return None
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: _RETRIES}),
        get_client(sync_client=True) as client,
    ):
        # As all else is asked: with the key, the certificates and the proxy that are set.
        failed = client.api_healthcheck() or _refusal(client)
    if failed is None:
        return named
    if isinstance(failed, PrefectHTTPStatusError) and _refuses(failed):
        raise ServerError(
            f"the Prefect server at {shown(named)} refuses ({failed.response.status_code}): check "
            f"PREFECT_API_KEY or PREFECT_API_AUTH_STRING, or {otherwise}"
        )
    why = next(iter(without_secrets(str(failed)).splitlines()), type(failed).__name__)
    raise ServerError(
        f"no Prefect server answers at {shown(named)}, which Prefect is set to use "
        f"(PREFECT_API_URL, or its profile): {why}. Start it, or {otherwise}"
    )


def _refusal(client: SyncPrefectClient) -> Exception | None:
    """Return the error of a server that is healthy, for all may ask that, and of no use to us."""
    try:
        client.read_flows(limit=1)
    except PrefectHTTPStatusError as error:
        return error if _refuses(error) else None
    except httpx.TransportError as error:  # it has gone since
        return error
    return None


def _refuses(error: PrefectHTTPStatusError) -> bool:
    return error.response.status_code in _REFUSED


def _check_free(port: int) -> None:
    try:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "is taken by another program" if taken else f"cannot be used ({error})"
        raise ServerError(f"port {port} {why}: give --port another number") from error


@contextmanager
def _started(api: str, port: int) -> Iterator[Path]:
    home = get_current_settings().home
    home.mkdir(parents=True, exist_ok=True)
    log = home / "sparsedistill-server.log"
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            command,
            env={
                **_DEFAULTS,
                "PREFECT_UI_URL": api.removesuffix("/api"),
                # Else pages of another port would ask the server at 4200.
                "PREFECT_UI_API_URL": api,
                **os.environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches `up` alone, which ends the server when the runs have told theirs.
            start_new_session=True,
        )
    # What `prefect server stop` reads, for whoever has to end it after `up` was killed.
    pid_file = home / "server.pid"
    pid_file.write_text(str(process.pid), "utf-8")
    try:
        _wait(api, process, log)
        yield log
    finally:
        _end(process)
        pid_file.unlink(missing_ok=True)


def _wait(api: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while not answers(api):
        if process.poll() is not None:
            said = log.read_text("utf-8", errors="replace").strip()
            last = " ".join(said.rpartition("\n\n")[-1].split())
            raise ServerError(f"the Prefect server did not start: {last} (all in {log})")
        if time.monotonic() > end:
            raise ServerError(f"the Prefect server does not answer after {_START_SECONDS} s: {log}")
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answers(api: str, *, seconds: float = 2) -> bool:
    """Return whether a Prefect server, and nothing else, answers at an address of this machine."""
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=seconds) as answer:  # noqa: S310
            healthy: bytes = answer.read(len(_HEALTHY) + 1)
    except (OSError, HTTPException):
        return False
    return healthy == _HEALTHY
