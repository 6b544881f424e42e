"""Copies of manifests in a cache that is full, shared or littered: right ones, or none."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage import ArtifactStore, local_copies, manifest_copies
from storage.backend import FileStat
from storage.local_copies import SPARED_SECONDS, LocalCopies
from storage.manifest_copies import ManifestCopies

TEXTS = {("corpus", f"{number:032x}"): b"%d" % number * 300 for number in range(10)}
LISTED = {name: FileStat(len(text), 0.0, f"tag {name}") for name, text in TEXTS.items()}
FIRST, *OTHERS = TEXTS


def opened() -> ManifestCopies:
    """As another process has them."""
    return ManifestCopies(LocalCopies(), "store")


def place(cache: Path, name: tuple[str, str] = FIRST) -> Path:
    return cache / "artifacts" / manifest_copies.DIRECTORY / "store" / "-".join(name)


@pytest.fixture
def kept() -> None:
    opened().keep(LISTED, TEXTS)
    assert opened().read(LISTED) == TEXTS


@pytest.mark.parametrize(
    "stat",
    [
        FileStat(LISTED[FIRST].bytes, 0.0, "another tag"),
        FileStat(LISTED[FIRST].bytes + 1, 0.0, LISTED[FIRST].version),
        FileStat(LISTED[FIRST].bytes, 0.0),
    ],
    ids=["version", "size", "no version"],
)
def test_what_is_not_as_listed_is_neither_read_nor_kept(kept, private_cache, stat):
    assert opened().read({FIRST: stat}) == {}
    if stat.version != "another tag":
        place(private_cache).unlink()
        opened().keep({FIRST: stat}, {FIRST: TEXTS[FIRST]})
        assert not place(private_cache).exists()


@pytest.mark.parametrize("part", ["corpus-", "copies.lock"])
def test_on_a_full_disk_nothing_is_kept_and_nothing_fails(monkeypatch, part):
    real = os.open

    def full(path, *given, **named):
        if part in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", full)
        opened().keep(LISTED, TEXTS)
    assert opened().read(LISTED) == {}


def test_a_copy_that_was_cut_by_a_full_disk_is_none(kept, private_cache):
    with place(private_cache).open("r+b") as file:
        file.truncate(200)
    assert opened().read(LISTED).keys() == set(OTHERS)


@pytest.mark.parametrize("what", ["directory", "link", "hard link", "pipe"])
def test_what_stands_in_the_place_of_a_copy_is_neither_followed_nor_written_to(
    kept, private_cache, tmp_path, what
):
    outside, here = tmp_path / "outside", place(private_cache)
    here.replace(outside)
    before = outside.read_bytes()
    make: dict[str, Callable[[], object]] = {
        "directory": here.mkdir,
        "link": lambda: here.symlink_to(outside),
        "hard link": lambda: here.hardlink_to(outside),
        "pipe": lambda: os.mkfifo(here),
    }
    make[what]()
    assert opened().read(LISTED).keys() - {FIRST} == set(OTHERS)
    assert (FIRST in opened().read(LISTED)) == (what == "hard link")
    longer = {FIRST: TEXTS[FIRST] * 2}
    listed = {FIRST: FileStat(len(longer[FIRST]), 0.0, "new")}
    opened().keep(listed, longer)
    assert opened().read(listed) == ({} if what == "directory" else longer)
    assert outside.read_bytes() == before


def test_what_another_user_wrote_is_none(kept, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert opened().read(LISTED) == {}


def test_the_cache_is_made_for_its_user_alone(private_cache):
    ArtifactStore("memory://alone/runs")
    assert private_cache.stat().st_mode & 0o777 == 0o700
    opened().keep(LISTED, TEXTS)
    assert {place(private_cache, name).stat().st_mode & 0o777 for name in TEXTS} == {0o600}


def test_room_is_made_and_warned_of_once_for_all(monkeypatch, caplog):
    evict, evicted = LocalCopies._evict, []
    monkeypatch.setattr(
        LocalCopies, "_evict", lambda self, size: evicted.append(size) or evict(self, size)
    )
    monkeypatch.setenv(local_copies.SIZE_VARIABLE, "0")
    copies = opened()
    copies.keep(LISTED, TEXTS)
    assert evicted == [sum(map(len, TEXTS.values()))]
    assert caplog.text.count("all of it was used within the last hour") == 1
    assert copies.read(LISTED) == TEXTS
    copies.keep(LISTED, {})
    assert len(evicted) == 1


def test_what_was_looked_at_stays_when_room_is_made(kept, private_cache, monkeypatch):
    used, real = OTHERS[3:6], os.open
    for name in TEXTS:
        os.utime(place(private_cache, name), (time.time() - 2 * SPARED_SECONDS,) * 2)
    with monkeypatch.context() as patch:
        # As where the disk is mounted so that nobody notes a reading.
        patch.setattr(os, "open", lambda path, flags: real(path, flags | os.O_NOATIME))
        assert opened().read({name: LISTED[name] for name in used}).keys() == set(used)
    monkeypatch.setenv(local_copies.SIZE_VARIABLE, "1KB")
    LocalCopies().make_room(1)
    assert opened().read(LISTED).keys() == set(used)


def test_threads_that_keep_and_read_at_once_never_get_a_mixture():
    texts = {f"tag {number}": b"%d" % number * 50_000 * (number + 1) for number in range(4)}
    wrong: list[bytes] = []
    right: list[bytes] = []

    def work(version: str) -> None:
        copies, listed = opened(), {FIRST: FileStat(len(texts[version]), 0.0, version)}
        for _ in range(100):
            copies.keep(listed, {FIRST: texts[version]})
            for text in copies.read(listed).values():
                (right if text == texts[version] else wrong).append(text)

    threads = [threading.Thread(target=work, args=(version,)) for version in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert right
