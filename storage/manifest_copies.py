"""Manifests of an object store as they were last read, so that a look at thousands asks for none.

    $SPARSEDISTILL_CACHE/artifacts/.manifests/<store>/<kind>-<key>

A listing, which a look needs anyway, tells the version of every object (its ETag). A copy starts
with a digest over that version and the manifest: one of another version, a damaged or a torn one is
none. Copies count towards the limit of `storage.local_copies`, and go when it asks for it.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from storage.local_copies import LocalCopies

DIRECTORY = ".manifests"


class ManifestCopies:
    """The copies of one store's manifests; threads and processes may share them."""

    def __init__(self, copies: LocalCopies, store: str) -> None:
        self._copies = copies
        self._store = store

    def read(self, kind: str, key: str, version: str) -> bytes | None:
        """Return the manifest of that version; None where there is no copy of it."""
        try:
            digest, _, manifest = self._path(kind, key).read_bytes().partition(b"\n")
        except OSError:
            return None
        return manifest if digest == _digest(version, manifest) else None

    def keep(self, kind: str, key: str, version: str, manifest: bytes) -> None:
        """Keep a manifest that was read; where there is no room, it is read again next time."""
        path = self._path(kind, key)
        self._copies.make_room(len(manifest))
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_digest(version, manifest) + b"\n" + manifest)

    def _path(self, kind: str, key: str) -> Path:
        return self._copies.path(DIRECTORY, self._store, f"{kind}-{key}")


def _digest(version: str, manifest: bytes) -> bytes:
    return sha256(version.encode() + b"\n" + manifest).hexdigest().encode()
