"""A store on any other fsspec file system (S3, GCS, memory, ...): data first, manifest last.

Nothing is ever renamed, for object stores copy instead. Files lie below a directory named after
their content, so two writers of one key never mix their files; the manifest is created exclusively,
and the first one wins. Readers get local copies from a cache.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from contextlib import suppress
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

import fsspec
from fsspec.core import has_magic

from storage.backend import FileStat
from storage.checksums import check_file, wrong_size
from storage.errors import (
    DamagedArtifactError,
    StorageError,
    StoreFullError,
    StoreUnreachableError,
    is_out_of_space,
)
from storage.local_copies import LocalCopies
from storage.manifest import files_digest
from storage.manifest_copies import ManifestCopies
from storage.names import MANIFEST, MARK, is_key, is_kind
from storage.retrying import again, is_of_network, may_pass
from storage.scratch import (
    cache_directory,
    make_cache_directory,
    make_temporary,
    size_of,
    sweep,
)
from storage.turns import turn

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from storage.lineage import Name
    from storage.manifest import FileEntry, Manifest

_BLOCK = 1 << 20


class ObjectBackend:
    """See `storage.backend.Backend`. What a network or a server gets wrong is tried again.

    Raises:
        StoreUnreachableError: from any method, when it did not help.
    """

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        # Another process writes while this one lists: cached listings would be wrong.
        fs, root = fsspec.core.url_to_fs(url, **{"use_listings_cache": False, **options})
        self._fs: Any = fs
        self._root: str = root.rstrip("/")
        self._url = url.rstrip("/")
        self._name = sha256(url.encode()).hexdigest()[:16]
        make_cache_directory()
        self._copies = LocalCopies()
        self._manifests = ManifestCopies(self._copies, self._name)
        # Else s3fs asks for the size of every small file before it reads it.
        self._reading = {"max_concurrency": 1} if "s3" in _protocols(fs) else {}

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
        return sorted(name for name in self.names("") if is_kind(name))

    def listing(
        self, kind: str, keys: Collection[str] | None = None
    ) -> Mapping[str, Mapping[str, FileStat]]:
        """One listing, of one artifact if one key is asked for and else of the kind."""
        one = next(iter(keys)) if keys is not None and len(keys) == 1 else None
        found: dict[str, dict[str, FileStat]] = {}
        for path, stat in self.files(f"{kind}/{one}" if one else kind).items():
            key, _, name = f"{one}/{path}".partition("/") if one else path.partition("/")
            if name and is_key(key) and (keys is None or key in keys):
                found.setdefault(key, {})[name] = stat
        return found

    def files(self, directory: str) -> Mapping[str, FileStat]:
        """One listing."""
        top = self._path(directory)
        try:
            found = self._ask("the listing", directory, self._fs.find, top, detail=True)
        except FileNotFoundError:
            return {}
        stats = {
            self._below(path, top): FileStat(int(info["size"]), _modified(info), _version(info))
            for path, info in found.items()
        }
        # The directory itself, where somebody has made an object that stands for it.
        stats.pop("", None)
        return stats

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """Concurrently, where the file system can."""
        found = self._ask(
            "the reading", "", self._fs.cat_ranges, [self._path(path) for path in paths],
            None, None, on_error="return", **self._reading,
        )  # fmt: skip
        return [self._content(path, item) for path, item in zip(paths, found, strict=True)]

    def copied(self, listed: Mapping[Name, FileStat]) -> Mapping[Name, bytes]:
        """From the local cache."""
        return self._manifests.read(listed)

    def keep(self, listed: Mapping[Name, FileStat], manifests: Mapping[Name, bytes]) -> None:
        """In the local cache."""
        self._manifests.keep(listed, manifests)

    def write(self, path: str, data: bytes) -> None:
        """One request, so the object appears whole."""
        self._ask("the writing", path, self._fs.pipe_file, self._path(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """One conditional request.

        False, too, when a request was heard whose answer was lost: read what is there to know.
        """
        try:
            self._ask(
                "the writing", path, self._fs.pipe_file, self._path(path), data, mode="create"
            )
        except FileExistsError:
            return False
        except StorageError:
            # Not every server says the same of a name that is taken.
            if self._fs.exists(self._path(path)):
                return False
            raise
        return True

    def names(self, directory: str) -> list[str]:
        """One listing."""
        try:
            entries = self._ask(
                "the listing", directory, self._fs.ls, self._path(directory), detail=False
            )
        except FileNotFoundError:
            return []
        return [str(entry).rstrip("/").rpartition("/")[2] for entry in entries]

    def blocks(self, path: str) -> Iterator[bytes]:
        """Read ahead in blocks; every request is tried again."""
        stream = self._ask("the opening", path, self._fs.open, self._path(path), "rb")
        with stream:
            while block := self._ask("the reading", path, stream.read, _BLOCK):
                yield bytes(block)

    def fetch(self, manifest: Manifest, entry: FileEntry) -> Path:
        """A copy in the local cache, its checksum compared once per process."""
        # Named by the content too: a recomputed artifact must not find old copies.
        name = f"{manifest.key}-{files_digest(manifest.files)[:16]}"
        path = self._copies.path(manifest.kind, name, entry.name)
        if not self._copies.has(path, entry):
            waiting = sha256(str(path).encode()).hexdigest()[:32]
            with turn(self.temporary / f"{manifest.kind}-{waiting}.lock"):
                if not self._copies.has(path, entry):
                    self._download(manifest, entry, path)
        return path

    def located(self, manifest: Manifest) -> Manifest:
        """Files go below a directory named after their content."""
        return dataclasses.replace(manifest, directory=files_digest(manifest.files)[:16])

    def publish(self, directory: Path, manifest: Manifest) -> bool:
        """Put the files, see that all have arrived, then create the manifest if there is none."""
        name = f"{manifest.kind}/{manifest.key}"
        self._upload(directory, manifest, manifest.files)
        there = self.files(name)
        if wrong := _wrong_files(manifest, there):
            self._upload(directory, manifest, wrong)
            there = self.files(name)
        for entry in _wrong_files(manifest, there)[:1]:
            stat = there.get(f"{manifest.directory}/{entry.name}")
            reason = wrong_size(stat.bytes, entry) if stat else "it is not there"
            raise StoreUnreachableError(
                self._url, f"the upload of {name}/{entry.name}", f"{reason}; nothing was published"
            )
        if MARK in there and MANIFEST not in there:
            self.discard(f"{name}/{MARK}")  # of one that was half removed
        return self.create(f"{name}/{MANIFEST}", manifest.to_json().encode())

    def remove(self, kind: str, key: str, listed: Collection[str] | None = None) -> None:
        """The manifest first: without it, what is left is no artifact."""
        name = f"{kind}/{key}"
        files = list(self.files(name)) if listed is None else listed
        if MANIFEST in files:
            self._delete([f"{name}/{MANIFEST}"])
        self._delete([f"{name}/{path}" for path in sorted(files) if path != MANIFEST])

    def clear(self, kind: str, key: str, manifest: bytes | None) -> None:
        """Looked at right before: between the two nothing but one request can come."""
        files = list(self.files(f"{kind}/{key}"))
        if self.read([f"{kind}/{key}/{MANIFEST}"]) == [manifest]:
            self.remove(kind, key, files)

    def discard(self, path: str, *, listed: bool = False) -> None:
        """One listing, where it is needed, and one request for a thousand files."""
        if listed:
            self._delete([path])
        else:
            found = self._ask("the listing", path, self._fs.find, self._path(path))
            self._delete([self._below(each, self._root) for each in found])

    def reserve(self) -> None:
        """Nothing: object stores do not fill up."""

    def release(self) -> None:
        """Nothing."""

    def _delete(self, paths: Sequence[str]) -> None:
        """Files that a listing has told; gone ones do not matter."""
        # Of several, fsspec would take some names for patterns.
        plain = [path for path in paths if not has_magic(path)] if len(paths) > 1 else []
        if plain and not self._delete_at_once(plain):
            plain = []
        for path in sorted(set(paths) - set(plain)):
            # Somebody else may have been faster.
            with suppress(FileNotFoundError):
                self._ask("the removal", path, self._fs.rm_file, self._path(path))

    def _delete_at_once(self, paths: Sequence[str]) -> bool:
        try:
            self._ask("the removal", paths[0], self._fs.rm, [self._path(path) for path in paths])
        except FileNotFoundError:
            return False  # one was gone: what became of the rest is not told
        return True

    def free_bytes(self) -> int | None:
        """Object stores do not fill up."""
        return None

    def _upload(self, directory: Path, manifest: Manifest, files: Sequence[FileEntry]) -> None:
        for entry in files:
            name = f"{manifest.kind}/{manifest.key}/{manifest.directory}/{entry.name}"
            local = str(directory / entry.name)
            self._ask("the upload", name, self._fs.put_file, local, self._path(name))

    def _download(self, manifest: Manifest, entry: FileEntry, path: Path) -> None:
        artifact = f"{manifest.kind}/{manifest.key}"
        remote = "/".join(filter(None, (artifact, manifest.directory, entry.name)))
        self._copies.make_room(entry.bytes)
        sweep(self.temporary, manifest.kind, manifest.key)
        directory = make_temporary(self.temporary, manifest.kind, manifest.key)
        try:
            self._get_whole(remote, directory / "copy", artifact, entry)
            self._copies.take(directory / "copy", path)
        except FileNotFoundError as error:
            raise DamagedArtifactError(artifact, entry.name, "the file is missing") from error
        except Exception as error:
            if is_out_of_space(error):
                written = size_of(directory)
                raise StoreFullError(artifact, str(path.parent), written) from error
            raise
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _get_whole(self, remote: str, local: Path, artifact: str, entry: FileEntry) -> None:
        for last in (False, True):
            self._ask("the download", remote, self._fs.get_file, self._path(remote), str(local))
            try:
                check_file(local, artifact, entry)
            except DamagedArtifactError:
                # Once more before it is believed: what came may not be what is there.
                if last:
                    raise
            else:
                return

    def _content(self, path: str, item: object) -> bytes | None:
        if isinstance(item, Exception) and may_pass(item):
            cat = partial(self._fs.cat_file, self._path(path), **self._reading)
            try:
                item = self._ask("the reading", path, cat)
            except FileNotFoundError:
                return None
        if isinstance(item, FileNotFoundError):
            return None
        if isinstance(item, BaseException):
            raise self._unreachable("the reading", path, item) from item
        return bytes(cast("bytes", item))

    def _ask(
        self, what: str, path: str, request: Callable[..., Any], *args: object, **options: object
    ) -> Any:  # noqa: ANN401 (what fsspec answers)
        try:
            return again(f"{what} of {path}", lambda: request(*args, **options))
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:
            if is_out_of_space(error) or not is_of_network(error):
                raise
            raise self._unreachable(what, path, error) from error

    def _unreachable(self, what: str, path: str, error: BaseException) -> StoreUnreachableError:
        reason = str(error) or type(error).__name__
        return StoreUnreachableError(self._url, f"{what} of {path or 'its files'}", reason)

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    def _below(self, path: str, top: str) -> str:
        return path.lstrip("/").removeprefix(top.lstrip("/")).lstrip("/")


def _protocols(fs: Any) -> tuple[str, ...]:  # noqa: ANN401 (fsspec has no types)
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _wrong_files(manifest: Manifest, there: Mapping[str, FileStat]) -> list[FileEntry]:
    """Files of a manifest that are not there, or have another size."""
    wrong = []
    for entry in manifest.files:
        stat = there.get(f"{manifest.directory}/{entry.name}")
        if stat is None or stat.bytes != entry.bytes:
            wrong.append(entry)
    return wrong


def _version(info: Mapping[str, Any]) -> str:
    """The ETag; a weak one may stay where bytes change."""
    tag = str(info.get("ETag") or info.get("etag") or "")
    return "" if tag.startswith("W/") else tag


def _modified(info: Mapping[str, Any]) -> float:
    """When a file was written, by the server's clock; file systems name it differently."""
    for name in ("LastModified", "updated", "last_modified", "mtime", "modified", "created"):
        value = info.get(name)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return math.inf
