"""What is damaged is found where it is read, marked, counted as missing, and made again."""

from __future__ import annotations

import errno
import os

import pytest
from helpers.collecting import collect, freed

from storage import (
    ArtifactStore,
    DamagedArtifactError,
    Recipe,
    StorageError,
    checksums,
    verification,
)
from storage.names import MARK

RECIPE = Recipe("corpus", 1, {"rows": 100})


def flip(store: ArtifactStore, artifact, name: str = "data.txt") -> None:
    """Change a byte behind the back of the store, with another time of change."""
    manifest = artifact.manifest
    path = "/".join(filter(None, (artifact.kind, artifact.key, manifest.directory, name)))
    data = bytearray(b"".join(store._backend.blocks(path)))
    data[len(data) // 2] ^= 1
    store._backend.write(path, bytes(data))


def is_marked(store: ArtifactStore) -> bool:
    return MARK in store._backend.files(f"corpus/{RECIPE.key}")


def test_a_flipped_bit_is_never_handed_out_and_the_next_run_mends_it(store, make):
    artifact = make(store, RECIPE)
    flip(store, artifact)
    assert store.find(RECIPE)
    with pytest.raises(DamagedArtifactError, match=r"data\.txt: its bytes are not those"):
        artifact.path("data.txt")
    assert store.find(RECIPE) is None
    assert store.artifacts() == []
    with pytest.raises(DamagedArtifactError, match=r"data\.txt: its bytes are not those"):
        store.get("corpus", RECIPE.key)
    assert make(store, RECIPE).path("data.txt").read_text() == "some text"
    assert not is_marked(store)
    assert [v.ok for v in store.verify()] == [True]


def test_verify_marks_what_is_damaged(store, make):
    flip(store, make(store, RECIPE))
    assert [v.ok for v in store.verify()] == [False]
    assert store.find(RECIPE) is None
    assert [v.ok for v in store.verify()] == [False]
    make(store, RECIPE)
    assert store.find(RECIPE)


def test_the_log_tells_once_of_what_is_marked_and_anew_of_what_was_mended(store, make, caplog):
    for times in (1, 2):
        flip(store, make(store, RECIPE, data=str(times) * 9))
        list(store.verify())
        for _ in range(3):
            assert ArtifactStore(store.url).find(RECIPE) is None
        assert caplog.text.count("was found damaged") == times
        make(store, RECIPE, data=str(times) * 9)
        assert store.find(RECIPE)
        store.remove("corpus", RECIPE.key)


def test_verify_takes_away_a_mark_on_what_is_whole(store, make, caplog):
    make(store, RECIPE)
    store._backend.write(f"corpus/{RECIPE.key}/{MARK}", b"{}")
    assert store.find(RECIPE) is None
    assert [v.ok for v in store.verify()] == [True]
    assert store.find(RECIPE)
    assert f"corpus/{RECIPE.key} is whole: its mark was removed" in caplog.text


def test_an_altered_manifest_is_marked_by_verify(store, make):
    make(store, RECIPE)
    path = f"corpus/{RECIPE.key}/manifest.json"
    (text,) = store._backend.read([path])
    store._backend.write(path, text.replace(b"100", b"999"))
    assert [v.ok for v in store.verify()] == [False]
    assert store.find(RECIPE) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff"])
def test_a_manifest_that_nobody_can_read_is_marked_and_the_next_run_replaces_it(store, make, text):
    make(store, RECIPE)
    store._backend.write(f"corpus/{RECIPE.key}/manifest.json", text)
    for _ in range(2):
        assert [v.ok for v in store.verify()] == [False]
        assert is_marked(store)
    assert store.find(RECIPE) is None
    assert store.artifacts() == []
    assert freed(collect(store, delete=False), "damaged artifact") == {("corpus", RECIPE.key)}
    with pytest.raises(DamagedArtifactError, match=r"manifest\.json: "):
        store.get("corpus", RECIPE.key)
    assert make(store, RECIPE).path("data.txt").read_text() == "some text"
    assert not is_marked(store)
    assert store.find(RECIPE)
    assert [v.ok for v in store.verify()] == [True]


def test_what_is_marked_for_its_manifest_goes_as_garbage(store, make):
    make(store, RECIPE)
    store._backend.write(f"corpus/{RECIPE.key}/manifest.json", b"{")
    list(store.verify())
    assert freed(collect(store), "damaged artifact") == {("corpus", RECIPE.key)}
    assert store._backend.files("corpus") == {}


def test_a_manifest_that_was_replaced_meanwhile_is_not_marked(store, make, monkeypatch):
    make(store, RECIPE)
    store._backend.write(f"corpus/{RECIPE.key}/manifest.json", b"{")
    real = verification.read_manifests

    def overtaken(backend, names):
        found = real(backend, names)
        make(ArtifactStore(store.url), RECIPE, data="theirs")
        return found

    monkeypatch.setattr(verification, "read_manifests", overtaken)
    assert [v.ok for v in store.verify()] == [False]
    assert not is_marked(store)


def test_a_wrong_file_beside_a_manifest_that_nobody_can_read_is_marked(store, make):
    artifact = make(store, RECIPE)
    flip(store, artifact)
    store._backend.write(f"corpus/{RECIPE.key}/manifest.json", b"{")
    with pytest.raises(DamagedArtifactError, match=r"data\.txt"):
        artifact.path("data.txt")
    assert is_marked(store)


def test_what_was_replaced_meanwhile_is_not_marked(store, make):
    old = make(store, RECIPE, data="old")
    flip(store, old)
    store.remove("corpus", RECIPE.key)
    with pytest.raises(DamagedArtifactError, match="missing"):
        old.path("data.txt")
    assert not is_marked(store)
    make(store, RECIPE, data="new")
    with pytest.raises(DamagedArtifactError):
        old.path("data.txt")
    assert store.find(RECIPE)


def test_a_store_that_cannot_be_written_to_still_refuses_damage(store, make, monkeypatch, caplog):
    artifact = make(store, RECIPE)
    flip(store, artifact)

    def refuse(*_):
        raise PermissionError(errno.EROFS, "read-only")

    monkeypatch.setattr(store._backend, "write", refuse)
    with pytest.raises(DamagedArtifactError):
        artifact.path("data.txt")
    assert "could not be marked" in caplog.text


def test_a_mark_that_cannot_be_read_is_a_mark(store, make):
    make(store, RECIPE)
    store._backend.write(f"corpus/{RECIPE.key}/{MARK}", b"")
    with pytest.raises(DamagedArtifactError, match="marked as damaged"):
        store.get("corpus", RECIPE.key)
    with pytest.raises(DamagedArtifactError, match="marked as damaged"):
        store.get("corpus", RECIPE.key[:8])


def test_a_mark_left_by_a_half_done_removal_does_not_condemn_the_next_one(make):
    store = ArtifactStore("memory://leftmark/runs")
    store._backend.write(f"corpus/{RECIPE.key}/{MARK}", b"{}")
    make(store, RECIPE)
    assert store.find(RECIPE)


def test_no_file_of_an_artifact_can_be_a_mark(store):
    with pytest.raises(StorageError, match="is written by the store"), store.create(RECIPE) as made:
        made.path(MARK)


def test_a_sector_that_cannot_be_read_is_damage(local_store, make, monkeypatch):
    artifact = make(local_store, RECIPE)
    path = artifact.path("data.txt")
    os.utime(path)

    def bad_sector(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checksums, "sha256_file", bad_sector)
    with pytest.raises(DamagedArtifactError, match="cannot be read"):
        artifact.path("data.txt")
    assert local_store.find(RECIPE) is None


def test_a_file_is_read_for_its_checksum_once_per_version(local_store, make, monkeypatch):
    read, real = [], checksums.sha256_file
    monkeypatch.setattr(checksums, "sha256_file", lambda path: read.append(path) or real(path))
    artifact = make(local_store, RECIPE)
    assert len(read) == 1  # when it was written
    path = artifact.path("data.txt")
    artifact.path("data.txt")
    ArtifactStore(local_store.url).find(RECIPE).path("data.txt")
    assert len(read) == 1
    os.utime(path)
    artifact.path("data.txt")
    artifact.path("data.txt")
    assert len(read) == 2


def test_a_damaged_local_copy_is_fetched_again_and_condemns_nobody(make, caplog):
    store = ArtifactStore("memory://badcopy/runs")
    artifact = make(store, RECIPE)
    path = artifact.path("data.txt")
    path.write_text("some tEXt")
    assert artifact.path("data.txt").read_text() == "some text"
    assert "it is fetched again" in caplog.text
    assert store.find(RECIPE)


@pytest.mark.parametrize("moment", ["judged", "cleared"])
def test_of_two_machines_that_replace_what_is_damaged_none_removes_the_other_s(
    store, make, monkeypatch, moment
):
    flip(store, make(store, RECIPE, data="right"))
    list(store.verify())
    other = ArtifactStore(store.url)
    backend, made = store._backend, []
    clear, read = backend.clear, backend.read

    def overtaken(*arguments):
        monkeypatch.undo()
        made.append(make(other, RECIPE, data="theirs"))
        return arguments

    if moment == "cleared":
        monkeypatch.setattr(backend, "clear", lambda *given: clear(*overtaken(*given)))
    else:

        def look(paths):
            texts = read(paths)
            if paths and paths[0].endswith("manifest.json"):
                overtaken()
            return texts

        monkeypatch.setattr(backend, "read", look)
    kept = make(store, RECIPE, data="right")
    assert kept.manifest == made[0].manifest
    assert store.find(RECIPE).manifest == made[0].manifest
    assert [v.ok for v in store.verify()] == [True]


def test_what_another_machine_puts_there_while_the_damaged_one_is_moved_stays(
    local_store, make, monkeypatch
):
    flip(local_store, make(local_store, RECIPE, data="right"))
    list(local_store.verify())
    other, backend, made = ArtifactStore(local_store.url), local_store._backend, []
    move = backend._move_aside

    def overtaken(*arguments):
        monkeypatch.undo()
        made.append(make(other, RECIPE, data="theirs"))
        return move(*arguments)

    monkeypatch.setattr(backend, "_move_aside", overtaken)
    assert make(local_store, RECIPE, data="right").manifest == made[0].manifest
    assert [v.ok for v in local_store.verify()] == [True]
    assert list(backend.temporary.iterdir()) == []
