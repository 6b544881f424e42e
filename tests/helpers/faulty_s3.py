"""An S3 server (moto) that fails now and then, as object stores and networks do; all from a seed.

Which request fails, and how, is a function of the seed and of the request's number. Real sockets
are used, so a reset is a reset and a truncated body is one to the client's HTTP library.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
import s3fs
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

FAULTS = ("internal", "unavailable", "slow_down", "reset", "lost_answer", "truncated", "slow")
"""What can happen to a request: HTTP 500, 503, 503 SlowDown; a connection that is reset before the
request is done, or after; half of an answer; an answer that takes a while."""

KEYS: Mapping[str, str] = {"AWS_ACCESS_KEY_ID": "anyone", "AWS_SECRET_ACCESS_KEY": "not-so-secret"}
_ERRORS = {
    "internal": ("500 Internal Server Error", "InternalError"),
    "unavailable": ("503 Service Unavailable", "ServiceUnavailable"),
    "slow_down": ("503 Slow Down", "SlowDown"),
}
_SLOW_SECONDS = 0.3
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with a RST

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class FaultyS3:
    """The server, in threads of this process; a context manager.

    Attributes:
        rate: Share of the requests that fail; may be changed while it runs.
        faults: Those that are drawn from.
        requests: How many there were, by method.
        failed: How many failed, by fault.
        on_request: Called with method and path of every request before it is served; where it
            raises ConnectionResetError, the request is not heard.
    """

    def __init__(
        self, *, rate: float = 0.0, seed: int = 0, faults: tuple[str, ...] = FAULTS
    ) -> None:
        self.rate = rate
        self.faults = faults
        self.requests: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.on_request: Callable[[str, str], None] = lambda method, path: None
        self._seed = seed
        self._lock = threading.Lock()
        self._application: Application = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, self._serve, threaded=True, request_handler=_Quiet
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> FaultyS3:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """How any process gets at it: by the ordinary variables."""
        return {
            **KEYS,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self, name: str) -> str:
        """Make a bucket; returns a URL in it."""
        with self._client() as client:
            client.create_bucket(Bucket=name)
        return f"s3://{name}/runs"

    def objects(self, bucket: str) -> dict[str, tuple[bytes, str]]:
        """Content and time of change of everything in a bucket, by key."""
        with self._client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            keys = [one["Key"] for page in pages for one in page.get("Contents", ())]
            found = {key: client.get_object(Bucket=bucket, Key=key) for key in keys}
            return {
                key: (one["Body"].read(), one["LastModified"].isoformat())
                for key, one in found.items()
            }

    def told(self) -> str:
        """How many requests there were, and how many of them failed, in a line."""
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.failed.items()))
        return (
            f"{sum(self.requests.values())} requests, {sum(self.failed.values())} failed: {kinds}"
        )

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """A client of the test's own, for which nothing fails."""
        import boto3

        rate, self.rate = self.rate, 0.0
        client = boto3.client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1",
            aws_access_key_id="anyone", aws_secret_access_key="anything",
        )  # fmt: skip
        try:
            yield client
        finally:
            client.close()
            self.rate = rate

    def _serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.on_request(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        fault = self._draw(environ["REQUEST_METHOD"])
        if fault in _ERRORS:
            return _refuse(environ, start, *_ERRORS[fault])
        if fault == "slow":
            time.sleep(_SLOW_SECONDS)
        if fault == "reset":
            _cut(environ)
        if fault == "lost_answer":
            list(self._application(environ, lambda *_: None))
            _cut(environ)
        if fault == "truncated":
            return _half(self._application, environ, start)
        return self._application(environ, start)

    def _draw(self, method: str) -> str | None:
        with self._lock:
            number = self.requests.total()
            self.requests[method] += 1
            chance = random.Random(f"{self._seed} {number}")
            if chance.random() >= self.rate:
                return None
            fault = chance.choice(self.faults)
            self.failed[fault] += 1
            return fault


class _Quiet(MotoRequestHandler):
    """No log of every request, and no look for another one where the connection was cut."""

    def log(self, *_: object) -> None:
        """Say nothing."""

    def connection_dropped(self, *_: object) -> None:
        """Leave it at that."""
        self.close_connection = True


def _refuse(
    environ: dict[str, Any], start: Callable[..., Any], status: str, code: str
) -> list[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    body = f"<Error><Code>{code}</Code><Message>try again</Message></Error>".encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _cut(environ: dict[str, Any]) -> NoReturn:
    """End the connection by a reset, now: others hold the socket open, so its descriptor goes."""
    connection: socket.socket = environ["werkzeug.socket"]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - its descriptor is what is wanted
        os.dup2(nothing.fileno(), connection.fileno())
    raise ConnectionResetError("as the test wants it")


def _half(
    application: Application, environ: dict[str, Any], start: Callable[..., Any]
) -> list[bytes]:
    """Answer with the headers of all and half of the body; the connection ends there."""
    told: list[Any] = []
    body = b"".join(application(environ, lambda *all_: told.extend(all_)))
    status, headers = told[:2]
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    start(status, [*kept, ("Content-Length", str(len(body))), ("Connection", "close")])
    return [body[: len(body) // 2]]


@contextmanager
def reached(
    server: FaultyS3, monkeypatch: pytest.MonkeyPatch, **variables: str
) -> Iterator[FaultyS3]:
    """Have stores of a test reach a server that several tests share, as it was at its start."""
    for name, value in {**server.environment, **variables}.items():
        monkeypatch.setenv(name, value)
    # Clients that were made for another server, or in another environment, are kept by fsspec.
    s3fs.S3FileSystem.clear_instance_cache()
    server.rate, server.on_request = 0.0, lambda method, path: None
    yield server
    s3fs.S3FileSystem.clear_instance_cache()
