"""What a store needs of the place it lies in: `LocalBackend` and `ObjectBackend` provide it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from storage.lineage import Name
    from storage.manifest import FileEntry, Manifest


@dataclass(frozen=True, slots=True)
class FileStat:
    """A stored file: size in bytes, and when it was written, in seconds of the store's own clock.

    The time is infinite, later than any other, where a file system does not tell it. The version is
    another one whenever the content is (an ETag); empty where there is none.
    """

    bytes: int
    modified: float
    version: str = ""


class Backend(Protocol):
    """Reading, listing and atomic publishing below one root; paths are relative, with `/`."""

    @property
    def temporary(self) -> Path:
        """Local directory in which artifacts are written before they are published."""

    @property
    def workspaces(self) -> Path:
        """Local directory of the workspaces, which survive a killed process."""

    def kinds(self) -> list[str]:
        """Names in the root that are artifact kinds."""

    def listing(
        self, kind: str, keys: Collection[str] | None = None
    ) -> Mapping[str, Mapping[str, FileStat]]:
        """Files by key, then by name inside the artifact; all keys of the kind if None."""

    def files(self, directory: str) -> Mapping[str, FileStat]:
        """All files below a directory, by their path in it: one listing."""

    def read(self, paths: Sequence[str]) -> list[bytes | None]:
        """Small files, whole; None for one that does not exist."""

    def copied(self, listed: Mapping[Name, FileStat]) -> Mapping[Name, bytes]:
        """Of manifests that a listing has just told of, those read before; never needed."""

    def keep(self, listed: Mapping[Name, FileStat], manifests: Mapping[Name, bytes]) -> None:
        """Keep manifests that were read, and found right, for `copied`; never fails."""

    def write(self, path: str, data: bytes) -> None:
        """Write a small file that appears whole."""

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file that appears whole, unless it is there already: False then."""

    def names(self, directory: str) -> list[str]:
        """Names right below a directory, in no order; none where there is no such directory."""

    def blocks(self, path: str) -> Iterator[bytes]:
        """A file piece by piece; FileNotFoundError where there is none."""

    def fetch(self, manifest: Manifest, entry: FileEntry) -> Path:
        """A local path of a file of an artifact, checked."""

    def located(self, manifest: Manifest) -> Manifest:
        """The manifest with the `directory` that files of a new artifact get here."""

    def publish(self, directory: Path, manifest: Manifest) -> bool:
        """Make a local directory an artifact, all at once; False if the key is already taken."""

    def remove(self, kind: str, key: str, listed: Collection[str] | None = None) -> None:
        """Remove an artifact; a half-done removal leaves nothing that looks like one.

        `listed` are its files, where a listing has told them already.
        """

    def clear(self, kind: str, key: str, manifest: bytes | None) -> None:
        """Remove what is under a key only while that is its manifest (None: it has none)."""

    def discard(self, path: str, *, listed: bool = False) -> None:
        """Remove a file, or a directory of small files; nothing happens if there is none.

        `listed` says that it is a file, as a listing has told.
        """

    def reserve(self) -> None:
        """Set a little room aside for `release`, as far as there is any."""

    def release(self) -> None:
        """Give the room up, so that something can be written on a disk that is full."""

    def free_bytes(self) -> int | None:
        """Bytes that can still be written; None where nobody knows."""
