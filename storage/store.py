"""The artifact store: content-addressed directories with a manifest each, on any file system.

    <root>/store.json                     the format of the store
    <root>/<kind>/<key>/manifest.json     written last: what has none does not exist
    <root>/<kind>/<key>/...               the files

The store alone decides what is already there; nobody else keeps records of finished work.
"""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
from fsspec.implementations.local import LocalFileSystem

from storage import garbage, lineage, marks, records, turns, verification
from storage.artifact import Artifact
from storage.catalogue import check_sizes, load_manifests, read_manifests
from storage.errors import (
    NoStoreError,
    StorageError,
    StoreFullError,
    StoreVersionError,
    is_out_of_space,
)
from storage.garbage import DAY
from storage.leases import hold
from storage.local import LocalBackend
from storage.names import (
    MANIFEST,
    MARK,
    check_key,
    check_key_prefix,
    check_kind,
    check_store_url,
    is_key,
)
from storage.objects import ObjectBackend
from storage.scratch import make_temporary, size_of, sweep
from storage.strays import lock_of
from storage.urls import shown
from storage.writer import ArtifactWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from storage.backend import Backend
    from storage.digests import JSON
    from storage.garbage import Collection, Rules
    from storage.leases import Lease
    from storage.lineage import LineageNode, Name
    from storage.manifest import Manifest, Recipe
    from storage.records import Record
    from storage.verification import Verification

FORMAT = 1
"""Newest store format this version reads and the one it writes."""

_LOG = logging.getLogger(__name__)
_STORE_FILE = "store.json"
_PUBLISH_TRIES = 5
_SHOWN = 10


