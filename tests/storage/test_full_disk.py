"""On a disk without a free byte, a garbage collection still has room for its claim."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from storage import ArtifactStore, StoreFullError, leases
from storage.local import BALLAST_BYTES

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def collected(tmp_path):
    """What a collection on a full disk of its own answered."""
    unshare, mount = shutil.which("unshare"), tmp_path / "disk"
    mount.mkdir()
    tried = unshare and subprocess.run(
        [unshare, "-Urm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)],
        capture_output=True,
        check=False,
    )
    if not tried or tried.returncode:
        pytest.skip("no small disk can be mounted here")

    def collect(what: str) -> dict:
        done = subprocess.run(
            [unshare, "-Urm", sys.executable, "tests/helpers/full_gc.py", str(mount), what],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "No space left on device" in done.stderr
        return json.loads(done.stdout)

    return collect


@pytest.mark.parametrize("what", ["ballast", "dead"])
def test_garbage_goes_from_a_disk_without_a_free_byte(collected, what):
    assert collected(what) == {"freed": [3, 0], "ballast": BALLAST_BYTES, "left": 0}


def test_what_is_set_aside_is_made_once_and_never_in_part(local_store, root, monkeypatch):
    ballast = root / ".ballast"
    before = ballast.stat()
    assert before.st_size == BALLAST_BYTES
    with local_store.lease("weekly"):
        pass
    assert ballast.stat().st_ino == before.st_ino
    local_store._backend.release()
    assert not ballast.exists()
    with local_store.lease("weekly"):
        assert ballast.stat().st_size == BALLAST_BYTES
    local_store._backend.release()
    monkeypatch.setattr("storage.local.os.urandom", _no_room)
    local_store._backend.reserve()
    assert not ballast.exists()


def test_a_run_on_a_full_disk_leaves_what_is_set_aside_for_collections(
    local_store, root, monkeypatch
):
    def full(*_, **__):
        raise StoreFullError("claim.json", str(root), 0)

    monkeypatch.setattr(leases.Lease, "_write", full)
    with pytest.raises(StoreFullError), local_store.lease("weekly"):
        pass
    assert (root / ".ballast").stat().st_size == BALLAST_BYTES


def test_a_store_that_is_only_looked_at_gets_nothing(local_store, root):
    local_store._backend.release()
    ArtifactStore(root, make=False).artifacts()
    assert not (root / ".ballast").exists()


def _no_room(_):
    raise OSError(28, "No space left on device")
