"""A run's claim says what it relies on, lives while its process lives, and outlasts a failure."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from storage import ArtifactStore, StorageError, StoreVersionError, leases
from storage.backend import FileStat
from storage.leases import DIRECTORY, EXPIRY_SECONDS, Lease, group_of, read_claims, read_names

REPOSITORY = Path(__file__).parents[2]
A, B, C = (("corpus", digit * 32) for digit in "abc")

KILLED = """
import os, signal, sys
from storage import ArtifactStore
with ArtifactStore(sys.argv[1]).lease("weekly") as lease:
    lease.use([("corpus", "a" * 32)])
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def backend(store):
    return store._backend


def killed_run(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(root)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def used(backend) -> set:
    found = read_names(backend, read_claims(backend))
    return set().union(*found.values())


def test_what_a_run_uses_is_written_down_once_and_gone_after_its_end(store, backend):
    with store.lease("weekly") as lease:
        (claim,) = read_claims(backend)
        assert (claim.of, claim.group, claim.live) == ("run", group_of("weekly"), True)
        assert not lease.use([A, B])
        assert not lease.use([B, C])
        assert not lease.use([A])
        (claim,) = read_claims(backend)
        assert len(claim.names) == 2
        assert used(backend) == {A, B, C}
    assert read_claims(backend) == []
    assert backend.files(DIRECTORY) == {}


def test_a_lease_says_who_holds_it(store, backend):
    with store.lease("weekly") as lease:
        (text,) = backend.read([f"{DIRECTORY}/{lease.id}/claim.json"])
        said = json.loads(text)
        assert (said["run"], said["process"], said["format"]) == ("weekly", os.getpid(), 1)


def test_the_lease_of_a_run_that_failed_stays_until_one_of_its_name_ends_well(store, backend):
    for _ in range(2):
        with suppress(KeyboardInterrupt), store.lease("weekly") as lease:
            lease.use([A])
            raise KeyboardInterrupt
    with store.lease("another"):
        pass
    assert [claim.live for claim in read_claims(backend)] == [False, False]
    assert used(backend) == {A}
    with store.lease("weekly") as lease:
        lease.use([A])
        assert len(read_claims(backend)) == 3
    assert read_claims(backend) == []


def test_the_lease_of_a_failed_run_stays_while_no_run_has_ended_that_used_as_much(store, backend):
    with suppress(KeyboardInterrupt), store.lease("weekly") as lease:
        lease.use([A, B])
        raise KeyboardInterrupt
    with store.lease("weekly") as lease:
        lease.use([A, C])
    assert used(backend) == {A, B}


def test_the_lease_of_a_run_that_began_later_and_failed_stays(local_store, root):
    with local_store.lease("weekly") as first:
        first.use([A])
        with suppress(KeyboardInterrupt), local_store.lease("weekly") as later:
            later.use([A])
            raise KeyboardInterrupt
        claim = root / DIRECTORY / first.id / "claim.json"
        os.utime(claim, (0, claim.stat().st_mtime - 60))
    assert [claim.id for claim in read_claims(local_store._backend)] == [later.id]


def test_a_lease_that_is_to_be_kept_stays_after_a_good_end(store, backend):
    with store.lease("weekly", keep=True) as lease:
        lease.use([A])
    assert [claim.live for claim in read_claims(backend)] == [False]
    assert used(backend) == {A}


def test_an_error_at_the_end_of_a_lease_is_a_warning(store, monkeypatch, caplog):
    def fail(_):
        raise ConnectionError("no network")

    with store.lease("weekly") as lease:
        lease.use([A])
        monkeypatch.setattr(Lease, "claims", fail)
    assert "the lease of weekly could not be removed: no network" in caplog.text


@pytest.mark.parametrize("end", ["failed", "kept", "alive"])
def test_a_run_that_was_taken_for_dead_claims_again_what_it_uses(store, backend, end):
    run = store.lease("weekly", keep=end == "kept")
    lease = run.__enter__()
    lease.use([A])
    lease.use([B])
    backend.discard(f"{DIRECTORY}/{lease.id}")
    if end == "alive":
        lease.beat()
        assert lease.use([C])
        assert not lease.use([("corpus", "d" * 32)])
    error = KeyboardInterrupt() if end != "kept" else None
    with suppress(KeyboardInterrupt):
        run.__exit__(type(error) if error else None, error, None)
    (claim,) = read_claims(backend)
    assert claim.started > 0
    assert {A, B} <= used(backend)


def test_a_collection_that_was_taken_for_dead_does_not_hold_its_claim_any_more(store, backend):
    collection = Lease(backend, "gc", of="gc")
    backend.discard(f"{DIRECTORY}/{collection.id}")
    collection.beat()
    assert not collection.held
    assert f"{collection.id}/claim.json" not in backend.files(DIRECTORY)


def test_the_lease_of_a_killed_run_is_dead_at_once_and_keeps_its_names(local_store, root):
    killed_run(root)
    backend = local_store._backend
    (claim,) = read_claims(backend)
    assert not claim.live
    assert used(backend) == {A}
    with local_store.lease("weekly") as lease:
        lease.use([A])
    assert read_claims(backend) == []


def test_the_end_of_a_run_leaves_a_living_one_of_the_same_name_alone(store, backend):
    with store.lease("weekly") as first:
        first.use([A])
        with store.lease("weekly") as second:
            second.use([B])
        assert used(backend) == {A}


def test_a_lease_of_another_host_lives_as_long_as_it_beats(local_store, root):
    backend = local_store._backend
    with local_store.lease("weekly") as lease:
        lease.use([A])
        elsewhere = Path(root / DIRECTORY / lease.id)
        there = elsewhere.with_name(lease.id.replace(f"-{os.getpid()}-", "-elsewhere-1-"))
        elsewhere.rename(there)
        Lease(backend, "clock")
        assert [claim.live for claim in read_claims(backend)] == [True, True]
        for file in there.iterdir():
            stat = file.stat()
            os.utime(file, (stat.st_atime, stat.st_mtime - EXPIRY_SECONDS - 1))
        assert [claim.live for claim in read_claims(backend) if claim.id == there.name] == [False]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "EXPIRY_SECONDS", EXPIRY_SECONDS * 2)
            assert all(claim.live for claim in read_claims(backend))


