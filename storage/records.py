"""Numbered records: small JSON documents that are only ever added, one after the other.

    <root>/.records/<name>/00000001.json

A number is taken by creating its document exclusively: of several writers one gets it, the others
are told. So a sequence of records is a log with one order, and its last one is a pointer that moves
atomically, on a local disk and on object stores alike.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from storage.digests import JSON, canonical_json, normalise
from storage.errors import StorageError, StoreVersionError
from storage.manifest import Input
from storage.names import check_key, check_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.backend import Backend

FORMAT = 1
"""Newest format of a record this version reads and the one it writes."""

DIRECTORY = ".records"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_FILE = re.compile(r"(\d{8})\.json")
_MOST = 99_999_999


@dataclass(frozen=True, slots=True)
class Record:
    """One document of a sequence.

    Attributes:
        name: Of the sequence.
        number: Its place there, from 1; a removed record leaves a gap.
        created: ISO 8601, UTC.
        content: What was written down.
    """

    name: str
    number: int
    created: str
    content: Mapping[str, JSON]

    def references(self) -> dict[str, Input]:
        """The artifacts that the record speaks of, by role: its content's table `references`.

        What the references of a kept record reach is in use.

        Raises:
            StorageError: one is malformed.
        """
        found: Any = self.content.get("references", {})
        try:
            return {
                str(role): Input(check_kind(one["kind"]), check_key(one["key"]), str(one["digest"]))
                for role, one in found.items()
            }
        except (AttributeError, KeyError, TypeError) as error:
            raise StorageError(f"{_shown(self.name, self.number)}: bad references") from error


def check_record_name(name: str) -> str:
    """The name itself, or StorageError when a sequence of records cannot be called that."""
    if not _NAME.fullmatch(name):
        raise StorageError(
            f"{name!r} names no records: use up to 128 small letters, digits, '-' and '_'"
        )
    return name


def record_names(backend: Backend) -> list[str]:
    """Names of all sequences, sorted."""
    return sorted(name for name in backend.names(DIRECTORY) if _NAME.fullmatch(name))


def read_records(backend: Backend, name: str) -> list[Record]:
    """All records of a sequence in order; empty if there is none.

    Raises:
        StorageError: a document is damaged; the message names it.
        StoreVersionError: a newer version wrote one.
    """
    top = f"{DIRECTORY}/{check_record_name(name)}"
    found = (_FILE.fullmatch(file) for file in backend.names(top))
    numbers = sorted(int(match[1]) for match in found if match)
    texts = backend.read([_path(name, number) for number in numbers])
    return [
        _parse(name, number, text)
        for number, text in zip(numbers, texts, strict=True)
        if text is not None  # removed meanwhile
    ]


def add_record(
    backend: Backend, name: str, content: Mapping[str, JSON], *, after: int
) -> Record | None:
    """Write the record that follows number `after`; None if there is one already.

    Args:
        backend: Of the store.
        name: Of the sequence.
        content: Plain JSON.
        after: Number of the last record known; 0 for none.

    Raises:
        StorageError: an unsafe name, or content that is not JSON.
    """
    number = after + 1
    if not 1 <= number <= _MOST:
        raise StorageError(f"{name} cannot have a record number {number}")
    check_record_name(name)
    fields = {
        "format": FORMAT,
        "name": name,
        "number": number,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        # So that a writer who was told late that it is there can see whether it is its own.
        "writer": secrets.token_hex(8),
        "content": normalise(content, f"record {name}"),
    }
    fields["sha256"] = _checksum(fields)
    data = json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    if not backend.create(_path(name, number), data):
        (there,) = backend.read([_path(name, number)])
        if there != data:
            return None
    return _parse(name, number, data)


def _path(name: str, number: int) -> str:
    return f"{DIRECTORY}/{name}/{number:08d}.json"


def _shown(name: str, number: int) -> str:
    return f"the record {_path(name, number)}"


def _checksum(fields: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in fields.items() if key != "sha256"}
    return hashlib.sha256(canonical_json(kept)).hexdigest()


def _parse(name: str, number: int, text: bytes) -> Record:
    try:
        fields = json.loads(text)
        known = fields["format"]
        if not isinstance(known, int) or isinstance(known, bool):
            raise TypeError("its format is no number")
        if known > FORMAT:
            raise StoreVersionError(_shown(name, number), known, FORMAT)
        if fields["sha256"] != _checksum(fields):
            raise ValueError("its bytes are not those that were written (checksum)")
        if (fields["name"], fields["number"]) != (name, number):
            raise ValueError(f"it is number {fields['number']} of {fields['name']}")
        if not isinstance(fields["content"], dict):
            raise TypeError("its content is no object")
        return Record(name, number, str(fields["created"]), fields["content"])
    except StoreVersionError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, StorageError) as error:
        raise StorageError(
            f"{_shown(name, number)} is damaged ({type(error).__name__}: {error}); restore it from "
            "a copy of the store, or remove it: the records before it stay as they are"
        ) from error
