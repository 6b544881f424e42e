"""Arrays in safetensors files: written from where they lie, mapped when read.

The header is made here, because the library's writer holds every array twice more: a table of 4 GB
would take 12. Bytes are those of the library: the widest types first, then by name, so that each
array begins at a multiple of its numbers' size. Reading believes nothing: whatever is wrong with a
file is a `ModelFileError` that names it and the reason.
"""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from sparsedistill.errors import DataError, ModelFileError
from sparsedistill.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    Layout = Mapping[str, tuple[DTypeLike, tuple[int, ...]]]

# What the format calls NumPy's types, in the order of their arrays in a file.
_DTYPES = {
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F16": np.dtype("<f2"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
# What the format calls a type.
NAMES = {dtype: name for name, dtype in _DTYPES.items()}
# Longer than any array can be, so that a header with it has room for every length.
_LONGEST = 1 << 58


def write_tensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Put a file of arrays in place, or none; the same arrays give the same bytes.

    No array is copied but one that is not contiguous, and that one for as long as it is written.

    Args:
        path: The file.
        tensors: Arrays of numbers or of bool, by name.
        metadata: Strings to be kept with them.

    Raises:
        DataError: An array is of a type that the format does not know.
    """
    layout = {name: (array.dtype, array.shape) for name, array in tensors.items()}
    with replacing(path) as file:
        file.write(header_of(layout, metadata))
        for name in in_file_order(layout):
            _write(file, tensors[name])


@contextmanager
def growing_tensor(
    path: Path, name: str, dtype: DTypeLike, *, beside: Layout
) -> Iterator[GrowingTensor]:
    """Write a file of which one array comes in pieces and need not fit the memory.

    The file is put in place at the end of the block, and is then what `write_tensors` would have
    made of the arrays, but for spaces at the end of the header.

    Args:
        path: The file.
        name: Of the array that grows.
        dtype: Its type; none of the others may be narrower.
        beside: Type and shape of the others, which come before it in the file.

    Raises:
        ValueError: The growing array would not be the last, or its file was not finished.
        DataError: A type that the format does not know.
    """
    with replacing(path) as file:
        growing = GrowingTensor(file, name, np.dtype(dtype), beside)
        yield growing
        if not growing.finished:
            raise ValueError(f"{path}: finish() was not called")


class GrowingTensor:
    """A flat array that is written piece by piece; made by `growing_tensor`.

    Attributes:
        finished: Whether the file is whole.
    """

    def __init__(self, file: BinaryIO, name: str, dtype: np.dtype[Any], beside: Layout) -> None:
        self.finished = False
        self._file, self._name, self._dtype, self._beside = file, name, dtype, dict(beside)
        self._length = 0
        longest = self._layout(_LONGEST)
        if in_file_order(longest)[-1] != name:
            raise ValueError(f"{name}, which grows, must come last: by narrower type, or by name")
        self._room = len(header_of(longest, None))
        file.seek(self._room + sum(_nbytes(*one) for one in beside.values()))

    def append(self, piece: NDArray[Any]) -> None:
        """Write more of the array.

        Raises:
            DataError: The piece is of another type, or not flat.
        """
        if piece.dtype != self._dtype or piece.ndim != 1:
            raise DataError(
                f"{self._name} grows by flat {self._dtype}, not by {piece.dtype}{piece.shape}"
            )
        _write(self._file, piece)
        self._length += len(piece)

    def finish(self, beside: Mapping[str, NDArray[Any]]) -> None:
        """Write the other arrays and the header; nothing can be appended after it.

        Raises:
            DataError: They are not of the types and shapes that were announced.
        """
        found = {name: (array.dtype, array.shape) for name, array in beside.items()}
        expected = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in self._beside.items()}
        if found != expected:
            raise DataError(f"beside {self._name} come {found}, announced were {expected}")
        layout = self._layout(self._length)
        self._file.seek(0)
        self._file.write(header_of(layout, None, room=self._room))
        for name in in_file_order(layout)[:-1]:
            _write(self._file, beside[name])
        self.finished = True

    def _layout(self, length: int) -> Layout:
        return {**self._beside, self._name: (self._dtype, (length,))}


def read_tensors(
    path: Path,
    expected: Mapping[str, tuple[DTypeLike, tuple[int | None, ...]]],
    *,
    writable: bool = False,
) -> dict[str, NDArray[Any]]:
    """Map the arrays of a safetensors file into memory.

    Args:
        path: The file.
        expected: Type and shape that each must have, None for a length that may be any; there may
            be no others.
        writable: What is written into an array copies the page it is on; the file stays as it is.

    Raises:
        ModelFileError: Missing, truncated or otherwise malformed, or not the expected arrays.
    """
    start, header = read_header(path)
    names = set(header) - {"__metadata__"}
    if names != set(expected):
        raise ModelFileError(f"{path}: holds {sorted(names)}, expected {sorted(expected)}")
    content = np.memmap(path, np.uint8, "c" if writable else "r")
    arrays = {}
    for name, (dtype, shape) in expected.items():
        entry = header[name]
        found = tuple(entry["shape"])
        if _DTYPES.get(entry["dtype"]) != np.dtype(dtype) or not _fits(found, shape):
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            raise ModelFileError(
                f"{path}: {name} is {entry['dtype']}{list(found)}, "
                f"expected {np.dtype(dtype).name}[{wanted}]"
            )
        begin, end = (start + offset for offset in entry["data_offsets"])
        # As a plain ndarray: the kernels know no memmap.
        try:
            arrays[name] = np.asarray(content[begin:end]).view(dtype).reshape(found)
        except ValueError as error:  # the header was that of the file before
            raise ModelFileError(f"{path}: replaced while it was read; load it again") from error
    return arrays


def read_header(path: Path) -> tuple[int, dict[str, Any]]:
    """Return where the arrays of a file begin, and its header: an entry each, and the metadata.

    Raises:
        ModelFileError: Missing, truncated, or no safetensors file.
    """
    try:
        # Checks the header and that the arrays fill the file; reads none of them.
        with safe_open(path, framework="numpy"), path.open("rb") as raw:
            start = 8 + int.from_bytes(raw.read(8), "little")
            return start, json.loads(raw.read(start - 8))
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{path}: not a whole safetensors file: {error!s:.200}") from error


def header_of(layout: Layout, metadata: Mapping[str, str] | None, *, room: int = 0) -> bytes:
    """Return what comes before the arrays: length, JSON, spaces to a multiple of 8 or `room`."""
    entries: dict[str, Any] = {}
    if metadata is not None:
        entries["__metadata__"] = {key: metadata[key] for key in sorted(metadata)}
    begin = 0
    for name in in_file_order(layout):
        dtype, shape = layout[name]
        end = begin + _nbytes(dtype, shape)
        entries[name] = {
            "dtype": NAMES[np.dtype(dtype)],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text = text.ljust(max(room - 8, len(text) + -len(text) % 8))
    return len(text).to_bytes(8, "little") + text


def in_file_order(layout: Layout) -> list[str]:
    """Return the names of arrays as they lie in a file: the widest types first, then by name.

    Raises:
        DataError: A type that the format does not know.
    """
    order = {dtype: number for number, dtype in enumerate(NAMES)}
    for name, (dtype, _) in layout.items():
        if np.dtype(dtype) not in order:
            raise DataError(f"{name} is {np.dtype(dtype)}, which safetensors files do not hold")
    return sorted(layout, key=lambda name: (order[np.dtype(layout[name][0])], name))


def _nbytes(dtype: DTypeLike, shape: tuple[int, ...]) -> int:
    return np.dtype(dtype).itemsize * math.prod(shape)


def _write(file: BinaryIO, array: NDArray[Any]) -> None:
    flat = np.ascontiguousarray(array).reshape(-1)
    if len(flat):  # NumPy cannot hand over the bytes of nothing
        file.write(flat.view(np.uint8).data)


def _fits(found: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(found) == len(expected) and all(
        length is None or length == one for one, length in zip(found, expected, strict=True)
    )
