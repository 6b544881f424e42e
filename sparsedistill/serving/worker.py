"""The service under uvicorn: one process or several, and how they stop.

A worker learns what to serve from its environment, because uvicorn starts workers afresh and hands
them nothing but the name of a function. Each maps the same table: the system keeps one copy.

One process answers from the start, and `/readyz` says when it is ready. Of several, each begins to
take connections when it is ready.

Told to stop (SIGTERM, Ctrl-C), a worker is no longer ready, still takes connections while it
drains, then takes none, ends the requests in flight, and ends with status 0.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparsedistill.classifier import Classifier
from sparsedistill.errors import ConfigError
from sparsedistill.serving import connections, logs
from sparsedistill.serving.app import Service, create_app
from sparsedistill.serving.metrics import DIRECTORY_VARIABLE
from sparsedistill.serving.settings import ServerSettings, Settings, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from starlette.types import ASGIApp, Receive, Scope, Send

VARIABLE = "SPARSEDISTILL_SERVICE"
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PARENT_SECONDS = 1.0
_HEALTHCHECK_SECONDS = 60


def run(model: Path, settings: Settings, server: ServerSettings, *, access_log: bool = True) -> int:
    """Serve a model until told to stop.

    Args:
        model: Its directory.
        settings: Of the application.
        server: Of the server.
        access_log: Whether to log every request.

    Returns:
        The exit status.

    Raises:
        OSError: The address cannot be listened on.
        ConfigError: It is none.
    """
    import uvicorn

    _check_address(server)
    with _environment(to_json(str(model.resolve()), settings, server), server.workers):
        # uvicorn raises the signal again when it has stopped; to have stopped was what it asked.
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            uvicorn.run(
                f"{__name__}:application",
                factory=True,
                host=server.host,
                port=server.port,
                workers=server.workers,
                http=connections.Protocol,
                ws="none",
                lifespan="on",
                log_config=logs.log_config(access=access_log),
                access_log=False,
                server_header=False,
                timeout_keep_alive=server.keep_alive_seconds,
                timeout_graceful_shutdown=server.grace_seconds,
                # A worker that compiles, on a busy machine, is slow to answer its supervisor.
                timeout_worker_healthcheck=_HEALTHCHECK_SECONDS,
            )
        finally:
            signal.signal(signal.SIGTERM, before)
    return 0


def application() -> ASGIApp:
    """What a worker serves, by its environment."""
    model, settings, server = from_json(os.environ[VARIABLE])
    guard = connections.Protocol
    guard.max_connections = server.max_connections
    guard.head_seconds = server.head_seconds
    guard.write_seconds = server.write_seconds
    return _Worker(create_app(Classifier.load(model), settings), server)


class _Worker:
    """The service, which hears of the signals that stop its server."""

    def __init__(self, service: Service, server: ServerSettings) -> None:
        self._service = service
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._service(scope, receive, send)
            return
        watch = None
        if self._server.workers > 1:
            watch = asyncio.create_task(_end_with_parent())
            # `/readyz` is answered by any worker, for all: so one that is not ready takes nothing.
            if not await self._service.warmed():
                raise RuntimeError("the model does not work")
        with self._stopping():
            await self._service(scope, receive, send)
        if watch is not None:
            watch.cancel()

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Have the service told of signals before the server is."""
        loop = asyncio.get_running_loop()
        handlers: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
        drains = self._server.drain_seconds

        def stop(number: int, frame: FrameType | None) -> None:
            first = not self._service.stopping
            self._service.stop()
            if number == signal.SIGTERM and drains:
                # A supervisor may send it to the whole group, and so twice: that is once.
                if first:
                    loop.call_soon_threadsafe(
                        loop.call_later, drains, handlers[number], number, None
                    )
            else:
                handlers[number](number, frame)

        for number in _SIGNALS:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for caught, handler in handlers.items():
                signal.signal(caught, handler)


async def _end_with_parent() -> None:
    """Stop when the process that started the workers is gone, rather than serve on unseen."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _environment(service: str, workers: int) -> Iterator[None]:
    """What workers find in theirs: what to serve, and where to keep their numbers."""
    with tempfile.TemporaryDirectory(prefix="sparsedistill-metrics-") as directory:
        mine = {VARIABLE: service}
        if workers > 1:
            mine[DIRECTORY_VARIABLE] = directory
        before = {name: os.environ.get(name) for name in mine}
        os.environ.update(mine)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _check_address(server: ServerSettings) -> None:
    """See that the address can be listened on, for an error that says so in one line."""
    where = f"{server.host} port {server.port}"
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise ConfigError(f"cannot listen on {where}: that is no name of a host") from error
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {where}: {error.strerror}") from error
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {where}: {error.strerror}") from error
