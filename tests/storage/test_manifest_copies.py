"""A look at an object store reads no manifest twice, and believes only the one that is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

import s3fs
from helpers.faulty_s3 import FaultyS3

from storage import ArtifactStore, Recipe, local_copies
from storage.manifest_copies import DIRECTORY
from storage.names import MANIFEST

RECIPES = [Recipe("corpus", 1, {"number": number}) for number in range(20)]
_BUCKETS = count()


@pytest.fixture(scope="module")
def running() -> Iterator[FaultyS3]:
    with FaultyS3() as server:
        yield server


@pytest.fixture
def server(running, monkeypatch) -> Iterator[FaultyS3]:
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    # Clients that were made for another server are kept by fsspec.
    s3fs.S3FileSystem.clear_instance_cache()
    running.on_request = lambda method, path: None
    yield running
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def store(server) -> ArtifactStore:
    return ArtifactStore(server.make_bucket(f"manifests-{os.getpid()}-{next(_BUCKETS)}"))


@pytest.fixture
def made(store, make) -> dict[str, str]:
    """Digests of what is in the store, by key."""
    return {each.key: make(store, each, data=str(each.config)).digest for each in RECIPES}


@pytest.fixture
def looked(server, store):
    """Look as another process would; returns what was found, and which manifests were read."""

    def look() -> tuple[dict[str, str], list[str]]:
        read: list[str] = []
        server.on_request = lambda method, path: (
            read.append(path.split("/")[-2])
            if method == "GET" and path.endswith(MANIFEST)
            else None
        )
        found = ArtifactStore(store.url).find_all(RECIPES)
        server.on_request = lambda method, path: None
        return {one.key: one.digest for one in found if one is not None}, sorted(read)

    return look


def copies(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file() and DIRECTORY in path.parts)


def test_the_first_look_reads_each_manifest_and_the_next_none(made, looked, private_cache):
    assert looked() == (made, sorted(made))
    assert looked() == (made, [])
    assert len(copies(private_cache)) == len(RECIPES)


def test_what_was_made_again_is_read_again(made, looked, store, make):
    looked()
    changed = RECIPES[3]
    store.remove(changed.kind, changed.key)
    made[changed.key] = make(store, changed, data="other bytes").digest
    assert looked() == (made, [changed.key])


def test_what_is_gone_is_not_found_by_its_copy(made, looked, store):
    looked()
    gone = RECIPES[3]
    store.remove(gone.kind, gone.key)
    del made[gone.key]
    assert looked() == (made, [])


def test_an_altered_manifest_is_found_though_there_is_a_copy(made, looked, store):
    looked()
    name = f"corpus/{RECIPES[3].key}/{MANIFEST}"
    backend = store._backend
    backend.write(name, b"".join(backend.blocks(name)).replace(b"corpus", b"corpsu"))
    del made[RECIPES[3].key]
    assert looked() == (made, [RECIPES[3].key])
    assert [found.ok for found in store.verify()].count(False) == 1


@pytest.mark.parametrize("damage", [lambda old: old[:-9], lambda old: b"", lambda old: b"x" + old])
def test_a_damaged_copy_is_none(made, looked, private_cache, damage):
    looked()
    for path in copies(private_cache)[:2]:
        path.write_bytes(damage(path.read_bytes()))
    found, read = looked()
    assert (found, len(read)) == (made, 2)
    assert looked() == (made, [])


def test_a_copy_of_another_artifact_is_none(made, looked, private_cache):
    looked()
    one, other = copies(private_cache)[:2]
    one.write_bytes(other.read_bytes())
    found, read = looked()
    assert (found, len(read)) == (made, 1)


def test_copies_go_when_the_limit_asks_for_room(made, looked, private_cache, store, monkeypatch):
    looked()
    for path in copies(private_cache):
        os.utime(path, (0, 0))
    monkeypatch.setenv(local_copies.SIZE_VARIABLE, "1KB")
    ArtifactStore(store.url).find(RECIPES[0]).path("data.txt")
    assert [path.name for path in copies(private_cache)] == [f"corpus-{RECIPES[0].key}"]
    assert looked()[0] == made


def test_a_cache_that_cannot_be_written_costs_requests_and_nothing_else(
    made, looked, private_cache
):
    (private_cache / "artifacts").mkdir(parents=True)
    (private_cache / "artifacts" / DIRECTORY).write_text("in the way")
    assert looked() == (made, sorted(made))
    assert looked() == (made, sorted(made))


def test_stores_of_the_same_keys_do_not_answer_for_each_other(made, looked, server, make):
    looked()
    other = ArtifactStore(server.make_bucket(f"manifests-{os.getpid()}-{next(_BUCKETS)}"))
    changed = make(other, RECIPES[0], data="of another store")
    assert other.find(RECIPES[0]).digest == changed.digest != made[RECIPES[0].key]
    assert looked() == (made, [])


def test_without_a_version_nothing_is_kept(make, private_cache):
    store = ArtifactStore(f"memory://no-version-{os.getpid()}/runs")
    make(store, RECIPES[0])
    assert store.find(RECIPES[0])
    assert copies(private_cache) == []
