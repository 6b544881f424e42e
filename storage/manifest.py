"""Recipes and manifests: what decides an artifact, and what is written down about a made one.

A recipe is known before the work and gives the key. A manifest is written after it, last of all:
an artifact without a manifest does not exist.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from storage.digests import JSON, normalise, sha256_json
from storage.errors import DamagedArtifactError, StorageError, StoreVersionError
from storage.names import MANIFEST, check_file_name, check_key, check_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
"""Newest manifest format this version reads and the one it writes."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHECKSUM = "sha256"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Input:
    """An artifact another one is made from; `digest` is of its content, not of its recipe."""

    kind: str
    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides an artifact.

    Attributes:
        kind: What it is: the name of the stage that makes it.
        version: Version of that stage's code; a change of its output must change it.
        config: Only what can change the result. Copied and made plain JSON.
        inputs: By role; the order inside a role matters.
        content: A digest of the content known beforehand (corpus shards, data sets). It is part of
            the key, and it is the digest of the artifact.

    Raises:
        StorageError: an unsafe kind, or a config that is not JSON.
    """

    kind: str
    version: int
    config: Mapping[str, JSON]
    inputs: Mapping[str, tuple[Input, ...]] = field(default_factory=dict)
    content: str | None = None
    _key: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind(self.kind)
        config = normalise(self.config, f"config of {self.kind}")
        object.__setattr__(self, "config", config)
        object.__setattr__(self, "inputs", {r: tuple(i) for r, i in self.inputs.items()})

    @property
    def key(self) -> str:
        """32 hexadecimal digits: the name of the artifact in its kind.

        Of the inputs only the content digests enter, so an input that was recomputed to the same
        bytes changes nothing downstream.
        """
        # Asked for many times in a run over thousands of shards.
        if not self._key:
            self._key.append(self._digest()[:32])
        return self._key[0]

    def _digest(self) -> str:
        digests = {role: [i.digest for i in inputs] for role, inputs in self.inputs.items()}
        return sha256_json(
            {
                "kind": self.kind,
                "version": self.version,
                "config": self.config,
                "inputs": digests,
                "content": self.content,
            },
            f"recipe of {self.kind}",
        )


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact: name, size in bytes, SHA-256, and rows where it has rows."""

    name: str
    bytes: int
    sha256: str
    rows: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact is, where it came from, and how to check it.

    Attributes:
        kind: As in the recipe, like version, config, inputs and content.
        key: Key of the recipe.
        files: Sorted by name.
        statistics: Figures for people and dashboards; never part of a digest.
        seconds: Wall time from the opening of the writer to the last byte.
        created: ISO 8601, UTC.
        tool_version: Version of the software that wrote it.
        format: Format of the manifest itself.
        work: What the making took beside time (rows/s, retries, waiting); for people, like
            `statistics`.
        directory: Where the files lie below `<kind>/<key>/`. Empty on a local disk, where a
            directory appears whole; on an object store a name made of the content, so that two
            writers of one key cannot mix their files.
    """

    kind: str
    key: str
    version: int
    config: Mapping[str, JSON]
    inputs: Mapping[str, tuple[Input, ...]]
    content: str | None
    files: tuple[FileEntry, ...]
    statistics: Mapping[str, JSON]
    seconds: float
    created: str
    tool_version: str
    format: int = FORMAT
    directory: str = ""
    work: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of the content: `content` where given, else of the files' names and checksums."""
        return self.content if self.content is not None else files_digest(self.files)

    @property
    def recipe(self) -> Recipe:
        """The recipe this artifact was made from."""
        return Recipe(self.kind, self.version, self.config, self.inputs, self.content)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.bytes for file in self.files)

    def to_json(self) -> str:
        """Indented JSON, for people too; `from_json` gives back an equal manifest."""
        fields = dataclasses.asdict(self)
        fields[_CHECKSUM] = _checksum(fields)
        return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, artifact: str = "manifest") -> Manifest:
        """Read a manifest and check it.

        Args:
            text: What `to_json` gave.
            artifact: Names the artifact in errors, as `kind/key`.

        Raises:
            StoreVersionError: it has a newer format.
            DamagedArtifactError: it is not JSON, lacks a field, has one of a wrong type, names
                files outside the artifact's directory, or was altered.
        """
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict):
                raise StorageError("it is not a JSON object")
            known = _take(fields, "format", int)
            if known > FORMAT:
                raise StoreVersionError(f"the manifest of {artifact}", known, FORMAT)
            manifest = _manifest(fields)
            _check_whole(fields)
            return manifest
        except StoreVersionError:
            raise
        except (ValueError, RecursionError, StorageError) as error:
            raise DamagedArtifactError(artifact, MANIFEST, str(error)) from error


