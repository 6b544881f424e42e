"""An S3 server that fails now and then costs time and nothing else; secrets by environment.

The retries of botocore are off here, so that those of the store are what is tested.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

import s3fs
from helpers.faulty_s3 import FaultyS3, reached

from storage import ArtifactStore, Recipe, Rules, StorageError, StoreUnreachableError, retrying
from storage.retrying import TRIES, may_pass

REPOSITORY = Path(__file__).parents[2]
RECIPE = Recipe("corpus", 1, {"rows": 100})
FAULTS = ("internal", "unavailable", "slow_down", "reset", "lost_answer", "truncated")
_BUCKETS = count()


@pytest.fixture(scope="module")
def running() -> Iterator[FaultyS3]:
    with FaultyS3() as server:
        yield server


@pytest.fixture
def server(running, monkeypatch) -> Iterator[FaultyS3]:
    monkeypatch.setattr(retrying, "FIRST_WAIT_SECONDS", 0.01)
    with reached(running, monkeypatch, AWS_MAX_ATTEMPTS="1"):
        yield running


@pytest.fixture
def url(server) -> str:
    return server.make_bucket(f"faults-{os.getpid()}-{next(_BUCKETS)}")


class Failing:
    """Has the requests that a test names fail, as often as it says."""

    def __init__(self, server: FaultyS3, fault: str, method: str, part: str, times: int) -> None:
        self.left = times
        server.faults = (fault,)

        def look(made: str, path: str) -> None:
            fails = made == method and part in path and self.left > 0
            self.left -= fails
            server.rate = 1.0 if fails else 0.0

        server.on_request = look


def test_a_url_and_the_environment_are_all_it_takes_also_in_another_process(url, make):
    make(ArtifactStore(url), RECIPE, data="from here")
    script = (
        "import sys; from storage import ArtifactStore, Recipe; "
        "found = ArtifactStore(sys.argv[1]).find(Recipe('corpus', 1, {'rows': 100})); "
        "print(found.path('data.txt').read_text())"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, url],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout == "from here\n"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_download_that_fails_in_the_middle_is_tried_again(server, url, make, fault):
    store = ArtifactStore(url)
    artifact = make(store, RECIPE, data="x" * 100_000)
    failing = Failing(server, fault, "GET", "data.txt", TRIES - 1)
    assert artifact.path("data.txt").read_text() == "x" * 100_000
    assert failing.left < TRIES - 1
    assert store.find(RECIPE)


@pytest.mark.parametrize(
    "fault", ["reset", pytest.param("truncated", marks=pytest.mark.slow), "internal"]
)
def test_a_download_that_never_succeeds_is_no_damage(server, url, make, fault, private_cache):
    store = ArtifactStore(url)
    artifact = make(store, RECIPE, data="x" * 1000)
    failing = Failing(server, fault, "GET", "data.txt", 10_000)
    with pytest.raises(StoreUnreachableError, match=r"the download of .*data\.txt failed"):
        artifact.path("data.txt")
    failing.left = 0
    assert store.find(RECIPE)
    assert not list(private_cache.rglob("data.txt"))
    assert not list(private_cache.rglob("copy"))


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "truncated"])
def test_an_upload_that_fails_is_tried_again(server, url, make, fault):
    store = ArtifactStore(url)
    Failing(server, fault, "PUT", "data.txt", TRIES - 1)
    assert make(store, RECIPE, data="x" * 1000).path("data.txt").stat().st_size == 1000


@pytest.mark.parametrize("fault", ["reset", "unavailable"])
def test_an_upload_that_never_succeeds_publishes_nothing(server, url, make, fault):
    store = ArtifactStore(url)
    failing = Failing(server, fault, "PUT", "data.txt", 10_000)
    with pytest.raises(StoreUnreachableError, match=r"the upload of .*data\.txt failed"):
        make(store, RECIPE)
    failing.left = 0
    assert store.find(RECIPE) is None
    assert store.artifacts() == []
    assert not list(store._backend.temporary.iterdir())
    assert make(store, RECIPE)


@pytest.mark.parametrize("times", [1, 10])
def test_a_file_that_arrives_cut_is_seen_before_the_manifest_is_written(
    url, make, monkeypatch, times
):
    store, put, cut = ArtifactStore(url), [], b"half"

    def lose(local, remote):
        put.append(remote)
        store._backend._fs.pipe_file(remote, cut if len(put) <= times else b"whole one")

    monkeypatch.setattr(store._backend._fs, "put_file", lose)
    if times == 1:
        assert make(store, RECIPE, data="whole one").path("data.txt").read_text() == "whole one"
        return
    with pytest.raises(StorageError, match="4 bytes instead of 9; nothing was published"):
        make(store, RECIPE, data="whole one")
    assert store.find(RECIPE) is None


def test_who_never_hears_that_it_has_published_uses_what_it_published(server, url, make):
    store = ArtifactStore(url)
    Failing(server, "lost_answer", "PUT", "manifest.json", 1)
    assert make(store, RECIPE, data="mine").path("data.txt").read_text() == "mine"
    assert [v.ok for v in store.verify()] == [True]


def test_a_store_works_while_a_third_of_all_requests_fail(server, url, make):
    store = ArtifactStore(url)
    before = server.failed.total()
    server.faults, server.rate = FAULTS[:-1], 0.33
    made = [make(store, Recipe("corpus", 1, {"i": i}), data=str(i)) for i in range(8)]
    with store.lease("weekly") as lease:
        lease.use([(one.kind, one.key) for one in made])
        found = store.get_all([(one.kind, one.key) for one in made])
    assert [one.path("data.txt").read_text() for one in found] == [str(i) for i in range(8)]
    server.rate = 0.0
    assert all(found.ok for found in store.verify())
    assert server.failed.total() - before > 10


def test_looking_for_two_hundred_artifacts_is_one_listing_and_one_request_each(server, url, make):
    store = ArtifactStore(url)
    recipes = [Recipe("corpus", 1, {"i": i}) for i in range(200)]
    for recipe in recipes[:20]:
        make(store, recipe)
    before = server.requests.copy()
    assert sum(one is not None for one in store.find_all(recipes)) == 20
    assert server.requests - before == {"GET": 1 + 20}


def test_a_server_that_is_not_there_is_told_with_the_store_s_name(monkeypatch, server, url):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=f"{url}.*the reading of store.json failed") as caught:
        ArtifactStore(url)
    assert "Check the network and the credentials" in str(caught.value)
    assert server.environment["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


def test_to_verify_a_store_that_cannot_be_asked_is_an_error_and_marks_nothing(server, url, make):
    store = ArtifactStore(url)
    make(store, RECIPE, data="x" * 1000)
    for fault in ("reset", "internal", "truncated"):
        failing = Failing(server, fault, "GET", "data.txt", 10_000)
        with pytest.raises(StoreUnreachableError, match=r"the reading of .*data\.txt failed"):
            list(store.verify())
        failing.left = 0
        assert store.find(RECIPE)


def test_verify_reads_on_after_a_request_that_failed(server, url, make):
    store = ArtifactStore(url)
    make(store, RECIPE, data="x" * 1000)
    failing = Failing(server, "reset", "GET", "data.txt", TRIES - 1)
    assert [found.ok for found in store.verify()] == [True]
    assert failing.left == 0


def test_garbage_goes_with_two_requests_an_artifact(server, url, make):
    store = ArtifactStore(url)
    for number in range(10):
        make(store, Recipe("corpus", 1, {"i": number}), **{f"file_{i}": "x" for i in range(9)})
    before = server.requests.copy()
    rules = Rules(roots=lambda _: {}, owns=lambda _: ())
    assert len(store.collect(rules, delete=True, older_than=-10).freed) == 10
    # 10 manifests and 6 listings; the claim comes and goes.
    assert server.requests - before == {"GET": 16, "DELETE": 10 + 1, "POST": 10, "PUT": 1}
    assert store._backend._fs.find(f"{url}/corpus") == []


def test_names_that_look_like_patterns_go_too_and_nothing_else_does(url):
    backend = ArtifactStore(url)._backend
    for name in ("a[1].txt", "a1.txt", "a*.txt", "b.txt"):
        backend.write(f"corpus/{'0' * 32}/{name}", b"x")
    backend.remove("corpus", "0" * 32, ["a[1].txt", "a*.txt", "b.txt", "gone.txt"])
    assert list(backend.files(f"corpus/{'0' * 32}")) == ["a1.txt"]


def test_names_that_would_leave_the_store_are_no_artifacts(server, url, make):
    store = ArtifactStore(url)
    make(store, RECIPE)
    fs = store._backend._fs
    for name in (
        "corpus/../../x",
        f"corpus/{'0' * 32}/../../../x",
        "corpus//x",
        "..",
        "Corpus/x/y",
    ):
        fs.pipe_file(f"{url}/{name}", b"hostile")
    assert [m.key for m in store.artifacts()] == [RECIPE.key]
    assert store._backend.kinds() == ["corpus"]
    assert len(list(store.verify())) == 1


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(104, "reset"), True),
        (TimeoutError("too slow"), True),
        (OSError(121, "Internal Server Error"), True),
        (PermissionError("Forbidden"), False),
        (FileNotFoundError("no"), False),
        (OSError(28, "No space left on device"), False),
        (ValueError("a bug"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error, passes):
    assert may_pass(error) is passes


def test_missing_credentials_are_told_at_once(monkeypatch, server, url, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    tries = []
    monkeypatch.setattr(retrying.time, "sleep", tries.append)
    with pytest.raises(StorageError, match="credentials"):
        ArtifactStore(url)
    assert tries == []
