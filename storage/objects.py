"""A store on any other fsspec file system (S3, GCS, memory, ...): data first, manifest last.

Nothing is ever renamed, for object stores copy instead. Files lie below a directory named after
their content, so two writers of one key never mix their files; the manifest is created exclusively,
and the first one wins. Readers get local copies from a cache.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import fsspec

from storage.digests import sha256_file
from storage.errors import DamagedArtifactError, StoreFullError, is_out_of_space
from storage.manifest import files_digest
from storage.names import MANIFEST, is_key, is_kind
from storage.scratch import cache_directory

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from storage.manifest import FileEntry, Manifest


class ObjectBackend:
    """See `storage.backend.Backend`."""

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        # Another process writes while this one lists: cached listings would be wrong.
        fs, root = fsspec.core.url_to_fs(url, **{"use_listings_cache": False, **options})
        self._fs: Any = fs
        self._root: str = root.rstrip("/")
        self._name = sha256(url.encode()).hexdigest()[:16]

    @property
    def temporary(self) -> Path:
        """In the local cache."""
        return cache_directory() / "tmp" / self._name

    @property
    def workspaces(self) -> Path:
        """In the local cache: a resume needs the same machine."""
        return cache_directory() / "work" / self._name

    def kinds(self) -> list[str]:
        """First parts of the names below the root that are kinds."""
        try:
            entries = self._fs.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        names = {str(entry).rstrip("/").rpartition("/")[2] for entry in entries}
        return sorted(name for name in names if is_kind(name))

    def listing(
        self, kind: str, keys: Collection[str] | None = None
    ) -> Mapping[str, Mapping[str, int]]:
        """One listing, of one artifact if one key is asked for and else of the kind."""
        top = self._path(kind)
        start = f"{top}/{next(iter(keys))}" if keys is not None and len(keys) == 1 else top
        try:
            found = self._fs.find(start, detail=True)
        except FileNotFoundError:
            return {}
        sizes: dict[str, dict[str, int]] = {}
        for path, info in found.items():
            key, _, name = self._below(path, top).partition("/")
            if name and is_key(key) and (keys is None or key in keys):
                sizes.setdefault(key, {})[name] = int(info["size"])
        return sizes

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """Concurrently, where the file system can."""
        found = self._fs.cat_ranges(
            [self._path(path) for path in paths], None, None, on_error="return"
        )
        return [_bytes_or_none(item) for item in found]

    def write(self, path: str, data: bytes) -> None:
        """One request, so the object appears whole."""
        self._fs.pipe_file(self._path(path), data)

    def open(self, path: str) -> BinaryIO:
        """Read ahead in blocks."""
        return cast("BinaryIO", self._fs.open(self._path(path), "rb"))

    def fetch(self, manifest: Manifest, entry: FileEntry) -> Path:
        """A copy in the local cache, its checksum verified when it is downloaded."""
        # Named by the content too: a recomputed artifact must not find old copies.
        name = f"{manifest.key}-{files_digest(manifest.files)[:16]}"
        path = cache_directory() / "artifacts" / manifest.kind / name / entry.name
        if not (path.is_file() and path.stat().st_size == entry.bytes):
            self._download(manifest, entry, path)
        return path

    def located(self, manifest: Manifest) -> Manifest:
        """Files go below a directory named after their content."""
        return dataclasses.replace(manifest, directory=files_digest(manifest.files)[:16])

    def publish(self, directory: Path, manifest: Manifest) -> bool:
        """Put the files, then create the manifest unless there is one."""
        top = self._path(f"{manifest.kind}/{manifest.key}")
        for entry in manifest.files:
            remote = f"{top}/{manifest.directory}/{entry.name}"
            self._fs.put_file(str(directory / entry.name), remote)
        try:
            data = manifest.to_json().encode()
            self._fs.pipe_file(f"{top}/{MANIFEST}", data, mode="create")
        except FileExistsError:
            return False
        return True

    def remove(self, kind: str, key: str) -> None:
        """The manifest first: without it, what is left is no artifact."""
        top = self._path(f"{kind}/{key}")
        found = self._fs.find(top)
        for path in sorted(found, key=lambda path: self._below(path, top) != MANIFEST):
            self._fs.rm_file(path)

    def _download(self, manifest: Manifest, entry: FileEntry, path: Path) -> None:
        artifact = f"{manifest.kind}/{manifest.key}"
        remote = self._path("/".join(filter(None, (artifact, manifest.directory, entry.name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            self._fs.get_file(remote, str(temporary))
            if sha256_file(temporary) != entry.sha256:
                reason = "its bytes are not those that were written (checksum)"
                raise DamagedArtifactError(artifact, entry.name, reason)
            temporary.replace(path)
        except FileNotFoundError as error:
            raise DamagedArtifactError(artifact, entry.name, "the file is missing") from error
        except OSError as error:
            if is_out_of_space(error):
                written = temporary.stat().st_size if temporary.exists() else 0
                raise StoreFullError(artifact, str(path.parent), written) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _below(self, path: str, top: str) -> str:
        return path.lstrip("/").removeprefix(top.lstrip("/")).lstrip("/")


def _bytes_or_none(item: object) -> bytes | None:
    if isinstance(item, FileNotFoundError):
        return None
    if isinstance(item, BaseException):
        raise item
    return bytes(cast("bytes", item))