def files_digest(files: tuple[FileEntry, ...]) -> str:
    """64 hexadecimal digits over the names and checksums of files, in order of their names."""
    return sha256_json(sorted([file.name, file.sha256] for file in files))


def _checksum(fields: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in fields.items() if name != _CHECKSUM}
    return sha256_json(kept, "manifest")


def _check_whole(fields: Mapping[str, Any]) -> None:
    if _CHECKSUM in fields:
        if fields[_CHECKSUM] != _checksum(fields):
            raise StorageError("it is not as it was written (checksum)")
        return
    # Manifests of earlier days have no checksum, nor any field of later ones.
    unknown = fields.keys() - {field.name for field in dataclasses.fields(Manifest)}
    if unknown:
        raise StorageError(f"unknown field {min(unknown)!r}, and no checksum")


def _manifest(fields: Mapping[str, Any]) -> Manifest:
    directory = _take(fields, "directory", str) if "directory" in fields else ""
    files = tuple(_file(entry) for entry in _take(fields, "files", list))
    if len({file.name for file in files}) != len(files):
        raise StorageError("a file is named twice")
    return Manifest(
        kind=check_kind(_take(fields, "kind", str)),
        key=check_key(_take(fields, "key", str)),
        version=_take(fields, "version", int),
        config=_object(fields, "config"),
        inputs={role: _inputs(role, items) for role, items in _object(fields, "inputs").items()},
        content=_optional(fields, "content", str),
        files=files,
        statistics=_object(fields, "statistics"),
        seconds=float(_take(fields, "seconds", (int, float))),
        created=_take(fields, "created", str),
        tool_version=_take(fields, "tool_version", str),
        format=_take(fields, "format", int),
        directory=check_file_name(directory) if directory else "",
        work=_object(fields, "work") if "work" in fields else {},
    )


def _file(entry: object) -> FileEntry:
    if not isinstance(entry, dict):
        raise StorageError("an entry of 'files' is not an object")
    name = check_file_name(_take(entry, "name", str))
    size = _take(entry, "bytes", int)
    sha256 = _take(entry, "sha256", str)
    if size < 0 or not _SHA256.fullmatch(sha256):
        raise StorageError(f"size or checksum of {name} is malformed")
    return FileEntry(name, size, sha256, _optional(entry, "rows", int))


def _inputs(role: str, items: object) -> tuple[Input, ...]:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise StorageError(f"the inputs of role {role!r} are not a list of objects")
    return tuple(
        Input(
            check_kind(_take(item, "kind", str)),
            check_key(_take(item, "key", str)),
            _take(item, "digest", str),
        )
        for item in items
    )


def _take(fields: Mapping[str, Any], name: str, kind: type[_T] | tuple[type[_T], ...]) -> _T:
    value = fields.get(name)
    # A bool is an int to isinstance, and never what a number field holds.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise StorageError(f"field {name!r} is missing or of a wrong type")
    return value


def _optional(fields: Mapping[str, Any], name: str, kind: type[_T]) -> _T | None:
    return None if fields.get(name) is None else _take(fields, name, kind)


def _object(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    return cast("dict[str, Any]", _take(fields, name, dict))
