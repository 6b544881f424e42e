"""All that is in a store, from one listing a kind, and what reaches what."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.catalogue import check_sizes, read_manifests
from storage.errors import DamagedArtifactError
from storage.names import MANIFEST, MARK, is_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from storage.backend import Backend, FileStat
    from storage.catalogue import Reading
    from storage.lineage import Name
    from storage.manifest import Manifest

_LOG = logging.getLogger(__name__)
# Where files lie below a key on object stores.
_DATA = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory `<kind>/<key>`: an artifact, a damaged one, or files without one.

    Attributes:
        kind: Name of the directory above.
        key: Its own name.
        files: Below it.
        manifest: None where it is missing or cannot be read.
        damaged: Whether the store counts it as missing.
    """

    kind: str
    key: str
    files: Mapping[str, FileStat]
    manifest: Manifest | None
    damaged: bool

    @property
    def name(self) -> Name:
        """Kind and key."""
        return self.kind, self.key

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(stat.bytes for stat in self.files.values())

    @property
    def modified(self) -> float:
        """When it was published; the time of its newest file where it was not."""
        if MANIFEST in self.files:
            return self.files[MANIFEST].modified
        return max(stat.modified for stat in self.files.values())

    @property
    def left_over(self) -> dict[str, FileStat]:
        """Files of another writer of the same key, who came second (object stores)."""
        if self.manifest is None or not self.manifest.directory:
            return {}
        own = self.manifest.directory
        found = {}
        for path, stat in self.files.items():
            top, slash, _ = path.partition("/")
            if slash and top != own and _DATA.fullmatch(top):
                found[path] = stat
        return found


def take_inventory(backend: Backend) -> list[Entry]:
    """Every directory that is, or could have become, an artifact; by kind and key.

    Raises:
        StoreVersionError: a newer version wrote one of the manifests.
    """
    found: list[tuple[str, str, dict[str, FileStat]]] = []
    for kind in backend.kinds():
        keys: dict[str, dict[str, FileStat]] = {}
        for path, stat in backend.files(kind).items():
            key, slash, name = path.partition("/")
            if slash and is_key(key):
                keys.setdefault(key, {})[name] = stat
        found += [(kind, key, files) for key, files in sorted(keys.items())]
    with_manifest = [(kind, key) for kind, key, files in found if MANIFEST in files]
    readings = read_manifests(backend, with_manifest)
    return [_entry(kind, key, files, readings.get((kind, key))) for kind, key, files in found]


def reach(
    start: Iterable[Name],
    entries: Mapping[Name, Entry],
    *,
    owns: Callable[[Manifest], Iterable[Name]],
    unfollowed: Iterable[str] = (),
) -> set[Name]:
    """All that artifacts were made from or own, themselves included.

    Args:
        start: Where to begin.
        entries: What is in the store, damaged or not.
        owns: Artifacts that belong to one although they are not its inputs.
        unfollowed: Roles whose inputs are reached, but not what those were made from.
    """
    ends = set(unfollowed)
    reached: set[Name] = set()
    waiting = list(start)
    leaves: set[Name] = set()
    while waiting:
        name = waiting.pop()
        entry = entries.get(name)
        if name in reached or entry is None:
            continue
        reached.add(name)
        if entry.manifest is None:
            continue
        waiting += owns(entry.manifest)
        for role, inputs in entry.manifest.inputs.items():
            names = [(one.kind, one.key) for one in inputs]
            if role in ends:
                leaves.update(names)
            else:
                waiting += names
    return reached | (leaves & entries.keys())


def _entry(kind: str, key: str, files: Mapping[str, FileStat], reading: Reading | None) -> Entry:
    if reading is None:
        return Entry(kind, key, files, None, damaged=False)
    manifest: Manifest | None = None
    try:
        manifest = reading.manifest
        check_sizes(manifest, files)
    except DamagedArtifactError as error:
        _LOG.warning("%s", error)
        return Entry(kind, key, files, manifest, damaged=True)
    return Entry(kind, key, files, manifest, damaged=MARK in files)
