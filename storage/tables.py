"""Parquet tables whose bytes depend on their rows only.

zstd 3 without dictionaries: best size for its time on short texts. Rows
are copied into one chunk per row group before they are written, because page boundaries would
otherwise follow the chunks a table happens to be made of.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import DamagedArtifactError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_LEVEL = 3
_BUFFER = 1 << 18


class TableWriter:
    """Writes a Parquet file of which each `write_table` makes exactly one row group.

    A context manager. Use it below `ArtifactWriter.path`: a file cut short by an error is
    thrown away there with the rest.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, encodings: Mapping[str, str] | None = None
    ) -> None:
        encodings = dict(encodings or {})
        # What is packed as differences does not get smaller, only slower.
        leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
        packed = [leaf for leaf in leaves if encodings.get(leaf) == "DELTA_BINARY_PACKED"]
        self._writer: Any = pq.ParquetWriter(
            path,
            schema,
            compression={leaf: "none" if leaf in packed else "zstd" for leaf in leaves},
            compression_level={leaf: _LEVEL for leaf in leaves if leaf not in packed},
            use_dictionary=False,
            column_encoding=encodings or None,
            write_page_checksum=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_table(self, table: pa.Table) -> None:
        """Append all rows of a table as one row group; no rows make an empty row group."""
        whole = table.combine_chunks()
        self._writer.write_table(whole, row_group_size=max(1, whole.num_rows))

    def close(self) -> None:
        """Write the footer; without it the file is no Parquet file."""
        self._writer.close()


def open_writer(
    path: Path, schema: pa.Schema, *, encodings: Mapping[str, str] | None = None
) -> TableWriter:
    """A writer for a table too large to hold; tables must have this schema.

    Args:
        path: The file.
        schema: Of all tables.
        encodings: Parquet's encodings by column, `<name>.list.element` for the values of lists.
    """
    return TableWriter(path, schema, encodings)


def write_table(
    path: Path,
    table: pa.Table,
    *,
    row_group_rows: int = 50_000,
    encodings: Mapping[str, str] | None = None,
) -> None:
    """Write a table in row groups of a fixed number of rows. Equal tables give equal bytes."""
    if row_group_rows < 1:
        raise ValueError(f"row_group_rows must be at least 1, not {row_group_rows}")
    with open_writer(path, table.schema, encodings=encodings) as writer:
        for start in range(0, table.num_rows, row_group_rows):
            writer.write_table(table.slice(start, row_group_rows))


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns in the order asked for.

    Raises:
        StorageError: the file has no such column.
        DamagedArtifactError: it is no whole Parquet file.
    """
    with _open(path) as file:
        known = file.schema_arrow.names
        missing = [name for name in columns or [] if name not in known]
        if missing:
            raise StorageError(f"{path} has no column {missing}; it has {known}")
        table = file.read(columns=None if columns is None else list(columns))
        return table if columns is None else table.select(list(columns))


def size_in_memory(path: Path, column: str) -> int:
    """Bytes of a column that is neither compressed nor encoded; raises as `read_table` does."""
    with _open(path) as file:
        index = file.schema_arrow.names.index(column)
        groups = (file.metadata.row_group(i) for i in range(file.num_row_groups))
        return sum(int(group.column(index).total_uncompressed_size) for group in groups)


def read_row_groups(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of a table, one row group at a time; raises as `read_table` does."""
    with _open(path, buffer=0) as file:  # many may be open, and groups are read whole
        for index in range(file.num_row_groups):
            yield file.read_row_group(index, columns=list(columns), use_threads=False)


def read_batches(path: Path, columns: Sequence[str], *, size: int) -> Iterator[pa.RecordBatch]:
    """Some columns of a table, in batches of about `size` bytes; raises as `read_table` does.

    Where batches begin depends on the file alone.
    """
    with _open(path) as file:
        metadata = file.metadata
        total = 1 + sum(metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
        rows = max(1, size * metadata.num_rows // total)
        yield from file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False)


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """What Parquet calls the columns of a field; pyarrow leaves others uncompressed, silently."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    return [path]


@contextmanager
def _open(path: Path, *, buffer: int = _BUFFER) -> Iterator[Any]:
    try:
        with pq.ParquetFile(
            path, pre_buffer=False, buffer_size=buffer, page_checksum_verification=True
        ) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the file is missing, or the disk fails
        raise DamagedArtifactError(str(path.parent), path.name, str(error)) from error
