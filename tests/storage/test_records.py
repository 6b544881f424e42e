"""Records: a log of small documents with one order, however many write to it at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import ArtifactStore, Input, StorageError, StoreVersionError
from storage.local import LocalBackend

REPOSITORY = Path(__file__).parents[2]

KILLED = """
import os, signal, sys
from storage import ArtifactStore
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
link = os.link
if sys.argv[2] == "before":
    os.link = die
else:
    os.link = lambda *a: (link(*a), die())
ArtifactStore(sys.argv[1]).add_record("log", {"by": "killed"}, after=0)
"""

ADDING = """
import sys
from storage import ArtifactStore
store, who = ArtifactStore(sys.argv[1]), sys.argv[2]
for turn in range(20):
    while True:
        last = store.records("log")[-1:]
        after = last[0].number if last else 0
        if store.add_record("log", {"who": who, "turn": turn}, after=after) is not None:
            break
"""

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def path_of(root: Path, number: int, name: str = "log") -> Path:
    return root / ".records" / name / f"{number:08d}.json"


def alter(root: Path, number: int, **fields: Any) -> None:
    path = path_of(root, number)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_records_come_back_in_order_and_a_number_is_given_once(store: ArtifactStore):
    assert store.records("log") == []
    first = store.add_record("log", {"a": 1}, after=0)
    assert store.add_record("log", {"a": "late"}, after=0) is None
    second = store.add_record("log", {"a": [2.5, None, True]}, after=1)
    assert store.records("log") == [first, second]
    assert [one.number for one in store.records("log")] == [1, 2]
    assert store.records("log")[1].content == {"a": [2.5, None, True]}


def test_sequences_do_not_mix_and_are_no_artifacts(store: ArtifactStore):
    store.add_record("b", {}, after=0)
    store.add_record("a", {}, after=0)
    assert store.record_names() == ["a", "b"]
    assert store.artifacts() == []
    assert [one.name for one in store.records("a")] == ["a"]


def test_after_a_gap_the_sequence_goes_on(local_store: ArtifactStore, root: Path):
    for number in range(3):
        local_store.add_record("log", {"n": number}, after=number)
    path_of(root, 2).unlink()
    assert [one.number for one in local_store.records("log")] == [1, 3]
    assert local_store.add_record("log", {}, after=3) is not None


@settings(max_examples=40, deadline=None)
@given(content=st.dictionaries(st.text(), json_values, max_size=4))
def test_content_comes_back_as_it_was_given(content: dict[str, Any], tmp_path_factory):
    store = ArtifactStore(tmp_path_factory.mktemp("records"))
    store.add_record("log", content, after=0)
    (found,) = store.records("log")
    assert json.dumps(found.content) == json.dumps(content)


def test_of_many_threads_one_gets_each_number(store: ArtifactStore):
    def add(who: int) -> int:
        return sum(
            store.add_record("log", {"who": who}, after=after) is not None for after in range(5)
        )

    store.add_record("log", {"who": -1}, after=0)
    with ThreadPoolExecutor(8) as threads:
        won = sum(threads.map(add, range(8)))
    assert won == 4
    assert [one.number for one in store.records("log")] == [1, 2, 3, 4, 5]


def test_processes_that_write_at_once_lose_nothing(local_store: ArtifactStore, root: Path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", ADDING, str(root), who],
            cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )
        for who in ("a", "b", "c")
    ]  # fmt: skip
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    records = local_store.records("log")
    assert [one.number for one in records] == list(range(1, 61))
    for who in ("a", "b", "c"):
        assert [r.content["turn"] for r in records if r.content["who"] == who] == list(range(20))


@pytest.mark.parametrize(("when", "there"), [("before", 0), ("after", 1)])
def test_a_killed_writer_leaves_a_whole_record_or_none(root: Path, when: str, there: int):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(root), when],
        cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    store = ArtifactStore(root)
    assert len(store.records("log")) == there
    assert store.add_record("log", {"by": "the next"}, after=there) is not None


def test_nothing_temporary_stays(local_store: ArtifactStore, root: Path):
    local_store.add_record("log", {}, after=0)
    local_store.add_record("log", {}, after=0)
    assert [p.name for p in path_of(root, 1).parent.iterdir()] == ["00000001.json"]
    assert list((root / ".tmp").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", ".hidden", "A", "a\n", "a" * 129, "/etc", "a.b", "ä"]
)
def test_a_name_that_could_leave_the_place_is_refused(store: ArtifactStore, name: str):
    with pytest.raises(StorageError, match="names no records"):
        store.add_record(name, {}, after=0)
    with pytest.raises(StorageError, match="names no records"):
        store.records(name)


def test_records_behind_a_link_are_not_read(local_store: ArtifactStore, root: Path, tmp_path: Path):
    other = ArtifactStore(tmp_path / "other")
    other.add_record("log", {}, after=0)
    (root / ".records").symlink_to(tmp_path / "other" / ".records")
    with pytest.raises(StorageError, match="leaves the store"):
        local_store.records("log")
    with pytest.raises(StorageError, match="leaves the store"):
        local_store.add_record("log", {}, after=1)
    assert len(other.records("log")) == 1


def test_a_damaged_record_is_named(local_store: ArtifactStore, root: Path):
    for number in range(2):
        local_store.add_record("log", {"n": number}, after=number)
    good = path_of(root, 2).read_bytes()
    for bad in (b"", good[:-20], good.replace(b'"n": 1', b'"n": 2'), b"[]", b'{"format": "x"}'):
        path_of(root, 2).write_bytes(bad)
        with pytest.raises(StorageError, match=r"\.records/log/00000002\.json is damaged.*remove"):
            local_store.records("log")
    path_of(root, 2).write_bytes(path_of(root, 1).read_bytes())
    with pytest.raises(StorageError, match="it is number 1 of log"):
        local_store.records("log")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_flipped_bit_is_seen(data: st.DataObject, tmp_path_factory):
    root = tmp_path_factory.mktemp("flipped")
    store = ArtifactStore(root)
    good = store.add_record("log", {"accuracy": 0.5, "text": "é"}, after=0)
    path = path_of(root, 1)
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[place // 8] ^= 1 << place % 8
    path.write_bytes(bytes(raw))
    with suppress(StorageError):
        assert store.records("log") == [good]  # white space that says nothing


def test_a_newer_record_is_refused(local_store: ArtifactStore, root: Path):
    local_store.add_record("log", {}, after=0)
    alter(root, 1, format=2)
    with pytest.raises(StoreVersionError, match="newer version"):
        local_store.records("log")


def test_other_files_are_passed_over(local_store: ArtifactStore, root: Path):
    local_store.add_record("log", {}, after=0)
    (root / ".records" / "log" / "notes.txt").write_text("mine")
    (root / ".records" / "log" / "1.json").write_text("mine")
    assert len(local_store.records("log")) == 1


def test_content_that_is_not_json_is_refused(store: ArtifactStore):
    with pytest.raises(StorageError, match="nan, which JSON cannot hold"):
        store.add_record("log", {"x": float("nan")}, after=0)
    assert store.records("log") == []


def test_a_record_tells_the_artifacts_it_speaks_of(store: ArtifactStore):
    one = Input("package", "0" * 32, "1" * 64)
    reference = {"kind": one.kind, "key": one.key, "digest": one.digest}
    record = store.add_record("log", {"references": {"package": reference}}, after=0)
    assert record is not None
    assert record.references() == {"package": one}
    bad = store.add_record(
        "log", {"references": {"package": {**reference, "key": "../x"}}}, after=1
    )
    assert bad is not None
    with pytest.raises(StorageError, match="no artifact key"):
        bad.references()


def test_a_writer_that_hears_late_of_its_own_success_has_won(
    local_store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
):
    """As where the answer to a request is lost, and the request sent again is refused."""
    create = LocalBackend.create

    def lost(self: LocalBackend, path: str, data: bytes) -> bool:
        create(self, path, data)
        return False

    monkeypatch.setattr(LocalBackend, "create", lost)
    assert local_store.add_record("log", {"a": 1}, after=0) is not None
    monkeypatch.undo()
    assert local_store.add_record("log", {"a": 1}, after=0) is None
