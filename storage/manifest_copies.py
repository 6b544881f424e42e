"""Manifests of an object store as they were last read, so that a look at thousands asks for none.

    $SPARSEDISTILL_CACHE/artifacts/.manifests/<store>/<kind>-<key>

A listing, which a look needs anyway, tells the version of every object (its ETag) and its size. A
copy starts with a digest over that version and the manifest: one of another version, a damaged or a
torn one is none, nor is one that another user wrote. Copies count towards the limit of
`storage.local_copies`, and go when it asks for it. They are never needed: whatever is wrong with
their directory, the store is asked instead.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

from storage.errors import StorageError
from storage.local_copies import NOTED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from storage.backend import FileStat
    from storage.lineage import Name
    from storage.local_copies import LocalCopies

DIRECTORY = ".manifests"


class ManifestCopies:
    """The copies of one store's manifests; threads and processes may share them."""

    def __init__(self, copies: LocalCopies, store: str) -> None:
        self._copies = copies
        self._store = store

    def read(self, listed: Mapping[Name, FileStat]) -> dict[Name, bytes]:
        """The manifests of which there is a copy, of the version and size that a listing tells."""
        found = {}
        with suppress(OSError, StorageError):
            directory = self._directory()
            for (kind, key), stat in listed.items():
                with suppress(OSError):
                    digest, _, manifest = _read_own(directory / f"{kind}-{key}").partition(b"\n")
                    if _may_be(stat, manifest) and digest == _digest(stat.version, manifest):
                        found[kind, key] = manifest
        return found

    def keep(self, listed: Mapping[Name, FileStat], manifests: Mapping[Name, bytes]) -> None:
        """Keep manifests that were read; one that changed since it was listed is not kept."""
        new = {name: text for name, text in manifests.items() if _may_be(listed[name], text)}
        if not new:
            return
        with suppress(OSError, StorageError):
            self._copies.make_room(sum(len(text) for text in new.values()))
            directory = self._directory()
            directory.mkdir(parents=True, exist_ok=True)
            for (kind, key), text in new.items():
                content = _digest(listed[kind, key].version, text) + b"\n" + text
                with suppress(OSError):
                    _replace(directory / f"{kind}-{key}", content)

    def _directory(self) -> Path:
        return self._copies.path(DIRECTORY, self._store)


def _may_be(stat: FileStat, manifest: bytes) -> bool:
    return bool(stat.version) and len(manifest) == stat.bytes


def _digest(version: str, manifest: bytes) -> bytes:
    return sha256(version.encode() + b"\n" + manifest).hexdigest().encode()


def _read_own(path: Path) -> bytes:
    """A file of this user's, its use noted for `storage.local_copies`; empty if it is another's."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        stat = os.fstat(descriptor)
        # The digest needs no secret, so anybody could write one that fits.
        if stat.st_uid != os.geteuid():
            return b""
        if time.time() - stat.st_atime > NOTED_SECONDS:
            with suppress(OSError):
                os.utime(descriptor, ns=(time.time_ns(), stat.st_mtime_ns))
        return file.read()


def _replace(path: Path, content: bytes) -> None:
    """Write a new file for this user alone; never into what is there, be it a link or another's."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
