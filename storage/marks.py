"""Marks: what was found damaged is made again by the next run.

    <root>/<kind>/<key>/damaged.json      format, file, reason, time

Who finds a wrong checksum, or a manifest that cannot be read, puts a mark down beside the manifest.
What is marked counts as missing, which any listing tells; what is published in its place takes the
mark away with the rest.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from storage.catalogue import read_manifests
from storage.errors import DamagedArtifactError, StorageError
from storage.names import MARK

if TYPE_CHECKING:
    from storage.backend import Backend
    from storage.lineage import Name
    from storage.manifest import Manifest

FORMAT = 1
"""Of a mark; its presence alone counts, so that any version obeys one of any other."""

_LOG = logging.getLogger(__name__)


def mark(backend: Backend, name: Name, manifest: Manifest | None, file: str, reason: str) -> bool:
    """Have an artifact made again. A store that cannot be written to is left alone, with a warning.

    Nothing happens when the artifact is not the one any more that was found damaged: its manifest
    is neither that one (None: one that says nothing) nor damaged itself. Returns whether it is
    marked now.
    """
    place = "/".join(name)
    fields = {
        "format": FORMAT,
        "file": file,
        "reason": reason,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        there = read_manifests(backend, [name])[name]
        if there.is_damaged or there.outcome == manifest:
            backend.write(f"{place}/{MARK}", json.dumps(fields, indent=1).encode() + b"\n")
            return True
    except (OSError, StorageError) as error:
        _LOG.warning("%s is damaged, and could not be marked so: %s", place, error)
    return False


def unmark(backend: Backend, manifest: Manifest) -> None:
    """Take a mark away, if there is one: every byte was found to be right after all."""
    path = f"{manifest.kind}/{manifest.key}/{MARK}"
    if backend.read([path]) != [None]:
        backend.discard(path)
        _LOG.warning("%s/%s is whole: its mark was removed", manifest.kind, manifest.key)


def marked(backend: Backend, kind: str, key: str) -> DamagedArtifactError:
    """The error that tells of a mark."""
    (text,) = backend.read([f"{kind}/{key}/{MARK}"])
    try:
        fields = json.loads(text or b"")
        return DamagedArtifactError(f"{kind}/{key}", str(fields["file"]), str(fields["reason"]))
    except (ValueError, KeyError, TypeError):
        return DamagedArtifactError(f"{kind}/{key}", MARK, "it was marked as damaged")
