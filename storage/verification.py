"""Reading artifacts whole and comparing every byte with what was written."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage import marks
from storage.artifact import Artifact
from storage.catalogue import read_manifests
from storage.checksums import ALTERED, wrong_size
from storage.errors import (
    DamagedArtifactError,
    StorageError,
    StoreUnreachableError,
    StoreVersionError,
)
from storage.names import MANIFEST

if TYPE_CHECKING:
    from storage.backend import Backend
    from storage.manifest import FileEntry, Manifest


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of reading an artifact whole.

    Attributes:
        kind: Of the artifact, like key.
        artifact: None where not even the manifest can be read.
        problems: One line each, naming the file; empty when all is well.
        newer: Whether a newer version wrote it: not damaged, only not to be read here.
    """

    kind: str
    key: str
    artifact: Artifact | None
    problems: tuple[str, ...]
    newer: bool = False

    @property
    def ok(self) -> bool:
        """Whether every byte is as it was written."""
        return not self.problems


def verify(backend: Backend, kind: str, key: str) -> Verification:
    """Read an artifact whole; mark it when it is damaged, and take a wrong mark away.

    Raises:
        StoreUnreachableError: the store could not be asked, which is no damage.
    """
    try:
        manifest = read_manifests(backend, [(kind, key)])[kind, key].manifest
    except StoreVersionError as error:
        return Verification(kind, key, None, (str(error),), newer=True)
    except DamagedArtifactError as error:
        marks.mark(backend, (kind, key), None, error.file, error.reason)
        return Verification(kind, key, None, (str(error),))
    found = [(file.name, _problem(backend, manifest, file)) for file in manifest.files]
    problems = [(name, problem) for name, problem in found if problem]
    if manifest.recipe.key != key:
        problems.append((MANIFEST, "its recipe does not give this key; it was altered"))
    if problems:
        marks.mark(backend, (kind, key), manifest, *problems[0])
    else:
        marks.unmark(backend, manifest)
    told = tuple(f"{name}: {problem}" for name, problem in problems)
    return Verification(kind, key, Artifact(manifest, backend), told)


def _problem(backend: Backend, manifest: Manifest, file: FileEntry) -> str | None:
    parts = (manifest.kind, manifest.key, manifest.directory, file.name)
    path = "/".join(filter(None, parts))
    # Twice before it is believed: a request, or a bit in memory, can go wrong too.
    return _compare(backend, path, file) and _compare(backend, path, file)


def _compare(backend: Backend, path: str, file: FileEntry) -> str | None:
    digest = hashlib.sha256()
    size = 0
    try:
        for block in backend.blocks(path):
            digest.update(block)
            size += len(block)
    except FileNotFoundError:
        return "the file is missing"
    except StoreUnreachableError:
        raise  # says nothing of the file
    except StorageError as error:
        return str(error)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return f"it cannot be read ({error.strerror})"
    if size != file.bytes:
        return wrong_size(size, file)
    return None if digest.hexdigest() == file.sha256 else ALTERED
