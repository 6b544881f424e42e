"""A store on a local disk: temporary directory, fsync, rename.

A directory appears under its key whole or not at all, whenever the process or the machine stops.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from stat import S_ISLNK
from typing import TYPE_CHECKING

from storage.backend import FileStat
from storage.checksums import check_file
from storage.errors import StorageError, StoreFullError, is_out_of_space
from storage.names import MANIFEST, is_key, is_kind
from storage.scratch import sync, temporary_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from storage.lineage import Name
    from storage.manifest import FileEntry, Manifest

BALLAST_BYTES = 64 << 10
"""More than the claim of a garbage collection takes, in blocks of any file system."""

_BALLAST = ".ballast"
_BLOCK = 1 << 20


class LocalBackend:
    """See `storage.backend.Backend`. Symbolic links that leave the root are never followed."""

    def __init__(self, root: Path, *, make: bool = True) -> None:
        self._root = Path(os.path.realpath(root))
        if make:
            self._root.mkdir(parents=True, exist_ok=True)

    @property
    def temporary(self) -> Path:
        """Inside the root, so that the last step is a rename on one file system."""
        return self._inside(self._root / ".tmp")

    @property
    def workspaces(self) -> Path:
        """Beside the artifacts: checkpoints are large, and the store is where there is space."""
        return self._inside(self._root / ".work")

    def kinds(self) -> list[str]:
        """Directories of the root with the name of a kind."""
        return sorted(p.name for p in self._root.iterdir() if is_kind(p.name) and p.is_dir())

    def listing(
        self, kind: str, keys: Collection[str] | None = None
    ) -> Mapping[str, Mapping[str, FileStat]]:
        """Looks only into the directories asked for."""
        top = self._root / kind
        if keys is None:
            try:
                keys = [path.name for path in top.iterdir() if is_key(path.name)]
            except (FileNotFoundError, NotADirectoryError):
                return {}
        return {key: dict(self._stats(top / key)) for key in sorted(keys) if (top / key).is_dir()}

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """None also for a link that leaves the root."""
        return [self._read(self._root / path) for path in paths]

    def copied(self, listed: Mapping[Name, FileStat]) -> Mapping[Name, bytes]:  # noqa: ARG002
        """None: they are at hand."""
        return {}

    def keep(self, listed: Mapping[Name, FileStat], manifests: Mapping[Name, bytes]) -> None:
        """Nothing."""

    def files(self, directory: str) -> Mapping[str, FileStat]:
        """Without what cannot be read, and links that leave the root."""
        return dict(self._stats(self._root / directory))

    def write(self, path: str, data: bytes) -> None:
        """By a temporary file, renamed."""
        with self._whole(path, data) as (whole, target):
            whole.replace(target)

    def create(self, path: str, data: bytes) -> bool:
        """By a link to a temporary file: of several writers one gets the name."""
        with self._whole(path, data) as (whole, target):
            try:
                os.link(whole, target)
            except FileExistsError:
                return False
            sync(target.parent)
        return True

    def names(self, directory: str) -> list[str]:
        """Hidden files too."""
        try:
            return [path.name for path in self._inside(self._root / directory).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def blocks(self, path: str) -> Iterator[bytes]:
        """StorageError for a link that leaves the root."""
        with self._inside(self._root / path).open("rb") as stream:
            while block := stream.read(_BLOCK):
                yield block

    def fetch(self, manifest: Manifest, entry: FileEntry) -> Path:
        """The file itself; its checksum is compared once per process."""
        path = self._root / manifest.kind / manifest.key / manifest.directory / entry.name
        check_file(self._inside(path), f"{manifest.kind}/{manifest.key}", entry)
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

    def remove(
        self,
        kind: str,
        key: str,
        listed: Collection[str] | None = None,  # noqa: ARG002 (one rename takes them all)
    ) -> None:
        """Rename out of the way, then delete: a kill in between leaves no half artifact."""
        if aside := self._move_aside(self._root / kind / key, kind, key):
            _delete(aside)

    def clear(self, kind: str, key: str, manifest: bytes | None) -> None:
        """Look, rename out of the way, look again, and rename back what is somebody else's."""
        place = self._root / kind / key
        if self._read(place / MANIFEST) != manifest:
            return
        if (aside := self._move_aside(place, kind, key)) is None:
            return
        if self._read(aside / MANIFEST) != manifest:
            # Where the place is taken again, there is one already.
            with suppress(OSError):
                aside.rename(place)
                return
        _delete(aside)

    def discard(self, path: str, *, listed: bool = False) -> None:  # noqa: ARG002
        """As an artifact is removed."""
        if aside := self._move_aside(self._root / path, "files", _digest_of(path)):
            _delete(aside)

    def reserve(self) -> None:
        """A file of random bytes, which no file system makes smaller."""
        path = self._root / _BALLAST
        try:
            with path.open("xb") as file:
                file.write(os.urandom(BALLAST_BYTES))
        except FileExistsError:
            return
        except OSError:  # a full disk, or one that is not to be written to
            with suppress(OSError):
                path.unlink()

    def release(self) -> None:
        """Remove that file."""
        (self._root / _BALLAST).unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """Of the disk, as far as this user may fill it."""
        return shutil.disk_usage(self._root).free

    @contextmanager
    def _whole(self, path: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        """A small file that is written and synced, and the place where it belongs."""
        target = self._root / path
        # Named as an unfinished artifact is, so that what a kill leaves is swept as those are.
        directory = temporary_path(self.temporary, "file", _digest_of(path))
        try:
            self._inside(target.parent).mkdir(parents=True, exist_ok=True)
            directory.mkdir(parents=True)
            whole = directory / target.name
            whole.write_bytes(data)
            sync(whole)
            yield whole, target
        except OSError as error:
            if is_out_of_space(error):
                raise StoreFullError(path, str(self._root), 0) from error
            raise
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _move_aside(self, path: Path, kind: str, key: str) -> Path | None:
        aside = temporary_path(self.temporary, kind, key)
        aside.parent.mkdir(exist_ok=True)
        try:
            (self._inside(path.parent) / path.name).rename(aside)
        except FileNotFoundError:
            return None
        return aside

    def _stats(self, top: Path) -> Iterator[tuple[str, FileStat]]:
        try:
            real = str(self._inside(top))
        except StorageError:
            return
        # Links to directories below are not followed, so only a file can be one that leads away.
        for parent, _, names in os.walk(real):
            for name in names:
                path = f"{parent}/{name}"
                try:
                    stat = os.lstat(path)
                    if S_ISLNK(stat.st_mode):
                        stat = self._inside(Path(path)).stat()
                except (OSError, StorageError):
                    continue  # what cannot be read, or may not be, is missing
                yield path[len(real) + 1 :], FileStat(stat.st_size, stat.st_mtime)

    def _read(self, path: Path) -> bytes | None:
        try:
            return self._inside(path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, StorageError):
            return None

    def _inside(self, path: Path) -> Path:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self._root):
            raise StorageError(f"{path} is a link that leaves the store {self._root}")
        return real


def _digest_of(path: str) -> str:
    return sha256(path.encode()).hexdigest()[:32]


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
