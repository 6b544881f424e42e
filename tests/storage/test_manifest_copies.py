"""A look at an object store reads no manifest twice, and believes only the one that is there."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

from helpers.faulty_s3 import FaultyS3, reached

from storage import ArtifactStore, Manifest, Recipe, local_copies
from storage.manifest_copies import DIRECTORY
from storage.names import MANIFEST

RECIPES = [Recipe("corpus", 1, {"number": number}) for number in range(8)]
_BUCKETS = count()


@pytest.fixture(scope="module")
def running() -> Iterator[FaultyS3]:
    with FaultyS3() as server:
        yield server


@pytest.fixture
def server(running, monkeypatch) -> Iterator[FaultyS3]:
    with reached(running, monkeypatch):
        yield running


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


@pytest.fixture
def answers(server, monkeypatch):
    """Have the server's answers to GET changed on their way, by a function of path and body."""
    real = server._application

    def change(how) -> None:
        def serve(environ, start):
            if environ["REQUEST_METHOD"] != "GET":
                return real(environ, start)
            told = []
            body = b"".join(real(environ, lambda *given: told.extend(given)))
            body = how(environ["PATH_INFO"], body)
            headers = [
                (name, value)
                for name, value in told[1]
                if not name.lower().startswith(("content-length", "x-amz-checksum"))
            ]
            start(told[0], [*headers, ("Content-Length", str(len(body)))])
            return [body]

        monkeypatch.setattr(server, "_application", serve)

    return change


@pytest.fixture
def rot(answers, store):
    """Have the server keep a manifest's version but not its bytes; a new one is whole."""

    def rot(recipe: Recipe) -> None:
        name = f"{recipe.kind}/{recipe.key}/{MANIFEST}"
        (was,) = store._backend.read([name])
        answers(lambda path, body: b"x" + body[1:] if body == was else body)

    return rot


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
    # Once more before it is believed.
    assert looked() == (made, [RECIPES[3].key] * 2)
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


def in_the_way(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")


def leads_away(path: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize(
    "spoil",
    [
        in_the_way,
        lambda cache: in_the_way(cache / "artifacts"),
        lambda cache: in_the_way(cache / "artifacts" / DIRECTORY),
        lambda cache: leads_away(cache / "artifacts", cache.parent / "away"),
        lambda cache: leads_away(cache / "artifacts" / DIRECTORY, cache.parent / "away"),
        lambda cache: (cache / "copies.lock").mkdir(parents=True),
    ],
    ids=["top", "artifacts", "manifests", "link", "deeper link", "lock"],
)
def test_a_cache_that_cannot_be_used_costs_requests_and_nothing_else(
    store, private_cache, spoil, looked
):
    backend, listed = store._backend, {}
    for each in RECIPES:
        # Published without a local directory to write in.
        text, listed[each.key] = empty(each)
        backend.write(f"{each.kind}/{each.key}/{MANIFEST}", text)
    if private_cache.exists():
        private_cache.rmdir()
    spoil(private_cache)
    for _ in range(2):
        assert looked() == (listed, sorted(listed))
    assert [found.ok for found in ArtifactStore(store.url).verify()] == [True] * len(RECIPES)
    assert not list(private_cache.parent.rglob("corpus-*"))


def empty(recipe: Recipe) -> tuple[bytes, str]:
    """The manifest of an artifact without files, and its digest."""
    manifest = Manifest(
        recipe.kind, recipe.key, recipe.version, recipe.config, recipe.inputs, recipe.content,
        (), {}, 0.0, "2026-01-01T00:00:00+00:00", "1.2.3",
    )  # fmt: skip
    return manifest.to_json().encode(), manifest.digest


@pytest.mark.parametrize(
    "wrong",
    [lambda body: body[:40] + bytes([body[40] ^ 1]) + body[41:], lambda body: body[:40]],
    ids=["flipped", "short"],
)
def test_a_wrong_answer_is_not_kept(made, looked, answers, store, wrong):
    first, wronged = RECIPES[3].key, []

    def once(path, body):
        if path.endswith(f"{first}/{MANIFEST}") and not wronged:
            wronged.append(path)
            return wrong(body)
        return body

    answers(once)
    assert looked() == (made, sorted([*made, first]))
    assert len(wronged) == 1
    assert looked() == (made, [])


def test_what_was_altered_but_not_its_version_is_marked_by_verify_and_made_again(
    made, looked, rot, store, make
):
    looked()
    rot(RECIPES[3])
    assert looked() == (made, [])
    assert [found.ok for found in store.verify()].count(False) == 1
    assert RECIPES[3].key not in looked()[0]
    made[RECIPES[3].key] = make(store, RECIPES[3], data="made again").digest
    assert looked() == (made, [RECIPES[3].key])
    assert looked() == (made, [])
    assert all(found.ok for found in store.verify())


def test_who_publishes_asks_the_store_and_not_a_copy(made, looked, rot, store, make):
    looked()
    rot(RECIPES[3])
    made[RECIPES[3].key] = make(store, RECIPES[3], data="made again").digest
    assert looked() == (made, [RECIPES[3].key])
    assert all(found.ok for found in store.verify())


def test_a_copy_that_says_an_artifact_is_damaged_is_not_believed(made, looked, store, answers):
    """A server that gives another manifest the same version."""
    looked()
    old = store.find(RECIPES[3]).manifest
    other = dataclasses.replace(old, directory="0" * 16)
    for entry in old.files:
        (data,) = store._backend.read([f"corpus/{old.key}/{old.directory}/{entry.name}"])
        store._backend.write(f"corpus/{old.key}/{other.directory}/{entry.name}", data)
    tag = store._backend.files(f"corpus/{old.key}")[MANIFEST].version
    store._backend.write(f"corpus/{old.key}/{MANIFEST}", other.to_json().encode())
    new = store._backend.files(f"corpus/{old.key}")[MANIFEST].version
    store._backend.discard(f"corpus/{old.key}/{old.directory}")
    assert tag != new
    answers(lambda path, body: body.replace(*(each.strip('"').encode() for each in (new, tag))))
    assert looked() == (made, [old.key])


def test_what_changes_between_the_listing_and_the_reading_is_not_kept(
    made, looked, server, store, private_cache
):
    key = RECIPES[3].key
    name = f"corpus/{key}/{MANIFEST}"
    (text,) = store._backend.read([name])
    old = Manifest.from_json(text)
    other = dataclasses.replace(old, directory="0" * 16)
    assert len(other.to_json()) == len(text)
    changed = []

    def replace(method, path):
        if method == "GET" and path.endswith(name) and not changed:
            changed.append(path)
            store._backend.write(name, other.to_json().encode())

    server.on_request = replace
    ArtifactStore(store.url).find_all(RECIPES)
    assert len(changed) == 1
    assert {path.name for path in copies(private_cache)} == {f"corpus-{k}" for k in {*made} - {key}}
    store._backend.write(name, text)
    assert looked() == (made, [key])


def test_under_a_weak_version_nothing_is_kept(made, looked, answers, private_cache):
    answers(lambda path, body: body.replace(b"<ETag>", b"<ETag>W/"))
    for _ in range(2):
        assert looked() == (made, sorted(made))
    assert copies(private_cache) == []


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
