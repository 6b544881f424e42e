"""Records on an S3 server (moto, in this process)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

import s3fs
from moto.server import ThreadedMotoServer

from storage import ArtifactStore, StorageError


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, tmp_path: Path) -> ArtifactStore:
    options: dict[str, Any] = {
        "key": "k",
        "secret": "s",
        "client_kwargs": {"endpoint_url": endpoint},
    }
    bucket = tmp_path.name.replace("_", "-").lower()[:50].strip("-")
    s3fs.S3FileSystem(**options).mkdir(bucket)
    return ArtifactStore(f"s3://{bucket}/runs", storage_options=options)


def test_records_come_back_in_order(store: ArtifactStore):
    assert store.records("log") == []
    assert store.record_names() == []
    added = [store.add_record("log", {"n": number}, after=number) for number in range(3)]
    assert store.add_record("log", {"n": "late"}, after=1) is None
    assert store.records("log") == added
    assert store.record_names() == ["log"]
    assert store.artifacts() == []


def test_of_writers_at_once_one_gets_each_number(store: ArtifactStore):
    def add(who: int) -> int:
        return sum(
            store.add_record("log", {"who": who}, after=after) is not None for after in range(4)
        )

    with ThreadPoolExecutor(6) as threads:
        won = sum(threads.map(add, range(6)))
    assert won == len(store.records("log")) == 4


def test_a_truncated_record_is_named(store: ArtifactStore):
    store.add_record("log", {"n": 1}, after=0)
    fs, path = s3fs.S3FileSystem(**store._options), f"{store.url}/.records/log/00000001.json"
    fs.pipe_file(path, fs.cat_file(path)[:-10])
    with pytest.raises(StorageError, match=r"\.records/log/00000001\.json is damaged"):
        store.records("log")
