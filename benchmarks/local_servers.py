"""Servers of a benchmark's own, for `orchestration.py`: Prefect with its database, and S3."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def server(home: Path) -> Iterator[Path]:
    """A Prefect server of this run's own; gives its database."""
    os.environ.update(
        PREFECT_HOME=str(home),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
        PREFECT_LOGGING_LEVEL="WARNING",
        OMP_WAIT_POLICY="PASSIVE",
    )
    port = free_port()
    address = f"http://127.0.0.1:{port}/api"
    program = Path(sys.executable).with_name("prefect")
    command = [program, "server", "start", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"{address}/health")
        os.environ["PREFECT_API_URL"] = address
        yield home / "prefect.db"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def s3_server(log: Path) -> Iterator[None]:
    """An S3 server that logs its requests."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        wait_for(f"http://127.0.0.1:{port}/moto-api/")
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
            AWS_ACCESS_KEY_ID="benchmark",
            AWS_SECRET_ACCESS_KEY="benchmark",
            AWS_DEFAULT_REGION="us-east-1",
        )
        yield
    finally:
        process.terminate()
        process.wait()


def requests(log: Path) -> Counter[str]:
    """How many requests the S3 server has had, by what they ask for."""
    found: Counter[str] = Counter()
    for method, path in re.findall(r'"([A-Z]+) (\S+) HTTP', log.read_text("utf-8")):
        found["LIST" if "list-type=2" in path else method] += 1
    return found


def wait_for(address: str) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"nothing answers at {address}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def size(database: Path) -> int:
    """Bytes of a SQLite database, those still in its log among them."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page)


def settled(database: Path) -> int:
    """The size once the server has written down all that it was told."""
    last, same = size(database), 0
    while same < 6:
        time.sleep(0.5)
        now = size(database)
        same = same + 1 if now == last else 0
        last = now
    return last
