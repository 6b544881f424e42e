"""A finished artifact: its manifest, and its files as local paths that were checked."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from storage import marks
from storage.errors import DamagedArtifactError, StorageError
from storage.manifest import Input
from storage.reads import note_read

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from storage.backend import Backend
    from storage.digests import JSON
    from storage.manifest import FileEntry, Manifest

_LOG = logging.getLogger(__name__)


class Artifact:
    """An artifact of a store. Small: it can be handed between processes; data stays in the store.

    Attributes:
        manifest: All that is known about it.
    """

    def __init__(self, manifest: Manifest, backend: Backend) -> None:
        self.manifest = manifest
        self._backend = backend

    def __repr__(self) -> str:
        return f"Artifact({self.kind}/{self.key})"

    @property
    def kind(self) -> str:
        """The stage that made it."""
        return self.manifest.kind

    @property
    def key(self) -> str:
        """32 hexadecimal digits, of its recipe."""
        return self.manifest.key

    @property
    def digest(self) -> str:
        """Digest of its content."""
        return self.manifest.digest

    @property
    def statistics(self) -> Mapping[str, JSON]:
        """Figures the stage wrote down."""
        return self.manifest.statistics

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its files, sorted."""
        return tuple(file.name for file in self.manifest.files)

    def as_input(self) -> Input:
        """This artifact as an input of another recipe."""
        return Input(self.kind, self.key, self.digest)

    def entry(self, name: str) -> FileEntry:
        """What the manifest says of a file; StorageError, with the names there are, if nothing."""
        for file in self.manifest.files:
            if file.name == name:
                return file
        known = ", ".join(self.names) or "none"
        raise StorageError(f"{self.kind}/{self.key} has no file {name!r}; it has: {known}")

    def path(self, name: str) -> Path:
        """A local path of a file; of a remote store, one of a cached copy. Only for reading.

        Raises:
            DamagedArtifactError: the file is missing, or has another size or other bytes than were
                written. The artifact is marked (`storage.marks`): the next run makes it again.
            StoreFullError: no space for the local copy.
        """
        entry = self.entry(name)
        note_read(self.kind, self.key, name, entry.bytes)
        try:
            return self._backend.fetch(self.manifest, entry)
        except DamagedArtifactError as error:
            marked = (self.kind, self.key)
            if marks.mark(self._backend, marked, self.manifest, error.file, error.reason):
                _LOG.warning(
                    "%s: %s: %s; the next run makes it again",
                    "/".join(marked), error.file, error.reason,
                )  # fmt: skip
            raise

    def directory(self) -> Path:
        """A local directory that holds all files under their names; raises as `path` does."""
        paths = [(name, self.path(name)) for name in self.names]
        if not paths:
            raise StorageError(f"{self.kind}/{self.key} has no files")
        name, path = paths[0]
        return path.parents[name.count("/")]

    def read_json(self, name: str) -> Any:  # noqa: ANN401 (JSON of any shape)
        """Content of a JSON file; DamagedArtifactError when it is none."""
        try:
            return json.loads(self.path(name).read_bytes())
        except ValueError as error:
            raise DamagedArtifactError(f"{self.kind}/{self.key}", name, str(error)) from error
