"""What a served model holds out: requests a second, delays, errors, memory.

A real `sparsedistill serve` on loopback, asked by this process over raw sockets with keep-alive;
every answer is compared with the one that the classifier gives here, byte for byte.

    python benchmarks/service_load.py --json service-load.json
    python benchmarks/service_load.py --model student/ --requests 200000 --workers 1,2

Server and generator share the machine's cores. `generator` is the share of one core that the
generator took: near 100 % it, not the server, was the limit. `cores` is what the server's
processes took, and `per core s` are requests for each second of that, which is the same on a busy
machine. Memory is that of all of the server's processes, proportional (PSS: what they share
counts once), after a warm-up of 2,000 requests and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from sparsedistill.classifier import Classifier
from sparsedistill.folded import FoldedModel, convert_table
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary
from tasks.environment import environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Different requests of a kind; they are sent in turn.
_KINDS = 64
_WARM_UP = 2000
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_WORDS = 20_000
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Load:
    """What one kind of requests met.

    Attributes:
        workers: Processes of the server.
        batch: Texts in a request.
        requests: Sent.
        errors: Answers that were not what they should be, or did not come.
        seconds: For all of them.
        delays: Seconds of each.
        generator: Processor seconds of this process.
        server: Processor seconds of the server's processes.
        before: Megabytes of the server before.
        after: And after.
    """

    workers: int
    batch: int
    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    generator: float = 0.0
    server: float = 0.0
    before: float = 0.0
    after: float = 0.0
    delays: list[float] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        """The figures of the table."""
        delays = np.array(self.delays) * 1000
        return {
            "workers": self.workers,
            "batch": self.batch,
            "requests": self.requests,
            "errors": self.errors,
            "requests/s": self.requests / self.seconds,
            "texts/s": self.requests * self.batch / self.seconds,
            "p50 ms": float(np.percentile(delays, 50)),
            "p99 ms": float(np.percentile(delays, 99)),
            "generator": self.generator / self.seconds,
            "cores": self.server / self.seconds,
            "per core s": self.requests / self.server,
            "MB before": self.before,
            "MB after": self.after,
        }


class Client(asyncio.Protocol):
    """One connection: sends a request, waits for its answer, sends the next."""

    def __init__(self, load: Load, exchanges: Sequence[tuple[bytes, bytes]], first: int) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.left = 0
        self._load, self._exchanges, self._next = load, exchanges, first
        self._answer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def start(self, requests: int) -> None:
        """Send so many."""
        self.left = requests
        self._send()

    def _send(self) -> None:
        self._answer = b""
        self._sent = time.perf_counter()
        self._transport.write(self._exchanges[self._next % len(self._exchanges)][0])

    def data_received(self, data: bytes) -> None:
        """Take an answer in; when it is whole, compare it and go on."""
        self._answer += data
        head, gap, body = self._answer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if gap else None
        if length is None or len(body) < int(length[1]):
            return
        self._load.delays.append(time.perf_counter() - self._sent)
        self._load.requests += 1
        expected = self._exchanges[self._next % len(self._exchanges)][1]
        self._load.errors += not (head.startswith(b"HTTP/1.1 200 ") and body == expected)
        self._next += 1
        self.left -= 1
        if self.left:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        """Every request that has no answer is an error."""
        self._load.errors += self.left
        if not self.done.done():
            self.done.set_result(None)


def main() -> int:
    """Start servers, load them, print what they did."""
    parser = argparse.ArgumentParser(description="Load a served model.")
    parser.add_argument("--model", type=Path, help="a packaged model; made up if not given")
    parser.add_argument("--rows", type=int, default=200_000, help="n-grams of the made-up one")
    parser.add_argument(
        "--requests", type=int, default=200_000, help="of one text; batches: a 16th"
    )
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--workers", default="1,2", metavar="N,N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    loads: list[Load] = []
    with tempfile.TemporaryDirectory(prefix="sparsedistill-") as scratch:
        model = options.model or make_model(Path(scratch) / "model", options.rows)
        for workers in map(int, options.workers.split(",")):
            with served(model, workers) as (port, process):
                for batch in (1, 64):
                    requests = options.requests if batch == 1 else options.requests // 16
                    exchanges = make_exchanges(Classifier.load(model), model.name, batch)
                    loads.append(
                        measure(port, process, workers, exchanges, batch, requests, options)
                    )
                check_counted(port, [load for load in loads if load.workers == workers])
    show(loads)
    if options.json:
        rows = [load.row() for load in loads]
        about = {"connections": options.connections, "environment": environment(1)}
        options.json.write_text(json.dumps({**about, "loads": rows}, indent=2) + "\n")
    return int(any(load.errors for load in loads))


def make_model(directory: Path, rows: int) -> Path:
    """A model of made-up words and pairs of them: the size of a real one, and as fast."""
    random = np.random.default_rng(0)
    words = [f"word{i}" for i in range(_WORDS)]
    pairs = {f"word{a} word{b}" for a, b in random.integers(0, 2000, (rows, 2)).tolist()}
    vocabulary = Vocabulary.from_ngrams(NgramSpec(), [*words, *sorted(pairs)][:rows])
    table = random.standard_normal((len(vocabulary), 256)).astype(np.float32)
    numbers, scale = convert_table(table, "int8")
    folded = FoldedModel(
        labels=("negative", "positive"),
        spec=vocabulary.spec,
        index=vocabulary.index,
        max_ngrams=2048,
        table=numbers,
        scale=scale,
        hidden_bias=np.zeros(256, np.float32),
        head_weight=(random.standard_normal((2, 256)) / 16).astype(np.float32),
        head_bias=np.zeros(2, np.float32),
    )
    Classifier.from_folded(folded, vocabulary=vocabulary).save_pretrained(directory)
    return directory


def make_exchanges(classifier: Classifier, name: str, batch: int) -> list[tuple[bytes, bytes]]:
    """Requests, and the bodies of their answers. Texts are of 12 words, a fifth of them unknown."""
    random = np.random.default_rng(batch)
    exchanges = []
    for _ in range(_KINDS):
        numbers = random.integers(0, 2500, (batch, 12)).tolist()
        texts = [" ".join(f"word{n}" if n < 2000 else f"other{n}" for n in row) for row in numbers]
        body = json.dumps({"text": texts[0]} if batch == 1 else {"texts": texts}).encode()
        answers = classifier.answers(texts)
        sure = answers.probabilities.max(axis=1).astype(np.float64).round(6).tolist()
        predictions = [
            {"label": label, "probability": probability}
            for label, probability in zip(answers.labels, sure, strict=True)
        ]
        shown = {"prediction": predictions[0]} if batch == 1 else {"predictions": predictions}
        head = (
            b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        answer = json.dumps({"model": name, **shown}, separators=(",", ":"), ensure_ascii=False)
        exchanges.append((head + body, answer.encode()))
    return exchanges


@contextmanager
def served(model: Path, workers: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server that is ready; in the end it must stop with status 0."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    command = [sys.executable, "-m", "flows.cli", "serve", str(model), "--name", model.name]
    command += ["--port", str(port), "--workers", str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_ready(port, process, workers)
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        if status:
            raise SystemExit(f"the server ended with status {status}, not 0")


def wait_until_ready(port: int, process: subprocess.Popen[bytes], workers: int) -> None:
    """Wait for as many yeses as make it likely that every worker gave one."""
    yes = 0
    while yes < 8 * workers:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with status {process.returncode}")
        with suppress(OSError, urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10).close()
            yes += 1
            continue
        yes = 0
        time.sleep(0.2)


def measure(
    port: int,
    process: subprocess.Popen[bytes],
    workers: int,
    exchanges: list[tuple[bytes, bytes]],
    batch: int,
    requests: int,
    options: argparse.Namespace,
) -> Load:
    """Warm up, then send all requests, each connection one after another."""
    warm_up = Load(workers, batch)
    asyncio.run(send(warm_up, port, exchanges, _WARM_UP, options.connections))
    load = Load(workers, batch)
    load.before, server = megabytes(process), processor_seconds(process)
    generator, start = time.process_time(), time.perf_counter()
    asyncio.run(send(load, port, exchanges, requests, options.connections))
    load.seconds = time.perf_counter() - start
    load.generator = time.process_time() - generator
    load.server = processor_seconds(process) - server
    load.after = megabytes(process)
    load.errors += warm_up.errors
    return load


async def send(
    load: Load, port: int, exchanges: list[tuple[bytes, bytes]], requests: int, connections: int
) -> None:
    """Send requests over some connections at once."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for first in range(connections):
        make = partial(Client, load, exchanges, first)
        clients.append((await loop.create_connection(make, "127.0.0.1", port))[1])
    for client in clients:
        client.start(requests // connections)
    await asyncio.gather(*(client.done for client in clients))


def check_counted(port: int, loads: list[Load]) -> None:
    """Compare what the service has counted, over all workers, with what was sent."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    counted = next(
        float(line.rpartition(" ")[2]) for line in lines if line.startswith("sparsedistill_texts_t")
    )
    warm = sum(_WARM_UP * load.batch for load in loads)
    sent = warm + sum(load.requests * load.batch for load in loads)
    if counted != sent:
        raise SystemExit(f"/metrics counts {counted:.0f} texts, {sent} were sent")


def processes(process: subprocess.Popen[bytes]) -> list[Path]:
    """The server's processes in /proc: the first, and its children."""
    found = [Path(f"/proc/{process.pid}")]
    children = found[0] / f"task/{process.pid}/children"
    return found + [Path(f"/proc/{child}") for child in children.read_text().split()]


def megabytes(process: subprocess.Popen[bytes]) -> float:
    """Memory of the server; what its processes share counts once."""
    kilobytes = 0
    for one in processes(process):
        rollup = (one / "smaps_rollup").read_text()
        kilobytes += int(re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE)[1])  # type: ignore[index]
    return kilobytes / 1024


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    """Of all of the server's processes."""
    ticks = 0
    for one in processes(process):
        fields = (one / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def show(loads: list[Load]) -> None:
    """Print the table."""
    table = Table(title="sparsedistill serve on loopback")
    rows = [load.row() for load in loads]
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            *(
                f"{value:.0%}"
                if name == "generator"
                else f"{value:,.2f}"
                if isinstance(value, float) and value < 100
                else f"{value:,.0f}"
                for name, value in row.items()
            )
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    sys.exit(main())
