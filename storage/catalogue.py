"""Reading manifests in bulk and judging, from a listing, whether their artifacts are whole."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from storage.errors import DamagedArtifactError
from storage.manifest import Manifest
from storage.names import MANIFEST, MARK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from storage.backend import Backend, FileStat
    from storage.lineage import Name

_LOG = logging.getLogger(__name__)
# Marked artifacts that the log of this process has told of, by a place that only one store has.
_TOLD: set[tuple[str, str, str]] = set()


def load_manifests(backend: Backend, names: Sequence[Name]) -> list[Manifest | None]:
    """Manifests of whole artifacts, in the order asked for: one listing per kind.

    None where there is none, and, with a warning in the log, where one is damaged or marked so.

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
    texts = backend.manifests({(kind, key): listings[kind][key][MANIFEST] for kind, key in present})
    loaded: dict[Name, Manifest] = {}
    for (kind, key), text in zip(present, texts, strict=True):
        try:
            manifest = parse_manifest(kind, key, text)
            check_sizes(manifest, listings[kind][key])
            loaded[kind, key] = manifest
        except DamagedArtifactError as error:
            _LOG.warning("%s", error)
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
