"""A store on a local disk: temporary directory, fsync, rename.

A directory appears under its key whole or not at all, whenever the process or the machine stops.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from storage.errors import DamagedArtifactError, StorageError
from storage.names import MANIFEST, is_key, is_kind
from storage.scratch import sync, temporary_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from storage.manifest import FileEntry, Manifest


class LocalBackend:
    """See `storage.backend.Backend`. Symbolic links that leave the root are never followed."""

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._root.mkdir(parents=True, exist_ok=True)

    @property
    def temporary(self) -> Path:
        """Inside the root, so that the last step is a rename on one file system."""
        return self._root / ".tmp"

    @property
    def workspaces(self) -> Path:
        """Beside the artifacts: checkpoints are large, and the store is where there is space."""
        return self._root / ".work"

    def kinds(self) -> list[str]:
        """Directories of the root with the name of a kind."""
        return sorted(p.name for p in self._root.iterdir() if is_kind(p.name) and p.is_dir())

    def listing(
        self, kind: str, keys: Collection[str] | None = None
    ) -> Mapping[str, Mapping[str, int]]:
        """Looks only into the directories asked for."""
        try:
            present = {path.name for path in (self._root / kind).iterdir() if is_key(path.name)}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        wanted = present if keys is None else present.intersection(keys)
        return {key: dict(self._files(self._root / kind / key)) for key in sorted(wanted)}

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """None also for a link that leaves the root."""
        return [self._read(path) for path in paths]

    def write(self, path: str, data: bytes) -> None:
        """By a temporary file beside it."""
        target = self._root / path
        temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            temporary.write_bytes(data)
            sync(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def open(self, path: str) -> BinaryIO:
        """StorageError for a link that leaves the root."""
        return self._inside(self._root / path).open("rb")

    def fetch(self, manifest: Manifest, entry: FileEntry) -> Path:
        """The file itself; its size is checked."""
        artifact = f"{manifest.kind}/{manifest.key}"
        path = self._root / manifest.kind / manifest.key / manifest.directory / entry.name
        try:
            size = self._inside(path).stat().st_size
        except FileNotFoundError:
            raise DamagedArtifactError(artifact, entry.name, "the file is missing") from None
        if size != entry.bytes:
            reason = f"it has {size:,} bytes instead of {entry.bytes:,}"
            raise DamagedArtifactError(artifact, entry.name, reason)
        return path

    def located(self, manifest: Manifest) -> Manifest:
        """As it is: files lie in the artifact's directory itself."""
        return manifest

    def publish(self, directory: Path, manifest: Manifest) -> bool:
        """Write the manifest into the directory, sync everything, rename the directory."""
        (directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        for parent, _, names in os.walk(directory):
            for name in names:
                sync(Path(parent) / name)
            sync(Path(parent))
        target = self._root / manifest.kind / manifest.key
        target.parent.mkdir(exist_ok=True)
        self._inside(target.parent)
        try:
            directory.rename(target)  # fails on a directory that is not empty
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return False
            raise
        sync(target.parent)
        return True

    def remove(self, kind: str, key: str) -> None:
        """Rename out of the way, then delete: a kill in between leaves no half artifact."""
        aside = temporary_path(self.temporary, kind, key)
        aside.parent.mkdir(exist_ok=True)
        try:
            (self._inside(self._root / kind) / key).rename(aside)
        except FileNotFoundError:
            return
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink()

    def _files(self, top: Path) -> Iterator[tuple[str, int]]:
        for parent, _, names in os.walk(top):
            for name in names:
                path = Path(parent) / name
                try:
                    size = self._inside(path).stat().st_size
                except (OSError, StorageError):
                    continue  # what cannot be read, or may not be, is missing
                yield path.relative_to(top).as_posix(), size

    def _read(self, path: str) -> bytes | None:
        try:
            return self._inside(self._root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, StorageError):
            return None

    def _inside(self, path: Path) -> Path:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self._root):
            raise StorageError(f"{path} is a link that leaves the store {self._root}")
        return real
