"""Files of a run's arrays: written from where they lie, and read into where they belong.

They are safetensors files, as those of `tensor_files`. Beyond those, an array of a file may be some
rows of a larger one, a checksum is made on the way, and nothing is copied whole or mapped: a block
of some megabytes at a time passes through memory, whatever the size of a table.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.errors import ModelFileError
from sparsedistill.tensor_files import NAMES, header_of, in_file_order, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

CHECKPOINT_FILE = "checkpoint.json"
_BLOCK = 8 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """An array to be written, or some of its rows.

    Attributes:
        values: Numbers, of one dimension or more where ``rows`` are given.
        rows: Which rows, ascending; all where not given.
    """

    values: NDArray[Any]
    rows: NDArray[np.integer[Any]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is written."""
        if self.rows is None:
            return self.values.shape
        return len(self.rows), *self.values.shape[1:]

    @property
    def nbytes(self) -> int:
        """Of what is written."""
        return self.values.itemsize * math.prod(self.shape)

    def blocks(self) -> Iterator[memoryview]:
        """Yield what is written; a block is good until the next is asked for."""
        values = np.atleast_1d(self.values)
        if self.nbytes == 0:
            return
        step = _rows_a_block(values)
        if self.rows is None:
            for start in range(0, len(values), step):
                yield _bytes_of(np.ascontiguousarray(values[start : start + step]))
            return
        buffer = np.empty((min(step, len(self.rows)), *values.shape[1:]), values.dtype)
        for start in range(0, len(self.rows), step):
            rows = self.rows[start : start + step]
            # "clip", because NumPy buffers the output once more where it may have to raise.
            yield _bytes_of(np.take(values, rows, 0, out=buffer[: len(rows)], mode="clip"))


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as it was written.

    Attributes:
        name: In its directory.
        bytes: Its size.
        checksum: CRC-32 of all of it.
    """

    name: str
    bytes: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where an array is in a file.

    Attributes:
        dtype: As the format names it.
        shape: Of the array.
        begin: Its first byte in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int

    def is_of(self, dtype: np.dtype[Any]) -> bool:
        """Whether the array is of that type."""
        return self.dtype == NAMES[dtype]


def layout_of(
    parts: Mapping[str, Part], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, Place]]:
    """Return the header of a file of those parts, and where each is, in the order of the file."""
    layout = {name: (part.values.dtype, part.shape) for name, part in parts.items()}
    header = header_of(layout, metadata)
    places = _places(json.loads(header[8:]), len(header))
    return header, {name: places[name] for name in in_file_order(layout)}


def write_parts(path: Path, parts: Mapping[str, Part]) -> Stored:
    """Write a file and see it to the disk; it is no use to anybody before this returns."""
    header, places = layout_of(parts)
    size = checksum = 0
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as handle:
        for block in _blocks(header, [parts[name] for name in places]):
            write_at(handle, block, size)
            checksum = zlib.crc32(block, checksum)
            size += len(block)
        os.fsync(handle)
    return Stored(path.name, size, checksum)


def check_stored(directory: Path, stored: Stored) -> None:
    """See that a file is as it was written, every byte of it.

    Raises:
        ModelFileError: It is missing, or of another size or content.
    """
    path = directory / stored.name
    if not path.is_file():
        raise ModelFileError(f"{path}: missing")
    size = path.stat().st_size
    if size != stored.bytes:
        raise ModelFileError(f"{path}: {size:,} bytes, expected {stored.bytes:,}")
    checksum, buffer = 0, memoryview(bytearray(min(_BLOCK, size)))
    with opened(path, os.O_RDONLY) as handle:
        for start in range(0, size, _BLOCK):
            block = buffer[: min(_BLOCK, size - start)]
            _read_at(handle, block, start, path)
            checksum = zlib.crc32(block, checksum)
    if checksum != stored.checksum:
        raise ModelFileError(f"{path}: damaged: its checksum is not that of what was written")


def read_layout(path: Path) -> tuple[dict[str, Place], dict[str, str]]:
    """Return where the arrays of a file are, and its metadata.

    Raises:
        ModelFileError: Missing, truncated, or no safetensors file.
    """
    start, entries = read_header(path)
    return _places(entries, start), dict(entries.get("__metadata__", {}))


def read_into(
    path: Path,
    place: Place,
    target: NDArray[Any],
    *,
    rows: NDArray[np.integer[Any]] | None = None,
) -> None:
    """Read an array of a file into one that is there, or into some of its rows.

    Args:
        path: The file.
        place: Where the array is; its shape is the target's, or that of the rows.
        target: Is written to.
        rows: Which rows of the target; all where not given.

    Raises:
        ModelFileError: The file ends too early.
    """
    whole = np.atleast_1d(target)
    count = len(whole) if rows is None else len(rows)
    if count == 0 or whole.size == 0:
        return
    step = min(_rows_a_block(whole), count)
    buffer = np.empty((step, *whole.shape[1:]), whole.dtype)
    position = place.begin
    with opened(path, os.O_RDONLY) as handle:
        for start in range(0, count, step):
            some = buffer[: min(step, count - start)]
            _read_at(handle, _bytes_of(some), position, path)
            position += some.nbytes
            where = slice(start, start + len(some)) if rows is None else rows[start : start + step]
            whole[where] = some


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file by the operating system's own calls, which write at any place of it."""
    handle = os.open(path, flags, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def write_at(handle: int, block: bytes | memoryview, position: int) -> None:
    """Write all of a block at a position of a file."""
    done = 0
    while done < len(block):
        done += os.pwrite(handle, block[done:], position + done)


def fsync_directory(directory: Path) -> None:
    """See to the disk which files a directory has."""
    with opened(directory, os.O_RDONLY) as handle:
        os.fsync(handle)


def _places(entries: Mapping[str, Any], start: int) -> dict[str, Place]:
    return {
        name: Place(entry["dtype"], tuple(entry["shape"]), start + entry["data_offsets"][0])
        for name, entry in entries.items()
        if name != "__metadata__"
    }


def _blocks(header: bytes, parts: list[Part]) -> Iterator[bytes | memoryview]:
    yield header
    for part in parts:
        yield from part.blocks()


def _read_at(handle: int, block: memoryview, position: int, path: Path) -> None:
    done = 0
    while done < len(block):
        count = os.preadv(handle, [block[done:]], position + done)
        if count == 0:
            raise ModelFileError(f"{path}: ends at byte {position + done:,}, in an array")
        done += count


def _rows_a_block(values: NDArray[Any]) -> int:
    return max(_BLOCK // max(values.itemsize * math.prod(values.shape[1:]), 1), 1)


def _bytes_of(values: NDArray[Any]) -> memoryview:
    return values.reshape(-1).view(np.uint8).data
