"""Nothing half-written is ever believed, and nothing damaged is used."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage import (
    ArtifactStore,
    DamagedArtifactError,
    Recipe,
    StorageError,
    StoreFullError,
    StoreVersionError,
)
from storage.scratch import make_temporary

RECIPE = Recipe("corpus", 1, {"rows": 100})
REPOSITORY = Path(__file__).parents[2]

KILLED = """
import os, signal, sys
from pathlib import Path
from storage import ArtifactStore, Recipe
die = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
store = ArtifactStore(sys.argv[1])
with store.create(Recipe("corpus", 1, {"rows": 100})) as writer:
    writer.path("data.txt").write_text("some text")
    if sys.argv[2] == "data":
        die()
    Path.rename = die  # the manifest is written, the directory not yet in its place
"""


def killed_process(root, when):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(root), when],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def damage(store, artifact, name, change):
    """Change the stored bytes of a file behind the back of the store."""
    manifest = artifact.manifest
    parts = [manifest.kind, manifest.key, "" if name == "manifest.json" else manifest.directory]
    path = "/".join(filter(None, [*parts, name]))
    store._backend.write(path, change(b"".join(store._backend.blocks(path))))


@pytest.mark.parametrize("when", ["data", "manifest"])
def test_a_killed_process_leaves_nothing_that_is_believed_and_the_next_one_sweeps(root, make, when):
    killed_process(root, when)
    store = ArtifactStore(root)
    (left,) = (root / ".tmp").iterdir()
    assert (left / "data.txt").exists()
    assert (left / "manifest.json").exists() == (when == "manifest")
    assert store.find(RECIPE) is None
    assert store.artifacts() == []
    assert list(store.verify()) == []
    assert make(store, RECIPE).path("data.txt").exists()
    assert list((root / ".tmp").iterdir()) == []


def test_sweeping_spares_the_living_other_hosts_and_other_recipes(local_store, root, make):
    done = subprocess.Popen(["true"])
    done.wait()
    living = make_temporary(root / ".tmp", "corpus", RECIPE.key)
    dead = living.name.replace(f"-{os.getpid()}-", f"-{done.pid}-")
    start = living.name.split(f"-{os.getpid()}-")[0]
    elsewhere = f"corpus-{RECIPE.key}-elsewhere-{done.pid}-00000000"
    other_recipe = dead.replace(RECIPE.key, "0" * 32)
    strange = f"{start}-notes"
    for name in (dead, elsewhere, other_recipe, strange):
        (root / ".tmp" / name).mkdir()
    make(local_store, RECIPE)
    left = {path.name for path in (root / ".tmp").iterdir()}
    assert left == {living.name, elsewhere, other_recipe, strange}


def test_many_makers_at_once_agree_on_one_artifact(store):
    barrier = threading.Barrier(6)
    made = []

    def work(number):
        with store.create(RECIPE) as writer:
            for name in "abc":
                writer.path(name).write_text(f"{name} by {number}" * 100)
            barrier.wait()
        made.append(writer.artifact)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len({artifact.digest for artifact in made}) == 1
    assert store.find(RECIPE).digest == made[0].digest
    assert [v.problems for v in store.verify()] == [()]


def test_a_truncated_file_is_not_found_named_in_the_log_and_recomputed(store, make, caplog):
    artifact = make(store, RECIPE, good="fine", bad="will be cut")
    damage(store, artifact, "bad.txt", lambda data: data[:-1])
    assert store.find(RECIPE) is None
    assert f"corpus/{RECIPE.key}: bad.txt: it has 10 bytes instead of 11" in caplog.text
    assert store.artifacts() == []
    with pytest.raises(DamagedArtifactError, match=r"bad\.txt"):
        store.get("corpus", RECIPE.key)
    assert make(store, RECIPE, good="fine", bad="will be cut").path("bad.txt").exists()
    assert [v.ok for v in store.verify()] == [True]


def test_a_damaged_artifact_is_replaced_by_one_with_other_bytes(store, make):
    damage(store, make(store, RECIPE, data="first"), "data.txt", lambda _: b"")
    artifact = make(store, RECIPE, data="second time")
    assert artifact.path("data.txt").read_text() == "second time"
    assert [v.ok for v in store.verify()] == [True]


def test_a_missing_file_is_named(local_store, make, caplog):
    make(local_store, RECIPE).path("data.txt").unlink()
    assert local_store.find(RECIPE) is None
    assert "data.txt: the file is missing" in caplog.text
    (found,) = local_store.verify()
    assert found.problems == ("data.txt: the file is missing",)


def test_an_altered_byte_is_found_by_verify_and_named(store, make):
    artifact = make(store, RECIPE, good="fine", bad="fine too")
    damage(store, artifact, "bad.txt", lambda data: data.replace(b"t", b"T"))
    assert store.find(RECIPE)
    (found,) = store.verify()
    assert not found.ok
    assert found.artifact.key == RECIPE.key
    assert found.problems == ("bad.txt: its bytes are not those that were written (checksum)",)
    assert [v.ok for v in store.verify("corpus")] == [False]
    assert list(store.verify("ngrams")) == []


def test_an_altered_config_is_found_by_verify(store, make):
    artifact = make(store, RECIPE)
    damage(store, artifact, "manifest.json", lambda data: data.replace(b"100", b"999"))
    (found,) = store.verify()
    assert "manifest.json: it is not as it was written (checksum)" in found.problems[0]


def test_an_altered_byte_is_found_when_a_remote_file_is_downloaded(make, private_cache):
    store = ArtifactStore("memory://altered/runs")
    artifact = make(store, RECIPE, data="abc")
    damage(store, artifact, "data.txt", lambda _: b"abd")
    with pytest.raises(DamagedArtifactError, match="checksum"):
        artifact.path("data.txt")
    assert not [path for path in (private_cache / "artifacts").rglob("*") if path.is_file()]


def test_a_file_cut_after_it_was_found_is_refused_when_it_is_read(local_store, make):
    artifact = make(local_store, RECIPE)
    path = artifact.path("data.txt")
    os.truncate(path, 3)
    with pytest.raises(DamagedArtifactError, match="3 bytes instead of 9"):
        artifact.path("data.txt")
    path.unlink()
    with pytest.raises(DamagedArtifactError, match="missing"):
        artifact.path("data.txt")


def test_a_json_file_that_is_none_is_damaged(local_store, make):
    with pytest.raises(DamagedArtifactError, match=r"data\.txt"):
        make(local_store, RECIPE, data="{").read_json("data.txt")


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'{"format": 1}', b"\xff"])
def test_a_damaged_manifest_is_no_artifact(store, make, caplog, text):
    damage(store, make(store, RECIPE), "manifest.json", lambda _: text)
    assert store.find(RECIPE) is None
    assert f"corpus/{RECIPE.key}: manifest.json" in caplog.text
    (found,) = store.verify()
    assert found.artifact is None
    assert "manifest.json" in found.problems[0]
    make(store, RECIPE)
    assert store.find(RECIPE)


def test_a_manifest_copied_to_another_key_is_no_artifact(local_store, root, make, caplog):
    make(local_store, RECIPE)
    other = Recipe("corpus", 1, {"rows": 200})
    (root / "corpus" / RECIPE.key).rename(root / "corpus" / other.key)
    assert local_store.find(other) is None
    assert f"it describes corpus/{RECIPE.key}" in caplog.text


def test_a_manifest_that_names_files_outside_is_no_artifact(store, make, caplog):
    artifact = make(store, RECIPE)
    damage(
        store,
        artifact,
        "manifest.json",
        lambda data: data.replace(b"data.txt", b"../../store.json"),
    )
    assert store.find(RECIPE) is None
    assert "no part of it may be empty" in caplog.text


def test_a_directory_without_a_manifest_is_no_artifact_and_does_not_stand_in_the_way(
    local_store, root, make
):
    path = make(local_store, RECIPE).path("data.txt")
    (path.parent / "manifest.json").unlink()
    assert local_store.find(RECIPE) is None
    assert local_store.artifacts() == []
    assert make(local_store, RECIPE).path("data.txt").exists()


def test_a_file_in_the_place_of_an_artifact_does_not_stand_in_the_way(local_store, root, make):
    (root / "corpus").mkdir()
    (root / "corpus" / RECIPE.key).write_text("what is this")
    assert local_store.find(RECIPE) is None
    assert make(local_store, RECIPE).path("data.txt").exists()


def test_a_newer_store_is_refused(tmp_path):
    (tmp_path / "store.json").write_text('{"format": 2}')
    with pytest.raises(StoreVersionError, match="Upgrade"):
        ArtifactStore(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "one"}', "{}"])
def test_a_store_file_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(StorageError, match=r"store\.json"):
        ArtifactStore(tmp_path)


def test_the_format_of_the_store_is_written_down(local_store, root):
    assert json.loads((root / "store.json").read_text()) == {"format": 1}


def test_a_newer_manifest_is_refused_and_not_overwritten(store, make):
    newer = b'{"format": 2, "news": true}'
    damage(store, make(store, RECIPE), "manifest.json", lambda _: newer)
    for attempt in (
        lambda: store.find(RECIPE),
        lambda: store.artifacts(),
        lambda: store.get("corpus", RECIPE.key),
        lambda: make(store, RECIPE),
    ):
        with pytest.raises(StoreVersionError):
            attempt()
    assert store._backend.read([f"corpus/{RECIPE.key}/manifest.json"]) == [newer]
    (found,) = store.verify()
    assert "newer version" in found.problems[0]
    assert found.newer


@pytest.mark.parametrize("url", ["nosuch://x/y", "s4://bucket"])
def test_an_unknown_protocol_is_an_error_that_names_the_url(url):
    with pytest.raises(StorageError, match=url):
        ArtifactStore(url)


# No space left.


def full(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_no_space_in_the_block_says_how_far_it_came_and_leaves_nothing(store):
    def write():
        with store.create(RECIPE) as writer:
            writer.path("a.bin").write_bytes(b"x" * 1234)
            full()

    with pytest.raises(StoreFullError, match="1,234 bytes") as caught:
        write()
    assert caught.value.written == 1234
    assert caught.value.what == f"corpus/{RECIPE.key}"
    assert not list(store._backend.temporary.iterdir())
    assert store.find(RECIPE) is None


def test_no_space_told_by_a_library_in_its_own_words_is_understood(store):
    def library():
        try:
            raise RuntimeError("I/O error: No space left on device (os error 28)")
        except RuntimeError as error:
            raise ValueError("could not serialise") from error

    with pytest.raises(StoreFullError), store.create(RECIPE):
        library()


def test_no_space_while_publishing_leaves_nothing(local_store, root, monkeypatch):
    monkeypatch.setattr("storage.local.sync", full)
    with pytest.raises(StoreFullError), local_store.create(RECIPE) as writer:
        writer.path("a").write_text("x")
    assert not list((root / ".tmp").iterdir())
    monkeypatch.undo()
    assert local_store.find(RECIPE) is None


def test_no_space_for_a_local_copy_is_told(make, monkeypatch):
    store = ArtifactStore("memory://fullcache/runs")
    artifact = make(store, RECIPE)
    monkeypatch.setattr(store._backend._fs, "get_file", full)
    with pytest.raises(StoreFullError):
        artifact.path("data.txt")


def test_other_errors_are_not_taken_for_no_space(store):
    with pytest.raises(PermissionError), store.create(RECIPE):
        raise PermissionError(errno.EACCES, "no")


@contextmanager
def small_disk(path):
    path.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_is_really_full(tmp_path, make):
    with small_disk(tmp_path / "disk"):
        store = ArtifactStore(tmp_path / "disk" / "runs")
        with pytest.raises(StoreFullError) as caught, store.create(RECIPE) as writer:
            writer.path("big.bin").write_bytes(b"x" * 1_000_000)
        assert 0 < caught.value.written < 300_000
        assert store.find(RECIPE) is None
        assert make(store, RECIPE).path("data.txt").exists()
