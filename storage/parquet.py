"""Texts and rows out of Parquet files, a batch at a time."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import SourceError
from storage.lines import NULL, checked
from storage.sources import Source, format_of
from storage.streams import blocks, open_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from storage.lines import Report

_BATCH = 8192
_LABEL_NAMES = b"label_names"


def texts(
    source: Source,
    column: str,
    *,
    max_bytes: int,
    report: Report,
    storage_options: Mapping[str, object] | None,
) -> Iterator[list[str]]:
    """Lists of good texts of one column; nulls and unusable texts are reported.

    Raises:
        SourceError: the file is missing or damaged, or has no such column of text.
    """
    with _open(source, storage_options) as file:
        _check_columns(file, [column], source.name)
        _check_text(file, column, source.name)
        row = 1
        for batch in _batches(file, [column], source.name):
            array = _plain(batch.column(0))
            good = _all_good(array, max_bytes)
            yield _good_ones(array, row, max_bytes, report) if good is None else good
            row += len(array)


def rows(
    source: Source, columns: Sequence[str], *, storage_options: Mapping[str, object] | None
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Python values of some columns, row by row; errors as in `texts`."""
    with _open(source, storage_options) as file:
        _check_columns(file, columns, source.name)
        row = 1
        for batch in _batches(file, columns, source.name):
            values = [_values(batch.column(column)) for column in columns]
            yield from enumerate(zip(*values, strict=True), row)
            row += batch.num_rows


def label_names(source: Source, storage_options: Mapping[str, object] | None) -> list[str] | None:
    """The names in the schema metadata `label_names` (a JSON list), or None without it."""
    with _open(source, storage_options) as file:
        text = (file.schema_arrow.metadata or {}).get(_LABEL_NAMES)
    if text is None:
        return None
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SourceError(source.name, "its metadata 'label_names' is no JSON list of strings")
    return names


@contextmanager
def _open(source: Source, storage_options: Mapping[str, object] | None) -> Iterator[Any]:
    _, compression = format_of(source.url)
    with open_bytes(source, compression, storage_options) as stream:
        if compression is None:
            with _parse(stream, source.name) as file:
                yield file
            return
        # Parquet is read from its end, so what is compressed as a whole must be unpacked first.
        with tempfile.TemporaryFile() as unpacked:
            for block in blocks(stream, source.name):
                unpacked.write(block)
            unpacked.seek(0)
            with _parse(unpacked, source.name) as file:
                yield file


@contextmanager
def _parse(stream: Any, name: str) -> Iterator[Any]:  # noqa: ANN401 (any seekable binary file)
    if stream.seek(0, 2) == 0:
        raise SourceError(name, "the file is empty")
    stream.seek(0)
    with _named_errors(name), pq.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20) as file:
        yield file


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError):
            raise  # the disk or the network, and a retry may help
        raise SourceError(name, f"it is no readable Parquet file: {error}") from error


def _batches(file: Any, columns: Sequence[str], name: str) -> Iterator[Any]:  # noqa: ANN401
    with _named_errors(name):
        yield from file.iter_batches(batch_size=_BATCH, columns=list(columns))


def _check_columns(file: Any, columns: Sequence[str], name: str) -> None:  # noqa: ANN401
    there = file.schema_arrow.names
    for column in columns:
        if there.count(column) != 1:
            times = "two columns" if column in there else "no column"
            raise SourceError(name, f"{times} {column!r}; the file has: {', '.join(there)}")


def _check_text(file: Any, column: str, name: str) -> None:  # noqa: ANN401
    kind = file.schema_arrow.field(column).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if value not in (pa.string(), pa.large_string(), pa.string_view()):
        raise SourceError(name, f"column {column!r} holds {kind}, not text")


def _plain(array: Any) -> Any:  # noqa: ANN401 (an array of strings of any kind)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.large_string()) if array.type == pa.string_view() else array


def _all_good(array: Any, max_bytes: int) -> list[str] | None:  # noqa: ANN401
    """All texts, checked at once; None when one of them may be bad."""
    if array.null_count or (pc.max(pc.binary_length(array)).as_py() or 0) > max_bytes:
        return None
    try:
        found: list[str] = array.to_numpy(zero_copy_only=False).tolist()
    except (UnicodeDecodeError, pa.ArrowException):
        return None
    return None if any("\0" in text for text in found) else found


def _good_ones(array: Any, row: int, max_bytes: int, report: Report) -> list[str]:  # noqa: ANN401
    good: list[str] = []
    for number, value in enumerate(array.cast(pa.large_binary()).to_pylist(), row):
        reason, text = (NULL, "") if value is None else checked(value, max_bytes)
        if reason is None:
            good.append(text)
        else:
            report(number, reason, value)
    return good


def _values(array: Any) -> list[Any]:  # noqa: ANN401
    """Python values; strings that are not UTF-8 keep their bytes as lone surrogates."""
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        found = _plain(array).cast(pa.large_binary()).to_pylist()
        return [v if v is None else v.decode(errors="surrogateescape") for v in found]
