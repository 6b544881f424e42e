"""The store and the readers against an S3 server (moto, in this process)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

import s3fs
from moto.server import ThreadedMotoServer

from storage import (
    ArtifactStore,
    DamagedArtifactError,
    Recipe,
    Rules,
    SourceError,
    StorageError,
    expand_sources,
    leases,
)

RECIPE = Recipe("corpus", 1, {"rows": 100})
REPOSITORY = Path(__file__).parents[2]

KILLED = """
import os, signal, sys
from storage import ArtifactStore, Recipe
options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": sys.argv[1]}}
store = ArtifactStore(sys.argv[2], storage_options=options)
with store.create(Recipe("corpus", 1, {"rows": 100})) as writer:
    writer.path("data.txt").write_text("half")
    # The file is put next, then the manifest.
    store._backend._fs.pipe_file = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def options(endpoint):
    return {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": endpoint}}


@pytest.fixture
def url(options, tmp_path):
    bucket = tmp_path.name.replace("_", "-").lower()[:50].strip("-")
    s3fs.S3FileSystem(**options).mkdir(bucket)
    return f"s3://{bucket}/runs"


@pytest.fixture
def store(url, options):
    return ArtifactStore(url, storage_options=options)


def test_made_found_read_verified_and_removed(store, make, url, options):
    artifact = make(store, RECIPE, a="one", b="two")
    again = ArtifactStore(url, storage_options=options).find(RECIPE)
    assert again.manifest == artifact.manifest
    assert again.path("b.txt").read_text() == "two"
    assert [v.ok for v in store.verify()] == [True]
    downstream = make(store, Recipe("ngrams", 1, {}, {"corpus": (again.as_input(),)}))
    assert store.lineage(downstream).children["corpus"][0].manifest == artifact.manifest
    assert [m.kind for m in store.artifacts()] == ["corpus", "ngrams"]
    store.remove("corpus", RECIPE.key)
    assert store.find(RECIPE) is None
    assert store._backend._fs.find(f"{url}/corpus") == []


def test_what_another_process_made_meanwhile_is_seen(store, make, url, options):
    assert store.find(RECIPE) is None
    make(ArtifactStore(url, storage_options=options), RECIPE)
    assert store.find(RECIPE)


def test_an_interrupted_upload_is_never_believed(store, make, endpoint, url):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, endpoint, url],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = store._backend._fs.find(f"{url}/corpus")
    assert left.endswith("/data.txt")
    assert store.find(RECIPE) is None
    assert store.artifacts() == []
    assert make(store, RECIPE, data="whole").path("data.txt").read_text() == "whole"
    assert not list(store._backend.temporary.iterdir())


def test_of_two_makers_with_other_bytes_one_wins_whole(store):
    with store.create(RECIPE) as slow:
        for name in "ab":
            slow.path(name).write_text(f"slow {name}")
        with store.create(RECIPE) as fast:
            for name in "ab":
                fast.path(name).write_text(f"fast {name}")
    assert slow.artifact.digest == fast.artifact.digest
    assert [slow.artifact.path(n).read_text() for n in "ab"] == ["fast a", "fast b"]
    assert [v.ok for v in store.verify()] == [True]


def test_the_second_of_two_that_publish_at_once_uses_the_first_ones(store, make, monkeypatch):
    # Neither saw the other's manifest before it put its own files: only the server can decide.
    backend = store._backend
    publish = type(backend).publish

    def overtaken(directory, manifest):
        monkeypatch.undo()
        make(store, RECIPE, data="the winner's")
        return publish(backend, directory, manifest)

    monkeypatch.setattr(backend, "publish", overtaken)
    assert make(store, RECIPE, data="the loser's").path("data.txt").read_text() == "the winner's"
    assert [v.ok for v in store.verify()] == [True]


def test_truncated_objects_are_not_found_and_altered_ones_not_downloaded(store, make, caplog):
    artifact = make(store, RECIPE, data="0123456789")
    path = f"corpus/{RECIPE.key}/{artifact.manifest.directory}/data.txt"
    store._backend.write(path, b"0123456780")
    with pytest.raises(DamagedArtifactError, match="checksum"):
        artifact.path("data.txt")
    assert store.find(RECIPE) is None
    assert "was found damaged" in caplog.text
    assert [v.ok for v in store.verify()] == [False]
    artifact = make(store, RECIPE, data="0123456789")
    assert [v.ok for v in store.verify()] == [True]
    store._backend.write(path, b"0123")
    assert store.find(RECIPE) is None
    assert "data.txt: it has 4 bytes instead of 10" in caplog.text
    assert make(store, RECIPE, data="0123456789").path("data.txt").exists()


