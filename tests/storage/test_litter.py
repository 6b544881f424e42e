"""What killed processes leave in a store goes, and what others are at work on stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.collecting import collect, fail, freed, recipe

from storage import ArtifactStore, Manifest, StorageError, leases, scratch
from storage.garbage import DAY
from storage.leases import Lease
from storage.scratch import make_temporary

REPOSITORY = Path(__file__).parents[2]

KILLED = """
import os, signal, sys
from pathlib import Path
from helpers.collecting import RULES, killed_collections_start_from
from storage import ArtifactStore

def counted(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

for steps in range(100):
    root = Path(sys.argv[1]) / str(steps)
    killed_collections_start_from(ArtifactStore(root))
    pid = os.fork()
    if pid == 0:
        left = steps
        for name in ("rename", "unlink", "mkdir", "rmdir"):
            setattr(os, name, counted(getattr(os, name)))
        ArtifactStore(root).collect(RULES, delete=True, older_than=0)
        os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        print(steps)
        sys.exit()
"""


def dead_process() -> int:
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def test_temporary_directories_of_dead_processes_go_at_once(store):
    top = store._backend.temporary
    living = make_temporary(top, "data", "0" * 32)
    dead = top / living.name.replace(f"-{os.getpid()}-", f"-{dead_process()}-")
    host, elsewhere = living.name.split("-")[2], top / "strange"
    other_host = top / living.name.replace(host, "elsewhere")
    for path in (dead, other_host, elsewhere):
        path.mkdir()
        (path / "file").write_text("half")
    (dead / "link").symlink_to(living)
    found = collect(store, older_than=DAY)
    assert freed(found, "temporary files") == {("", str(dead))}
    assert sorted(top.iterdir()) == sorted([living, other_host, elsewhere])
    collect(store)
    assert list(top.iterdir()) == [living]


def test_two_machines_of_one_name_do_not_take_each_other_s_processes_for_dead(
    local_store, monkeypatch, tmp_path
):
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(scratch, "_BOOT_ID", boot)
    names = {}
    for machine in ("0f9c1a5e-one", "77aa20d4-two", None):
        if machine is None:  # as names were before, and are where there is no such file
            boot.unlink()
        else:
            boot.write_text(f"{machine}\n")
        path = make_temporary(local_store._backend.temporary, "data", "0" * 32)
        names[machine] = path.name.replace(f"-{os.getpid()}-", f"-{dead_process()}-")
        path.rename(path.with_name(names[machine]))
    for machine in ("0f9c1a5e-one", "77aa20d4-two"):
        boot.write_text(f"{machine}\n")
        dead = [each for each, name in names.items() if scratch.is_of_dead_process(name)]
        assert dead == [machine]
    boot.write_text("0f9c1a5e-one\n")
    found = freed(collect(local_store, older_than=DAY), "temporary files")
    assert [Path(path).name for _, path in found] == [names["0f9c1a5e-one"]]
    collect(local_store, older_than=-10)
    assert list(local_store._backend.temporary.iterdir()) == []


def test_old_workspaces_go_unless_a_run_uses_them_or_somebody_is_at_work(store):
    wanted, used, busy, mine = (recipe("student", number) for number in range(4))
    for one in (wanted, used, busy, mine):
        (store.workspace(one) / "checkpoint").write_text("x")
    fail(store, [("student", used.key)])
    assert freed(collect(store, older_than=DAY), "workspace") == set()
    with store.turn(busy):
        gone = {Path(path).name for _, path in freed(collect(store), "workspace")}
    assert gone == {f"student-{one.key}" for one in (wanted, mine)}
    assert (store.workspace(used) / "checkpoint").exists()
    assert (store.workspace(busy) / "checkpoint").exists()
    assert not list(store.workspace(wanted).iterdir())


def test_locks_that_nobody_holds_go(store):
    with store.turn(recipe("student")):
        (held,) = store._backend.workspaces.iterdir()
        stale = held.with_name(f"student-{'0' * 32}.lock")
        stale.touch()
        found = collect(store, delete=False)
        assert freed(found, "lock") == {("", str(stale))}
        assert stale.exists()
        collect(store)
        assert list(store._backend.workspaces.iterdir()) == [held]


def test_what_a_killed_collection_and_a_half_removed_lease_left_goes(local_store, root):
    for of in ("gc", "run"):
        lease = Lease(local_store._backend, "x", of=of)
        path = root / leases.DIRECTORY / lease.id
        dead = path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{dead_process()}-"))
        path.rename(dead)
        (dead / "names-000001.json").write_text('{"format": 1, "names": []}')
        if of == "run":
            (dead / "claim.json").unlink()
    assert len(freed(collect(local_store), "lease")) == 2
    assert list((root / leases.DIRECTORY).iterdir()) == []


def test_a_collection_killed_at_any_point_leaves_what_the_next_one_finishes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) > 20
    for steps in range(int(done.stdout) + 1):
        root = tmp_path / str(steps)
        store = ArtifactStore(root)
        assert all(found.ok for found in store.verify())
        for manifest in store.artifacts():
            assert all(node.manifest for node in below(store.lineage(store.get(*name(manifest)))))
        collect(store)
        assert [m.kind for m in store.artifacts()] == ["data", "model"]
        for left in (".tmp", ".work", leases.DIRECTORY):
            assert list((root / left).iterdir()) == []


def name(manifest: Manifest) -> tuple[str, str]:
    return manifest.kind, manifest.key


def below(node):
    yield node
    for children in node.children.values():
        for child in children:
            yield from below(child)


def test_linked_directories_are_never_emptied(local_store, root, tmp_path, make):
    outside = tmp_path / "outside"
    for each in ("tmp", "work", "leases", "kind"):
        (outside / each / "student-00000000000000000000000000000000").mkdir(parents=True)
        (outside / each / "student-00000000000000000000000000000000" / "x").write_text("mine")
    (root / ".work").mkdir()
    inside = root / ".work" / "student-00000000000000000000000000000000"
    inside.symlink_to(outside / "work" / "student-00000000000000000000000000000000")
    (root / "kind").symlink_to(outside / "kind")
    collect(local_store)
    (root / ".tmp").mkdir(exist_ok=True)
    (root / ".tmp").rmdir()
    (root / ".tmp").symlink_to(outside / "tmp")
    with pytest.raises(StorageError, match="leaves the store"):
        collect(local_store)
    assert len(list(outside.rglob("x"))) == 4
