"""Rows of Parquet files as batches; the only reader of texts that needs pyarrow."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.input_rows import Batch, no_column
from sparsedistill.errors import DataError
from sparsedistill.text.buffers import TextBuffer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.input_files import InputFile

_ROWS = 8192


def parquet_batches(file: InputFile, column: str) -> Iterator[Batch]:
    """All rows of a file, with all their columns.

    Raises:
        DataError: It is no Parquet file, has no such column of text, or a text is null.
    """
    with _seekable(file) as (stream, size), _named_errors(file.name):
        parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
        columns = tuple(parquet.schema_arrow.names)
        if columns.count(column) != 1:
            raise no_column(file.name, column, columns)
        kind = parquet.schema_arrow.field(column).type
        if not _is_text(kind):
            raise DataError(f"{file.name}: column {column!r} holds {kind}, not text")
        rows = parquet.metadata.num_rows
        first = 1
        none = pa.RecordBatch.from_pylist([], parquet.schema_arrow)
        for batch in chain(parquet.iter_batches(batch_size=_ROWS), [] if rows else [none]):
            texts = _plain(batch.column(columns.index(column)))
            good = _before_null(texts)
            file.advance(size * batch.num_rows // max(1, rows))
            if good or not rows:
                yield Batch(
                    source=file.name,
                    first=first,
                    texts=_buffer(texts.slice(0, good), file.name, first),
                    columns=columns,
                    arrow=batch.slice(0, good),
                )
            if good < len(texts):
                raise DataError(
                    f"{file.name}: row {first + good}: {column!r} is null: fill or drop the rows "
                    "without text"
                )
            first += len(texts)


@contextmanager
def _seekable(file: InputFile) -> Iterator[tuple[Any, int]]:
    """The file and the bytes that reading it is yet to count.

    Parquet is read from its end, so what comes through a pipe or is compressed as a whole is
    copied to disk first, and counted then.
    """
    if file.path is not None and file.path.is_file() and not file.is_compressed():
        with file.path.open("rb") as stream:
            yield stream, file.path.stat().st_size
        return
    with tempfile.TemporaryFile() as copy:
        for block in file.blocks():
            copy.write(block)
        copy.seek(0)
        yield copy, 0


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the file
        raise DataError(f"{name}: it is no readable Parquet file: {error}") from error


def _is_text(kind: Any) -> bool:  # noqa: ANN401
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return value in (pa.string(), pa.large_string(), pa.string_view())


def _plain(array: Any) -> Any:  # noqa: ANN401 (an array of strings of any kind)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.large_string()) if array.type == pa.string_view() else array


def _before_null(texts: Any) -> int:  # noqa: ANN401
    if not texts.null_count:
        return len(texts)
    return int(texts.is_null().index(pa.scalar(value=True)).as_py())


def _buffer(texts: Any, name: str, first: int) -> TextBuffer:  # noqa: ANN401
    try:
        return TextBuffer.from_arrow(texts)
    except DataError as error:
        last = first + len(texts) - 1
        raise DataError(f"{name}: rows {first} to {last}: {error}") from error
