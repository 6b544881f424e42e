"""What garbage collection frees, what it keeps and why."""

from __future__ import annotations

import math

import pytest
from helpers.collecting import age, collect, fail, freed, names, recipe

from storage import (
    ArtifactStore,
    StorageError,
    StoreVersionError,
    leases,
)
from storage.backend import FileStat
from storage.garbage import DAY


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