def test_find_all_lists_once_whatever_the_number(store, make, monkeypatch):
    recipes = [Recipe("corpus", 1, {"i": i}) for i in range(8)]
    for recipe in recipes[:5]:
        make(store, recipe)
    fs = store._backend._fs
    find = fs.find
    calls = []
    monkeypatch.setattr(fs, "find", lambda *a, **k: calls.append(a) or find(*a, **k))
    assert [a is not None for a in store.find_all(recipes)] == [True] * 5 + [False] * 3
    assert len(calls) == 1


def test_a_lease_lives_on_the_server_s_clock_and_outlasts_a_failure(store):
    backend, name = store._backend, ("corpus", RECIPE.key)
    with suppress(KeyboardInterrupt), store.lease("weekly") as lease:
        lease.use([name])
        assert [claim.live for claim in lease.claims()] == [True]
        raise KeyboardInterrupt
    (claim,) = leases.read_claims(backend)
    assert not claim.live
    assert leases.read_names(backend, [claim]) == {claim.id: {name}}
    with store.lease("weekly") as lease:
        lease.use([name])
    assert backend.files(leases.DIRECTORY) == {}


def test_garbage_goes_from_a_bucket_and_what_is_needed_stays(store, make, url):
    model = make(store, Recipe("model", 1, {}, {"data": (make(store, RECIPE).as_input(),)}))
    alone = make(store, Recipe("corpus", 1, {"alone": True}))
    store._backend.write(f"corpus/{'0' * 32}/0123456789abcdef/data.txt", b"of a killed upload")
    rules = Rules(roots=lambda manifests: {("model", model.key): "a model"}, owns=lambda _: ())
    found = store.collect(rules, delete=False, older_than=0)
    assert [one.name for one in found.freed if one.what == "artifact"] == [alone.key]
    assert store.collect(rules, delete=True, older_than=0).kept == found.kept
    assert [(m.kind, m.key) for m in store.artifacts()] == [
        ("corpus", RECIPE.key), ("model", model.key),
    ]  # fmt: skip
    assert len(store._backend._fs.find(url)) == 5
    assert store.collect(rules, delete=True, older_than=0).freed == ()


def test_many_artifacts_are_opened_by_one_listing(store, make, monkeypatch):
    made = [make(store, Recipe("corpus", 1, {"i": i})) for i in range(5)]
    fs = store._backend._fs
    find, calls = fs.find, []
    monkeypatch.setattr(fs, "find", lambda *a, **k: calls.append(a) or find(*a, **k))
    opened = store.get_all([("corpus", one.key) for one in reversed(made)])
    assert [one.manifest for one in opened] == [one.manifest for one in reversed(made)]
    assert len(calls) == 1


def test_a_missing_bucket_is_an_error_that_names_the_store(options):
    with pytest.raises(StorageError, match="s3://no-such-bucket/runs"):
        ArtifactStore("s3://no-such-bucket/runs", storage_options=options)


def test_texts_are_read_from_s3(url, options, read):
    fs = s3fs.S3FileSystem(**options)
    for name in ("b.txt", "a.txt", "notes.md"):
        fs.pipe_file(f"{url}/raw/{name}", f"first of {name}\nsecond".encode())
    for pattern in (f"{url}/raw/*", f"{url}/raw", f"{url}/raw/"):
        found = expand_sources([pattern], storage_options=options)
        assert [s.url for s in found] == [f"{url}/raw/a.txt", f"{url}/raw/b.txt"]
    (one,) = expand_sources(["raw/a.txt"], base=url, storage_options=options)
    assert (one.name, one.bytes) == ("raw/a.txt", 21)
    assert read(one.url, storage_options=options).texts == ["first of a.txt", "second"]
    before = one.fingerprint
    assert expand_sources([one.url], storage_options=options)[0].fingerprint == before
    fs.pipe_file(one.url, b"first of b.txt\nsecond")
    assert expand_sources([one.url], storage_options=options)[0].fingerprint != before
    with pytest.raises(SourceError, match=r"no such file.*a\.txt"):
        expand_sources([f"{url}/raw/aa.txt"], storage_options=options)
    with pytest.raises(SourceError, match="does not exist"):
        read(f"{url}/raw/aa.txt", storage_options=options)