def test_a_lease_beats_by_itself(store, backend, monkeypatch):
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.01)
    beats = []
    beat = Lease.beat
    monkeypatch.setattr(Lease, "beat", lambda lease: (beat(lease), beats.append(1)))
    with store.lease("weekly") as lease:
        while len(beats) < 3:
            pass
        assert f"{lease.id}/beat.json" in backend.files(DIRECTORY)
        assert lease.held


def test_a_beat_that_fails_is_told_and_the_next_one_tried(local_store, monkeypatch, caplog):
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.01)
    tried = []

    def fail(_):
        tried.append(1)
        raise ConnectionError("no network")

    monkeypatch.setattr(Lease, "beat", fail)
    with local_store.lease("weekly"):
        while len(tried) < 2:
            pass
    assert "the lease of weekly could not be renewed: no network" in caplog.text


def test_a_process_that_slept_too_long_does_not_believe_its_claim_any_more(backend, monkeypatch):
    lease = Lease(backend, "gc", of="gc")
    assert lease.held
    now = leases._clock()
    monkeypatch.setattr(leases, "_clock", lambda: now + EXPIRY_SECONDS)
    assert not lease.held
    lease.beat()
    assert not lease.held


def test_a_run_that_finds_a_collection_under_way_waits_for_it_and_looks_again(
    store, backend, monkeypatch
):
    collection = Lease(backend, "gc", of="gc")
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            collection.end()

    monkeypatch.setattr(leases.time, "sleep", sleep)
    with store.lease("weekly") as lease:
        assert lease.use([A])
        assert len(waits) == 3
        assert not lease.use([A])
    assert read_claims(backend) == []


def test_a_collection_that_was_killed_keeps_nobody_waiting(local_store, root):
    collection = Lease(local_store._backend, "gc", of="gc")
    done = subprocess.Popen(["true"])
    done.wait()
    path = root / DIRECTORY / collection.id
    path.rename(path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{done.pid}-")))
    with local_store.lease("weekly") as lease:
        assert not lease.use([A])


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"format": 1, "names": [["corpus", "../../x"]]}', b'{"format": 1}']
)
def test_a_damaged_lease_is_an_error_that_names_its_file(store, backend, text):
    with store.lease("weekly") as lease:
        lease.use([A])
        backend.write(f"{DIRECTORY}/{lease.id}/names-000001.json", text)
        with pytest.raises(StorageError, match=r"names-000001\.json is damaged"):
            used(backend)


def test_a_lease_of_a_newer_version_is_refused(store, backend):
    with store.lease("weekly") as lease:
        backend.write(f"{DIRECTORY}/{lease.id}/names-000001.json", b'{"format": 2}')
        with pytest.raises(StoreVersionError, match="lease"):
            used(backend)


def test_strange_files_beside_leases_are_nobody_s_claim(store, backend):
    backend.write(f"{DIRECTORY}/notes.txt", b"x")
    backend.write(f"{DIRECTORY}/run-notes/claim.json", b"x")
    assert read_claims(backend) == []


def test_a_linked_directory_of_leases_is_never_followed(local_store, root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (root / DIRECTORY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="leaves the store"), local_store.lease("weekly"):
        pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_object_store_is_told_by_its_own_clock(tmp_path):
    store = ArtifactStore("memory://clock/runs")
    with store.lease("weekly") as lease:
        lease.use([A])
        assert all(claim.live for claim in lease.claims())


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no clock that counts suspension")
def test_the_time_in_which_a_machine_was_suspended_counts(backend, monkeypatch):
    lease = Lease(backend, "gc", of="gc")
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(leases.time, "clock_gettime", lambda clock: now + EXPIRY_SECONDS)
    assert not lease.held


def test_where_files_have_no_times_the_time_is_this_machine_s(store, backend, monkeypatch):
    files = backend.files
    monkeypatch.setattr(
        backend,
        "files",
        lambda top: {path: FileStat(stat.bytes, math.inf) for path, stat in files(top).items()},
    )
    with store.lease("weekly") as lease:
        now, (claim,) = leases.claims_at(backend, lease.id)
        assert math.isfinite(now)
        assert claim.live