class ArtifactStore:
    """Artifacts below one root.

    A store can be pickled; it is opened anew where it arrives. Threads may share it.

    Args:
        url: A path, or any URL fsspec knows (`s3://bucket/runs`).
        make: Whether to make a store where there is none.
        storage_options: What fsspec needs to open the URL (keys, endpoint).

    Raises:
        StoreVersionError: a newer version wrote the store.
        NoStoreError: there is none, and none is to be made.
        StorageError: `store.json` is unreadable, the place cannot be reached, or the URL holds
            credentials.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        make: bool = True,
        storage_options: Mapping[str, object] | None = None,
    ) -> None:
        self.url = check_store_url(str(url))
        self._options = dict(storage_options or {})
        self._backend = _open_backend(self.url, self._options, make=make)
        self._check_format(make=make)

    def __repr__(self) -> str:
        return f"ArtifactStore({shown(self.url)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.url, self._options)

    def find(self, recipe: Recipe) -> Artifact | None:
        """The artifact of a recipe, or None if it has to be made.

        Also None, with a warning in the log that names it, when a file has not the size it should
        have, or was found damaged when it was read. Checksums are the business of `verify`.

        Raises:
            StoreVersionError: a newer version wrote its manifest.
        """
        return self.find_all([recipe])[0]

    def find_all(self, recipes: Sequence[Recipe]) -> list[Artifact | None]:
        """`find` for many recipes, with one listing per kind. Same order as `recipes`."""
        names = [(recipe.kind, recipe.key) for recipe in recipes]
        manifests = self._load(names)
        return [None if m is None else Artifact(m, self._backend) for m in manifests]

    @contextmanager
    def create(
        self, recipe: Recipe, *, tool_version: str | None = None
    ) -> Iterator[ArtifactWriter]:
        """Make the artifact of a recipe: write files in the with-block, use `.artifact` after it.

        Everything appears at once when the block ends, or nothing if it raises or is killed. When
        another process published the same recipe meanwhile, its artifact is used and this one is
        discarded. A damaged artifact under the key is replaced.

        Raises:
            StoreFullError: no space left.
            StorageError: nothing was written, or a file has an unsafe name.
        """
        kind, key = recipe.kind, recipe.key
        sweep(self._backend.temporary, kind, key)
        directory: Path | None = None
        try:
            directory = make_temporary(self._backend.temporary, kind, key)
            writer = ArtifactWriter(recipe, directory)
            yield writer
            manifest = self._backend.located(writer.manifest(tool_version or "unknown"))
            writer.artifact = self._publish(directory, manifest)
        except BaseException as error:
            if not is_out_of_space(error) or isinstance(error, StorageError):
                raise
            written = size_of(directory) if directory else 0
            place = str(self._backend.temporary)
            raise StoreFullError(f"{kind}/{key}", place, written) from error
        finally:
            if directory:
                shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(self._workspace(recipe), ignore_errors=True)

    def turn(self, recipe: Recipe) -> AbstractContextManager[float]:
        """Be the only thread of this machine's processes that makes an artifact, during the block.

        Yields the seconds waited. Two runs never share a workspace, and the second one finds what
        the first one has made: look again whether it is there. A killed process holds up nobody.
        """
        workspace = self._workspace(recipe)
        return turns.turn(lock_of(workspace))

    def lease(self, run: str, *, keep: bool = False) -> AbstractContextManager[Lease]:
        """Claim artifacts for a run during the block, so that no garbage collection takes them.

        See `storage.leases`. When the block raises, or the process is killed, the claim stays for a
        while: the next run of that name wants to find what this one has made. With `keep` it stays
        also when the block ends well, for what makes only a part of a run: no finished run keeps
        that part yet.
        """
        return hold(self._backend, run, keep=keep)

    def free_bytes(self) -> int | None:
        """Bytes that can still be written; None where nobody knows (object stores)."""
        return self._backend.free_bytes()

    def workspace(self, recipe: Recipe) -> Path:
        """A local directory for checkpoints of long work; empty at first, it survives a kill.

        Removed when the artifact of the recipe is published.
        """
        path = self._workspace(recipe)
        path.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            raise StorageError(f"{path} is a link that leaves the store; remove it")
        return path

    def kinds(self) -> list[str]:
        """Kinds of artifacts that there are, or were, in the store; sorted."""
        return self._backend.kinds()

    def artifacts(self, kind: str | None = None) -> list[Manifest]:
        """Manifests of all artifacts, by kind and then by time; damaged ones only in the log."""
        found: list[Manifest] = []
        for each in self._kinds(kind):
            names = [(each, key) for key in self._backend.listing(each)]
            manifests = [m for m in self._load(names) if m is not None]
            found += sorted(manifests, key=lambda m: (m.created, m.key))
        return found

    def get(self, kind: str, key_prefix: str) -> Artifact:
        """The artifact whose key starts with a prefix.

        Raises:
            StorageError: none or several do; the message lists candidates.
            DamagedArtifactError: its manifest or the size of a file is wrong, or it is marked.
        """
        check_kind(kind)
        check_key_prefix(key_prefix)
        if is_key(key_prefix):
            # A whole key needs no listing of its kind: a stage opens thousands of shards this way.
            (whole,) = self._load([(kind, key_prefix)])
            if whole is not None:
                return Artifact(whole, self._backend)
        listing = self._backend.listing(kind)
        keys = [key for key, files in listing.items() if MANIFEST in files]
        matching = [key for key in keys if key.startswith(key_prefix)]
        if len(matching) != 1:
            raise StorageError(_explain_prefix(kind, key_prefix, keys, matching, self._kinds(None)))
        (key,) = matching
        if MARK in listing[key]:
            raise marks.marked(self._backend, kind, key)
        manifest = read_manifests(self._backend, [(kind, key)])[kind, key].manifest
        check_sizes(manifest, listing[key])
        return Artifact(manifest, self._backend)

    def get_all(self, names: Sequence[Name]) -> list[Artifact]:
        """`get` for many artifacts, by kind and whole key, with one listing per kind."""
        checked = [(check_kind(kind), check_key(key)) for kind, key in names]
        found = self._load(checked)
        return [
            self.get(*name) if manifest is None else Artifact(manifest, self._backend)
            for name, manifest in zip(checked, found, strict=True)
        ]

    def verify(self, kind: str | None = None) -> Iterator[Verification]:
        """Read every file of all artifacts, or those of a kind, and compare checksums.

        A damaged one is marked, so that it counts as missing and the next run makes it again; a
        mark on one that is whole is taken away.

        Raises:
            StoreUnreachableError: the store could not be asked, which is no damage.
        """
        for each in self._kinds(kind):
            for key, files in sorted(self._backend.listing(each).items()):
                if MANIFEST in files:
                    yield verification.verify(self._backend, each, key)

    def lineage(self, artifact: Artifact) -> LineageNode:
        """What an artifact was made from, back to the sources."""
        known = lineage.trace([artifact.manifest], self._load)
        return lineage.tree(artifact.manifest, known)

    def collect(
        self,
        rules: Rules,
        *,
        delete: bool,
        older_than: float = DAY,
        unfinished: float = 14 * DAY,
    ) -> Collection:
        """Find, and remove where asked, what nobody needs; see `storage.garbage.collect`."""
        return garbage.collect(
            self._backend, rules, delete=delete, older_than=older_than, unfinished=unfinished
        )

    def remove(self, kind: str, key: str) -> None:
        """Remove an artifact; nothing happens if there is none."""
        self._backend.remove(check_kind(kind), check_key(key))

    def record_names(self) -> list[str]:
        """Names of all sequences of records (`storage.records`), sorted."""
        return records.record_names(self._backend)

    def records(self, name: str) -> list[Record]:
        """All records of a sequence, in order; raises as `storage.records.read_records`."""
        return records.read_records(self._backend, name)

    def add_record(self, name: str, content: Mapping[str, JSON], *, after: int) -> Record | None:
        """Add the record after number `after`; None if somebody was faster."""
        return records.add_record(self._backend, name, content, after=after)

    def _check_format(self, *, make: bool) -> None:
        try:
            (text,) = self._backend.read([_STORE_FILE])
            if text is None and not make:
                raise NoStoreError(f"there is no store at {shown(self.url)}")
            if text is None:
                self._backend.write(_STORE_FILE, json.dumps({"format": FORMAT}).encode() + b"\n")
                self._backend.reserve()
                return
        except OSError as error:
            reason = shown(str(error))
            raise StorageError(f"the store {shown(self.url)} cannot be opened: {reason}") from error
        place = f"{shown(self.url)}/{_STORE_FILE}"
        try:
            found = json.loads(text)["format"]
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"{place} is no store description") from error
        if not isinstance(found, int):
            raise StorageError(f"{place}: the format {found!r} is no number")
        if found > FORMAT:
            raise StoreVersionError(f"the store {shown(self.url)}", found, FORMAT)

    def _kinds(self, kind: str | None) -> list[str]:
        return self._backend.kinds() if kind is None else [check_kind(kind)]

    def _workspace(self, recipe: Recipe) -> Path:
        return self._backend.workspaces / f"{recipe.kind}-{recipe.key}"

    def _load(self, names: Sequence[Name]) -> list[Manifest | None]:
        return load_manifests(self._backend, names)

    def _publish(self, directory: Path, manifest: Manifest) -> Artifact:
        kind, key = manifest.kind, manifest.key
        for _ in range(_PUBLISH_TRIES):
            # What decides over the work of others is the store itself, and no copy of it.
            (winner,) = load_manifests(self._backend, [(kind, key)], copies=False)
            if winner is not None:
                _LOG.info("%s/%s was published by someone else; using theirs", kind, key)
                return Artifact(winner, self._backend)
            if self._backend.publish(directory, manifest):
                return Artifact(manifest, self._backend)
            (judged,) = self._backend.read([f"{kind}/{key}/{MANIFEST}"])
            if load_manifests(self._backend, [(kind, key)], copies=False) == [None]:
                _LOG.warning("replacing what is damaged under %s/%s", kind, key)
                # Another machine may have replaced it by now.
                self._backend.clear(kind, key, judged)
        raise StorageError(f"{kind}/{key} could not be published: something else keeps its place")


def _open_backend(url: str, options: Mapping[str, object], *, make: bool) -> Backend:
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise StorageError(f"the store {shown(url)} cannot be opened: {error}") from error
    if isinstance(fs, LocalFileSystem):
        return LocalBackend(Path(path), make=make)
    return ObjectBackend(url, options)


def _reopen(url: str, options: Mapping[str, object]) -> ArtifactStore:
    return ArtifactStore(url, storage_options=options)


def _explain_prefix(
    kind: str, prefix: str, keys: Sequence[str], matching: Sequence[str], kinds: Sequence[str]
) -> str:
    if matching:
        return f"{len(matching)} {kind} artifacts start with {prefix}: {_some(matching)}"
    if keys:
        return f"no {kind} artifact starts with {prefix}; there are: {_some(keys)}"
    return f"there is no {kind} artifact; kinds in this store: {', '.join(kinds) or 'none'}"


def _some(keys: Sequence[str]) -> str:
    shown = ", ".join(sorted(keys)[:_SHOWN])
    return shown if len(keys) <= _SHOWN else f"{shown} and {len(keys) - _SHOWN} more"
