"""What garbage collection frees, what it keeps and why, and that it can be killed."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from storage import (
    ArtifactStore,
    Collection,
    Manifest,
    Recipe,
    Rules,
    StorageError,
    StoreVersionError,
    leases,
    scratch,
)
from storage.backend import FileStat
from storage.garbage import DAY
from storage.leases import Lease
from storage.scratch import make_temporary

REPOSITORY = Path(__file__).parents[2]


def kept_models(manifests):
    return {(m.kind, m.key): "a model" for m in manifests if m.kind == "model"}


def parts_of(manifest: Manifest):
    return [("part", key) for key in manifest.statistics.get("parts", ())]


RULES = Rules(
    roots=kept_models,
    owns=parts_of,
    unfollowed=frozenset({"earlier"}),
    root_kinds=frozenset({"model"}),
    parts={"whole": "part"},
)


def recipe(kind: str, number: int = 0, **inputs) -> Recipe:
    return Recipe(kind, 1, {"n": number}, {r: (a.as_input(),) for r, a in inputs.items()})


def collect(store: ArtifactStore, *, older_than: float = 0, **options) -> Collection:
    return store.collect(RULES, **{"delete": True, "older_than": older_than, **options})


def freed(collection: Collection, what: str = "artifact") -> set:
    return {(one.kind, one.name) for one in collection.freed if one.what == what}


def names(*artifacts) -> set:
    return {(artifact.kind, artifact.key) for artifact in artifacts}


def fail(store: ArtifactStore, used) -> None:
    """A run that uses artifacts and does not end well."""
    with suppress(KeyboardInterrupt), store.lease("weekly") as lease:
        lease.use(used)
        raise KeyboardInterrupt


def age(root: Path, artifact, seconds: float) -> None:
    """Have an artifact on a local disk look older."""
    for path in (root / artifact.kind / artifact.key).iterdir():
        stat = path.stat()
        os.utime(path, (stat.st_atime, stat.st_mtime - seconds))


def test_what_a_root_was_made_from_stays_and_the_rest_goes(store, make):
    data, other = make(store, recipe("data")), make(store, recipe("data", 1))
    model = make(store, recipe("model", data=data))
    stale = make(store, recipe("features", data=other))
    found = collect(store)
    assert freed(found) == names(other, stale)
    assert {(one.kind, one.key, one.why) for one in found.kept} == {
        ("data", data.key, "a model"), ("model", model.key, "a model"),
    }  # fmt: skip
    assert [(m.kind, m.key) for m in store.artifacts()] == sorted(names(data, model))
    assert collect(store).freed == ()


def test_a_dry_run_tells_the_same_and_changes_nothing(store, make):
    make(store, recipe("data"))
    before = {top: dict(store._backend.files(top)) for top in ("data", leases.DIRECTORY)}
    dry = collect(store, delete=False)
    assert {top: store._backend.files(top) for top in before} == before
    assert dry.freed[0].bytes > 0
    assert collect(store) == dry


@pytest.mark.parametrize("delete", [False, True])
def test_where_files_have_no_times_nothing_is_old(store, make, monkeypatch, delete):
    backend, made = store._backend, make(store, recipe("data"))
    files = backend.files
    monkeypatch.setattr(
        backend,
        "files",
        lambda top: {path: FileStat(stat.bytes, math.inf) for path, stat in files(top).items()},
    )
    found = collect(store, delete=delete)
    assert freed(found) == set()
    assert [(one.kind, one.key, one.why) for one in found.kept] == [("data", made.key, "young")]


def test_what_is_young_stays_with_what_it_was_made_from(local_store, root, make):
    data = make(local_store, recipe("data"))
    features = make(local_store, recipe("features", data=data))
    lonely = make(local_store, recipe("data", 1))
    age(root, data, 2 * DAY)
    age(root, lonely, 2 * DAY)
    found = collect(local_store, older_than=DAY)
    assert freed(found) == names(lonely)
    assert {one.why for one in found.kept} == {"young"}
    age(root, features, 2 * DAY)
    assert freed(collect(local_store, older_than=DAY)) == names(data, features)


def test_parts_belong_to_the_whole_though_they_are_no_inputs(store, make):
    part, spare = make(store, recipe("part")), make(store, recipe("part", 1))
    with store.create(recipe("whole")) as writer:
        writer.path("list").write_text("")
        writer.statistics["parts"] = [part.key]
    make(store, recipe("model", whole=writer.artifact))
    assert freed(collect(store)) == names(spare)


def test_an_earlier_one_is_kept_but_not_all_that_was_before_it(store, make):
    data = make(store, recipe("data"))
    first = make(store, recipe("student", data=data))
    second = make(store, recipe("student", 1, earlier=first))
    make(store, recipe("model", student=second))
    assert freed(collect(store)) == names(data)


def test_what_is_kept_for_two_reasons_is_followed_by_the_one_that_follows(store, make):
    data = make(store, recipe("data"))
    first = make(store, recipe("student", data=data))
    make(store, recipe("model", earlier=first))
    make(store, recipe("model", 1, student=first))
    assert freed(collect(store)) == set()


def test_what_a_living_run_uses_stays_and_all_that_is_younger_than_the_run(local_store, root, make):
    used, unused = make(local_store, recipe("data")), make(local_store, recipe("data", 1))
    for one in (used, unused):
        age(root, one, DAY)
    with local_store.lease("weekly") as lease:
        lease.use(names(used))
        new = make(local_store, recipe("data", 2))
        assert freed(collect(local_store)) == names(unused)
    assert freed(collect(local_store)) == names(used, new)


def test_what_a_failed_run_made_stays_until_it_is_old(store, make):
    made = make(store, recipe("data"))
    fail(store, names(made))
    found = collect(store)
    assert [one.why for one in found.kept] == ["used by a run"]
    assert found.freed == ()
    found = collect(store, unfinished=0)
    assert freed(found) == names(made)
    assert len(freed(found, "lease")) == 1
    assert store._backend.files(leases.DIRECTORY) == {}


def test_while_something_is_being_made_all_that_may_become_its_parts_stays(local_store, root, make):
    part = make(local_store, recipe("part"))
    age(root, part, DAY)
    with local_store.lease("weekly") as lease:
        lease.use([("whole", recipe("whole").key)])
        assert freed(collect(local_store)) == set()
        with local_store.create(recipe("whole")) as writer:
            writer.path("list").write_text("")
        assert freed(collect(local_store)) == names(part)


def test_files_without_an_artifact_go_when_they_are_old(store):
    store._backend.write(f"data/{'a' * 32}/0123456789abcdef/data.txt", b"half")
    assert freed(collect(store, older_than=DAY), "files without artifact") == set()
    assert freed(collect(store), "files without artifact") == {("data", "a" * 32)}
    assert store._backend.files("data") == {}


def test_files_of_who_came_second_go_and_the_winner_s_stay(make):
    store = ArtifactStore("memory://second/runs")
    winner = make(store, recipe("model"))
    store._backend.write(f"model/{winner.key}/0123456789abcdef/data.txt", b"loser")
    store._backend.write(f"model/{winner.key}/notes.txt", b"by hand")
    collect(store, older_than=DAY)
    assert len(store._backend.files(f"model/{winner.key}")) == 4
    collect(store)
    assert set(store._backend.files(f"model/{winner.key}")) == {
        "manifest.json", "notes.txt", f"{winner.manifest.directory}/data.txt",
    }  # fmt: skip
    assert winner.path("data.txt").exists()


def test_what_is_not_the_store_s_is_left_alone(local_store, root, make):
    (root / "data" / "notes").mkdir(parents=True)
    (root / "data" / "notes" / "mine.txt").write_text("x")
    (root / "Own").mkdir()
    (root / ".work").mkdir()
    (root / ".work" / "notes").mkdir()
    assert collect(local_store).freed == ()
    assert (root / "data" / "notes" / "mine.txt").exists()


@pytest.mark.parametrize("damage", ["cut", "marked"])
def test_a_damaged_artifact_goes_unless_something_needs_it(local_store, root, make, damage):
    needed, alone = make(local_store, recipe("data")), make(local_store, recipe("data", 1))
    origin = make(local_store, recipe("raw"))
    model = make(local_store, recipe("model", data=needed, raw=origin))
    for one in (needed, alone, model):
        if damage == "cut":
            one.path("data.txt").write_text("")
        else:
            (root / one.kind / one.key / "damaged.json").write_text("{}")
    found = collect(local_store)
    assert freed(found, "damaged artifact") == names(alone)
    assert {(one.kind, one.key) for one in found.kept} == names(needed, origin, model)


def test_what_a_root_with_a_damaged_manifest_keeps_is_not_guessed(store, make):
    model = make(store, recipe("model", data=make(store, recipe("data"))))
    store._backend.write(f"model/{model.key}/manifest.json", b"{")
    with pytest.raises(StorageError, match=f"model/{model.key}: its manifest is damaged"):
        collect(store)
    assert store.artifacts("data")


def test_a_damaged_manifest_of_another_is_no_hindrance(store, make):
    data = make(store, recipe("data"))
    store._backend.write(f"data/{data.key}/manifest.json", b"{")
    assert freed(collect(store), "damaged artifact") == names(data)


def test_beside_what_a_newer_version_wrote_nothing_is_removed(store, make):
    data = make(store, recipe("data"))
    newer = make(store, recipe("data", 1))
    store._backend.write(f"data/{newer.key}/manifest.json", b'{"format": 2}')
    with pytest.raises(StoreVersionError):
        collect(store)
    assert store._backend.files(f"data/{data.key}")
    assert leases.read_claims(store._backend) == []


def test_a_collection_that_slept_too_long_removes_nothing_more(store, make, monkeypatch):
    for number in range(3):
        make(store, recipe("data", number))
    remove, removed = store._backend.remove, []

    def slow(kind, key, listed):
        remove(kind, key, listed)
        removed.append(key)
        now = leases._clock()
        monkeypatch.setattr(leases, "_clock", lambda: now + leases.EXPIRY_SECONDS)

    monkeypatch.setattr(store._backend, "remove", slow)
    with pytest.raises(StorageError, match="no sign of life"):
        collect(store)
    assert len(removed) == 1


# What killed processes leave.


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


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests/storage")
from test_garbage import RULES, killed_collections_start_from
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


def killed_collections_start_from(store: ArtifactStore) -> None:
    def make(recipe: Recipe):
        with store.create(recipe) as writer:
            for name in "ab":
                writer.path(name).write_text(name)
        return writer.artifact

    make(recipe("features", 1, data=make(recipe("data", 1))))
    make(recipe("model", data=make(recipe("data"))))
    (store.workspace(recipe("student")) / "checkpoint").write_text("x")


def test_a_collection_killed_at_any_point_leaves_what_the_next_one_finishes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
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
