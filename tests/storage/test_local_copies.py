"""The cache of local copies keeps to its limit, the oldest go first, what is in use is spared."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage import ArtifactStore, Recipe, StorageError
from storage.local_copies import SPARED_SECONDS, cache_size

REPOSITORY = Path(__file__).parents[2]
SIZE = 1000


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setenv("SPARSEDISTILL_CACHE_SIZE", "5KB")


@pytest.fixture
def store(request):
    return ArtifactStore(f"memory://{request.node.name}/runs")


def make(store: ArtifactStore, number: int, size: int = SIZE):
    with store.create(Recipe("data", 1, {"n": number})) as writer:
        writer.path("deep/data.bin").write_bytes(os.urandom(size))
    return writer.artifact


def copies(cache: Path) -> set[Path]:
    return {path for path in (cache / "artifacts").rglob("*") if path.is_file()}


def last_used(path: Path, seconds_ago: float) -> None:
    now = time.time()
    os.utime(path, (now - seconds_ago, path.stat().st_mtime))


def test_the_least_recently_used_goes_first(store, private_cache):
    paths = [make(store, number).path("deep/data.bin") for number in range(5)]
    for age, path in zip((9, 7, 8, 6, 5), paths, strict=True):
        last_used(path, age * SPARED_SECONDS)
    new = make(store, 9).path("deep/data.bin")
    assert copies(private_cache) == {paths[1], paths[3], paths[4], new}
    assert not paths[0].parents[1].exists()


def test_to_be_asked_for_is_to_be_used(store, private_cache):
    made = [make(store, number) for number in range(5)]
    paths = [one.path("deep/data.bin") for one in made]
    for path in paths:
        last_used(path, 9 * SPARED_SECONDS)
    assert made[0].path("deep/data.bin") == paths[0]
    new = make(store, 9).path("deep/data.bin")
    assert {paths[0], new} <= copies(private_cache)
    assert len(copies(private_cache)) == 4


def test_what_was_used_within_the_hour_stays_even_beyond_the_limit(store, private_cache, caplog):
    paths = [make(store, number).path("deep/data.bin") for number in range(8)]
    assert copies(private_cache) == set(paths)
    assert "all of it was used within the last hour" in caplog.text


def test_what_was_removed_is_fetched_again(store, private_cache):
    made = [make(store, number) for number in range(5)]
    content = made[0].path("deep/data.bin").read_bytes()
    for one in made:
        last_used(one.path("deep/data.bin"), 9 * SPARED_SECONDS)
    make(store, 9, size=4500).path("deep/data.bin")
    assert len(copies(private_cache)) == 1
    assert made[0].path("deep/data.bin").read_bytes() == content


def test_a_file_larger_than_the_limit_is_still_served(store):
    assert make(store, 0, size=20_000).path("deep/data.bin").stat().st_size == 20_000


def test_a_link_out_of_the_cache_is_not_followed(store, private_cache, tmp_path):
    (tmp_path / "outside").mkdir()
    (private_cache / "artifacts").mkdir(parents=True)
    (private_cache / "artifacts" / "data").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="leaves the cache"):
        make(store, 0).path("deep/data.bin")
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("50GB", 5 * 10**10),
        ("1.5 TB", 15 * 10**11),
        ("20mb", 2 * 10**7),
        ("7", 7),
        ("", 5 * 10**10),
    ],
)
def test_a_size_is_written_as_people_write_it(monkeypatch, given, size):
    monkeypatch.setenv("SPARSEDISTILL_CACHE_SIZE", given)
    assert cache_size() == size


@pytest.mark.parametrize("given", ["lots", "-5GB", "5XB", "GB"])
def test_what_is_no_size_is_refused_with_the_form_it_has(monkeypatch, given):
    monkeypatch.setenv("SPARSEDISTILL_CACHE_SIZE", given)
    with pytest.raises(StorageError, match=r"SPARSEDISTILL_CACHE_SIZE=.* write it as 50GB"):
        ArtifactStore("memory://size/runs")


def test_threads_that_fetch_the_same_file_download_it_once(store, monkeypatch):
    artifact = make(store, 0)
    calls, real = [], store._backend._fs.get_file

    def slow(*arguments, **options):
        calls.append(arguments)
        time.sleep(0.05)
        real(*arguments, **options)

    monkeypatch.setattr(store._backend._fs, "get_file", slow)
    threads = [threading.Thread(target=artifact.path, args=("deep/data.bin",)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


# Each process serves itself from one cache that holds half of what they read; file:// stands for a
# remote store here, so that processes share it.
READER = """
import random, sys
from pathlib import Path
from storage import ArtifactStore, local_copies, store
from storage.objects import ObjectBackend
local_copies.SPARED_SECONDS, local_copies.NOTED_SECONDS = 0.5, 0.05
store._open_backend = lambda url, options, make: ObjectBackend(url, options)
opened = store.ArtifactStore(sys.argv[1])
manifests = opened.artifacts()
chance = random.Random(int(sys.argv[2]))
for _ in range(150):
    one = chance.choice(manifests)
    path = opened.get(one.kind, one.key).path("deep/data.bin")
    assert len(path.read_bytes()) == 1000
"""


def test_processes_share_one_cache_that_overflows(tmp_path, private_cache):
    store = ArtifactStore(tmp_path / "store")
    for number in range(10):
        make(store, number)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, f"file://{tmp_path}/store", str(number)],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    said = [reader.communicate()[1] for reader in readers]
    assert [reader.returncode for reader in readers] == [0, 0, 0], said
    assert not list((private_cache / "tmp").rglob("*.lock"))
