"""Many strings as two arrays, the only form of text the kernels see.

A column of strings in Arrow is already this, so a shard read from Parquet is used where it lies;
no Python object is made per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.jit import kernel
from sparsedistill.parallel import map_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray


# Strings whose bytes are fetched together, and strings copied in one call.
_BATCH, _BLOCK = 64, 1 << 16


def frozen(array: Any, dtype: DTypeLike) -> NDArray[Any]:  # noqa: ANN401
    """A contiguous read-only view (a copy only where it must be) of one dtype.

    Numba compiles a kernel anew for a writable and for a read-only argument; with every input
    read-only there is one signature, and an input cannot be changed by mistake.
    """
    view = np.ascontiguousarray(np.asarray(array), dtype=dtype).view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True, eq=False)
class TextBuffer:
    """Strings in UTF-8, end to end: row `i` is `data[offsets[i]:offsets[i + 1]]`.

    Attributes:
        data: uint8[bytes], valid UTF-8 (what is not is read as a separator, never out of bounds).
        offsets: int64[rows + 1], ascending; need not begin at 0, so a slice shares `data`.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", frozen(self.data, np.uint8))
        object.__setattr__(self, "offsets", frozen(self.offsets, np.int64))
        offsets = self.offsets
        if self.data.ndim != 1 or offsets.ndim != 1 or len(offsets) == 0:
            raise DataError("a text buffer needs flat data and rows + 1 offsets, of which one is 0")
        if offsets[0] < 0 or offsets[-1] > len(self.data) or (np.diff(offsets) < 0).any():
            raise DataError(f"text offsets must ascend inside the {len(self.data)} bytes of data")

    @classmethod
    def from_strings(cls, texts: Sequence[str], *, first_row: int = 0) -> TextBuffer:
        """Encode Python strings.

        Args:
            texts: The rows.
            first_row: The number that the first row has in error messages.

        Raises:
            DataError: A row is not a `str`, or has a lone surrogate and so no UTF-8 form.
        """
        try:
            data = "".join(texts).encode("utf-8")
            lengths = (len(text) if text.isascii() else len(text.encode("utf-8")) for text in texts)
            return cls(_bytes(data), _offsets(lengths, len(texts)))
        except (TypeError, UnicodeEncodeError):
            _raise_for_bad_row(texts, first_row)
            raise

    @classmethod
    def from_arrow(cls, column: Any) -> TextBuffer:  # noqa: ANN401
        """Use a pyarrow `string` or `large_string` array, or chunked array, where it lies.

        Raises:
            DataError: Another type, a null (the message names the row), or invalid UTF-8.
        """
        import pyarrow as pa

        if isinstance(column, pa.ChunkedArray):
            if not _is_text(column.type):
                raise DataError(f"expected a column of strings, got {column.type}")
            # 64-bit offsets: chunks together may be longer than `string` can hold.
            column = pa.concat_arrays(
                [chunk.cast(pa.large_string()) for chunk in column.chunks]
                or [pa.array([], pa.large_string())]
            )
        if not _is_text(column.type):
            raise DataError(f"expected a column of strings, got {column.type}")
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise DataError(f"row {row} is null: fill or drop rows without text")
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise DataError(f"the column is not valid UTF-8: {error}") from error
        width = np.int64 if pa.types.is_large_string(column.type) else np.int32
        _, offset_buffer, data_buffer = column.buffers()
        if len(column) == 0 or offset_buffer is None:
            return cls(np.zeros(0, np.uint8), np.zeros(1, np.int64))
        offsets = np.frombuffer(offset_buffer, width).astype(np.int64)[column.offset :][
            : len(column) + 1
        ]
        data = _bytes(data_buffer) if data_buffer is not None else np.zeros(0, np.uint8)
        return cls(data, offsets)

    @classmethod
    def concat(cls, parts: Sequence[TextBuffer]) -> TextBuffer:
        """The rows of all parts, in order; no parts give no rows."""
        lengths = [np.diff(part.offsets) for part in parts]
        offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
        data = [part.data[part.offsets[0] : part.offsets[-1]] for part in parts]
        return cls(np.concatenate([np.zeros(0, np.uint8), *data]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> TextBuffer: ...

    def __getitem__(self, row: int | slice) -> str | TextBuffer:
        if isinstance(row, slice):
            start, stop, step = row.indices(len(self))
            if step != 1:
                raise ValueError("rows of a slice lie side by side: there is no step")
            return self.slice(start, max(start, stop))
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def slice(self, start: int, stop: int) -> TextBuffer:
        """Rows `start` to `stop` over the same bytes."""
        return TextBuffer(self.data, self.offsets[start : stop + 1])

    def take(self, rows: NDArray[np.integer[Any]], *, threads: int = 1) -> TextBuffer:
        """The rows in the order asked for, copied together, in at most so many threads."""
        starts = self.offsets[:-1][rows]
        lengths = self.offsets[1:][rows] - starts
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        data = np.empty(offsets[-1], np.uint8)
        starts, ends = frozen(starts, np.int64), frozen(offsets, np.int64)
        map_ranges(
            lambda a, b: gather(self.data, starts[a:b], ends[a : b + 1], data),
            len(rows),
            block=_BLOCK,
            threads=threads,
        )
        return TextBuffer(data, offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of text in the rows."""
        return int(self.offsets[-1] - self.offsets[0])


@kernel
def gather(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:
    """Copy the bytes from `starts[i]` on to `offsets[i]` and up to `offsets[i + 1]`."""
    if len(data) == 0:
        return
    touched = np.uint8(0)
    for first in range(0, len(starts), _BATCH):
        last = min(first + _BATCH, len(starts))
        # So that cache misses overlap, which they do only in a loop that does nothing else.
        for i in range(first, last):
            touched ^= data[min(starts[i], len(data) - 1)]
        for i in range(first, last):
            shift = starts[i] - offsets[i]
            for at in range(offsets[i], offsets[i + 1]):
                out[at] = data[at + shift]
    # Never true, but the compiler cannot know, and so keeps the loads above.
    if touched == 1 and len(out) < 0:
        out[0] = touched


def _bytes(buffer: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    return np.frombuffer(buffer, np.uint8)


def _offsets(lengths: Iterator[int], rows: int) -> NDArray[np.int64]:
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(np.fromiter(lengths, np.int64, rows), out=offsets[1:])
    return offsets


def _is_text(arrow_type: Any) -> bool:  # noqa: ANN401
    import pyarrow as pa

    return bool(pa.types.is_string(arrow_type) or pa.types.is_large_string(arrow_type))


def _raise_for_bad_row(texts: Sequence[str], first_row: int) -> None:
    for row, text in enumerate(texts, first_row):
        if not isinstance(text, str):
            raise DataError(f"row {row} is a {type(text).__name__}, not a str")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"row {row} has the lone surrogate U+{ord(text[error.start]):04X} at character "
                f"{error.start} and so no UTF-8 form; decode the source with errors='replace'"
            ) from error
