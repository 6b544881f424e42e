"""Canonical JSON and SHA-256: what keys and digests are made of.

Two equal configs must give the same bytes on any machine and in any version of this package, so the
form is fixed here: UTF-8, sorted keys, no spaces, no NaN, Python's shortest floats, 0.0 for -0.0.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, TypeAlias

from storage.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


def normalise(value: object, where: str = "value") -> JSON:
    """A deep copy of a JSON value made of plain dict, list, str, int, float, bool and None.

    Args:
        value: Mappings with string keys, lists and tuples, and scalars.
        where: Names the value in errors; grows to `config.optimizer.lr` inside.

    Raises:
        StorageError: something in it has no exact JSON form (NaN, infinity, other types,
            lone surrogates, keys that are not strings).
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise StorageError(f"{where} is {value}, which JSON cannot hold")
        return float(value) + 0.0  # -0.0 equals 0.0 and must have the same digest
    if isinstance(value, Mapping):
        return {
            _key(name, where): normalise(item, f"{where}.{name}") for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [normalise(item, f"{where}[{index}]") for index, item in enumerate(value)]
    raise StorageError(f"{where} is a {type(value).__name__}, which JSON cannot hold")


def normalise_statistics(value: object, where: str = "statistics") -> JSON:
    """As `normalise`, but forgiving: statistics come at the end of long work.

    NumPy scalars become numbers; NaN and infinity become null, for a diverged loss must not cost
    the artifact that shows it.
    """
    if isinstance(value, Mapping):
        return {
            _key(name, where): normalise_statistics(item, f"{where}.{name}")
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [normalise_statistics(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else None
    return normalise(value, where)


def canonical_json(value: object, where: str = "value") -> bytes:
    """The one byte form of a JSON value; raises StorageError as `normalise` does."""
    return json.dumps(
        normalise(value, where),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()


def sha256_json(value: object, where: str = "value") -> str:
    """64 hexadecimal digits of the SHA-256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value, where)).hexdigest()


def sha256_file(path: Path) -> str:
    """64 hexadecimal digits of the SHA-256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise StorageError(f"{where} holds a lone surrogate, which UTF-8 cannot hold") from error
    return str.__str__(value)


def _key(name: object, where: str) -> str:
    if not isinstance(name, str):
        raise StorageError(f"{where} has the key {name!r}; keys must be strings")
    return _text(name, where)
