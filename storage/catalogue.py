"""Reading manifests in bulk and judging, from a listing, whether their artifacts are whole."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.errors import DamagedArtifactError, StoreVersionError
from storage.manifest import Manifest
from storage.names import MANIFEST, MARK

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from storage.backend import Backend, FileStat
    from storage.lineage import Name

_LOG = logging.getLogger(__name__)
# Marked artifacts that the log of this process has told of, by a place that only one store has.
_TOLD: set[tuple[str, str, str]] = set()


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read as a manifest: its bytes, if there were any, and what came of them."""

    text: bytes | None
    outcome: Manifest | DamagedArtifactError | StoreVersionError

    @property
    def manifest(self) -> Manifest:
        """The manifest; raises what is wrong with it."""
        if isinstance(self.outcome, Manifest):
            return self.outcome
        raise self.outcome

    @property
    def is_damaged(self) -> bool:
        """Whether there is one that nobody can read, not even a newer version."""
        return self.text is not None and isinstance(self.outcome, DamagedArtifactError)


def read_manifests(backend: Backend, names: Collection[Name]) -> dict[Name, Reading]:
    """Manifests as they are in the store; what is wrong is read once more before it is believed.

    An answer, or a bit in memory, can go wrong too, and much is made again or removed on its word.
    """
    found: dict[Name, Reading] = {}
    for _ in range(2):
        wanted = [n for n in names if n not in found or not isinstance(found[n].outcome, Manifest)]
        texts = backend.read([f"{kind}/{key}/{MANIFEST}" for kind, key in wanted]) if wanted else []
        for name, text in zip(wanted, texts, strict=True):
            try:
                found[name] = Reading(text, parse_manifest(*name, text))
            except (DamagedArtifactError, StoreVersionError) as error:
                found[name] = Reading(text, error)
    return found


def load_manifests(
    backend: Backend, names: Sequence[Name], *, copies: bool = True
) -> list[Manifest | None]:
    """Manifests of whole artifacts, in the order asked for: one listing per kind.

    None where there is none, and, with a warning in the log, where one is damaged or marked so.
    With `copies`, a local copy may say that all is well with an artifact; nothing else is believed
    of one.

    Raises:
        StoreVersionError: a newer version wrote one of them.
    """
    keys: dict[str, set[str]] = {}
    for kind, key in names:
        keys.setdefault(kind, set()).add(key)
    listings = {kind: backend.listing(kind, wanted) for kind, wanted in keys.items()}
    present = [
        (kind, key) for kind, key in dict.fromkeys(names) if MANIFEST in listings[kind].get(key, {})
    ]
    for kind, key in present:
        _tell_of_mark(str(backend.temporary), kind, key, marked=MARK in listings[kind][key])
    present = [(kind, key) for kind, key in present if MARK not in listings[kind][key]]
    listed = {(kind, key): listings[kind][key][MANIFEST] for kind, key in present}
    loaded: dict[Name, Manifest] = {}
    for (kind, key), copy in (backend.copied(listed) if copies else {}).items():
        with suppress(DamagedArtifactError, StoreVersionError):
            manifest = parse_manifest(kind, key, copy)
            check_sizes(manifest, listings[kind][key])
            loaded[kind, key] = manifest
    readings = read_manifests(backend, [name for name in present if name not in loaded])
    for (kind, key), reading in readings.items():
        try:
            check_sizes(reading.manifest, listings[kind][key])
        except DamagedArtifactError as error:
            _LOG.warning("%s", error)
        else:
            loaded[kind, key] = reading.manifest
    new = {name: found.text for name, found in readings.items() if name in loaded}
    backend.keep(listed, {name: text for name, text in new.items() if text is not None})
    return [loaded.get(name) for name in names]


def _tell_of_mark(store: str, kind: str, key: str, *, marked: bool) -> None:
    """Warn once, though a run looks for it many times; and anew of one that was mended."""
    name = (store, kind, key)
    if not marked:
        _TOLD.discard(name)
    elif name not in _TOLD:
        _TOLD.add(name)
        _LOG.warning("%s/%s was found damaged; it has to be made again", kind, key)


def parse_manifest(kind: str, key: str, text: bytes | None) -> Manifest:
    """The manifest found under `kind/key`.

    Raises:
        DamagedArtifactError: it is missing, malformed, or describes another artifact.
        StoreVersionError: a newer version wrote it.
    """
    name = f"{kind}/{key}"
    if text is None:
        raise DamagedArtifactError(name, MANIFEST, "it is missing")
    manifest = Manifest.from_json(text, artifact=name)
    if (manifest.kind, manifest.key) != (kind, key):
        reason = f"it describes {manifest.kind}/{manifest.key}"
        raise DamagedArtifactError(name, MANIFEST, reason)
    return manifest


def check_sizes(manifest: Manifest, files: Mapping[str, FileStat]) -> None:
    """Compare the sizes of files with a manifest; DamagedArtifactError names the first bad file."""
    name = f"{manifest.kind}/{manifest.key}"
    for file in manifest.files:
        stat = files.get(f"{manifest.directory}/{file.name}".lstrip("/"))
        if stat is None:
            raise DamagedArtifactError(name, file.name, "the file is missing")
        if stat.bytes != file.bytes:
            reason = f"it has {stat.bytes:,} bytes instead of {file.bytes:,}"
            raise DamagedArtifactError(name, file.name, reason)
