"""A small model that is served: in this process, or by a real server in another."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from sparsedistill.classifier import Classifier
from sparsedistill.folded import FoldedModel
from sparsedistill.serving import Service, Settings, create_app
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary

ROOT = Path(__file__).parents[2]
NGRAMS = ["good", "bad", "film", "the", "very", "good film", "very bad"]
LABELS = ("negative", "positive", "neither")
THRESHOLDS = {"negative": 0.99, "positive": 0.2}


def small_classifier() -> Classifier:
    vocabulary = Vocabulary.from_ngrams(NgramSpec(), NGRAMS)
    random = np.random.default_rng(0)
    folded = FoldedModel(
        labels=LABELS,
        spec=vocabulary.spec,
        index=vocabulary.index,
        max_ngrams=64,
        table=random.standard_normal((len(vocabulary), 16)).astype(np.float32),
        hidden_bias=np.zeros(16, np.float32),
        head_weight=random.standard_normal((3, 16)).astype(np.float32),
        head_bias=np.zeros(3, np.float32),
    )
    return Classifier(folded, ngrams=vocabulary.ngrams, thresholds=THRESHOLDS)


def small_service(classifier: Classifier | None = None, **settings: Any) -> Service:
    return create_app(classifier or small_classifier(), Settings(name="small", **settings))


async def until_ready(service: Service) -> None:
    service.start()
    while not service.ready:
        assert not service.failed
        await asyncio.sleep(0.01)


def client_of(service: Service) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=service, raise_app_exceptions=True)
    return httpx.AsyncClient(transport=transport, base_url="http://service")


def ask(service: Service, path: str, body: Any = None, **options: Any) -> httpx.Response:
    """Ask a service that is ready: POST if there is a body, which is sent as it is or as JSON."""

    async def asking() -> httpx.Response:
        await until_ready(service)
        async with client_of(service) as client:
            if body is None:
                return await client.request(options.pop("method", "GET"), path, **options)
            if isinstance(body, bytes):
                headers = {"content-type": "application/json", **options.pop("headers", {})}
                return await client.post(path, content=body, headers=headers, **options)
            return await client.post(path, json=body, **options)

    return asyncio.run(asking())


def predict(service: Service, body: Any, **options: Any) -> httpx.Response:
    return ask(service, "/v1/predict", body, **options)


class Server:
    """`sparsedistill serve` as a process of its own, ready when the block begins."""

    def __init__(self, model: Path, log: Path, *options: str) -> None:
        with closing(socket.socket()) as trial:
            trial.bind(("127.0.0.1", 0))
            self.port = trial.getsockname()[1]
        self.log = log
        command = [sys.executable, "-m", "flows.cli", "serve", str(model), "--name", "small"]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *options],
                cwd=ROOT,
                stdout=file,
                stderr=file,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def __enter__(self) -> Server:
        try:
            self.wait_until_ready()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def wait_until_ready(self, times: int = 1) -> None:
        yes = 0
        deadline = time.monotonic() + 50
        while yes < times:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                yes = yes + 1 if self.get("/readyz").status_code == 200 else 0
            except httpx.TransportError:
                yes = 0
            if not yes:
                time.sleep(0.1)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30, verify=False)

    def predict(self, body: Any) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.port}/v1/predict", json=body, timeout=30, verify=False
        )

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def metric(self, name: str) -> float:
        return metric(self.get("/metrics").text, name)

    def workers(self) -> list[int]:
        """The processes that answer, as they say themselves."""
        text = self.get("/metrics").text
        start = 'process_open_fds{worker="'
        return [
            int(line.removeprefix(start).partition('"')[0])
            for line in text.splitlines()
            if line.startswith(start)
        ]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def metric(text: str, name: str) -> float:
    """A number of /metrics, by the whole of its name and labels; 0 if it is not there."""
    for line in text.splitlines():
        found, _, value = line.rpartition(" ")
        if found == name:
            return float(value)
    return 0.0


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def request(body: bytes, *, close: bool = True) -> bytes:
    """A whole request for predictions as it goes over the wire."""
    return head(len(body), close=close) + body


def head(length: int, *, close: bool = True) -> bytes:
    connection = b"connection: close\r\n" if close else b""
    return (
        b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"%bcontent-length: %d\r\n\r\n" % (connection, length)
    )
