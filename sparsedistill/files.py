"""The files of a saved model or vocabulary: JSON, and strings under zstandard.

Its arrays are in `tensor_files.py`. Reading runs nothing and believes nothing: whatever is wrong
with a file is a `ModelFileError` that names it and the reason. Files are written beside their place
and moved into it, so that a reader (and a table that is still mapped) never sees half a file.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
import zstandard

from sparsedistill.errors import DataError, ModelFileError
from sparsedistill.text.buffers import TextBuffer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

T = TypeVar("T")

# Bytes of a saved string at most, on average; with room for a few that are longer by far.
_MOST_PER_STRING, _MOST_AT_LEAST = 1024, 64 << 20

_LEVEL = 9
_LINE_END = 0x0A


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes its place when the block ends, whole; not if it ends in an error."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a table might be zeros after the power was cut
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Put a whole file in place, or none."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, keys as given."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode("utf-8") + b"\n")


def write_strings(path: Path, strings: TextBuffer) -> None:
    """Write strings, one a line, compressed.

    Raises:
        DataError: A string has a line end, or they are too long to be read again.
    """
    begin, end = strings.offsets[0], strings.offsets[-1]
    if end - begin + len(strings) > _most_bytes(len(strings)):
        raise DataError(f"{end - begin:,} bytes are too many for {len(strings):,} n-grams")
    text = strings.data[begin:end]
    if (text == _LINE_END).any():
        row = next(i for i, string in enumerate(strings) if "\n" in string)
        raise DataError(f"n-gram {row} has a line end: {strings[row]!r}")
    lines = np.insert(text, strings.offsets[1:] - begin, _LINE_END)
    write_bytes(path, zstandard.ZstdCompressor(level=_LEVEL).compress(lines.tobytes()))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        value = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: not a JSON object")
    return value


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that has to be there."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_format(path: Path, config: Mapping[str, Any], newest: int, *, oldest: int = 1) -> None:
    """Refuse a format that this version does not know."""
    found = checked_field(path, config, "format", int)
    if found > newest:
        raise ModelFileError(
            f"{path}: format {found} is newer than this version's {newest}; upgrade sparsedistill"
        )
    if found < oldest:
        raise ModelFileError(f"{path}: format {found} is not read any more; make the model again")


def checked_field(path: Path, config: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A field of a JSON object that must be of a type; an integer that must not be negative."""
    value = config.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ModelFileError(f"{path}: {name} must be of type {kind.__name__}, not {value!r:.60}")
    if isinstance(value, int) and not 0 <= value < 1 << 63:
        raise ModelFileError(f"{path}: {name} is negative or too large: {value!s:.40}")
    return value


def read_strings(path: Path, rows: int) -> TextBuffer:
    """Read what `write_strings` wrote.

    Raises:
        ModelFileError: Missing, damaged, or not `rows` lines of UTF-8.
    """
    compressed = read_bytes(path)
    try:
        # Before room is made for them: few bytes can become very many.
        size = zstandard.frame_content_size(compressed)
        if size < 0:
            raise ValueError("does not say how long it is")
        if size > _most_bytes(rows):
            raise ModelFileError(f"{path}: would be {size:,} bytes, too many for {rows:,} n-grams")
        content = zstandard.ZstdDecompressor().decompress(compressed, allow_extra_data=False)
        content.decode("utf-8")
    except (zstandard.ZstdError, MemoryError, ValueError) as error:
        raise ModelFileError(f"{path}: damaged: {error}") from error
    data = np.frombuffer(content, np.uint8)
    line_ends = np.flatnonzero(data == _LINE_END)
    if len(line_ends) != rows or (rows and line_ends[-1] != len(data) - 1):
        raise ModelFileError(f"{path}: {len(line_ends)} whole lines, expected {rows}")
    # Row i begins after the i-th line end; without the ends themselves, i bytes earlier.
    offsets = np.concatenate([[0], line_ends - np.arange(rows)])
    try:
        return TextBuffer(data[data != _LINE_END], offsets)
    except DataError as error:
        raise ModelFileError(f"{path}: {error}") from error


def _most_bytes(rows: int) -> int:
    return _MOST_AT_LEAST + _MOST_PER_STRING * rows
