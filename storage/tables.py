"""Parquet tables whose bytes depend on their rows only.

zstd 3 without dictionaries: best size for its time on short texts. Rows
are copied into one chunk per row group before they are written, because page boundaries would
otherwise follow the chunks a table happens to be made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import DamagedArtifactError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LEVEL = 3


class TableWriter:
    """Writes a Parquet file of which each `write_table` makes exactly one row group.

    A context manager. Use it below `ArtifactWriter.path`: a file cut short by an error is
    thrown away there with the rest.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer: Any = pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=_LEVEL, use_dictionary=False
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


def open_writer(path: Path, schema: pa.Schema) -> TableWriter:
    """A writer for a table too large to hold; tables must have this schema."""
    return TableWriter(path, schema)


def write_table(path: Path, table: pa.Table, *, row_group_rows: int = 50_000) -> None:
    """Write a table in row groups of a fixed number of rows. Equal tables give equal bytes."""
    if row_group_rows < 1:
        raise ValueError(f"row_group_rows must be at least 1, not {row_group_rows}")
    with open_writer(path, table.schema) as writer:
        for start in range(0, table.num_rows, row_group_rows):
            writer.write_table(table.slice(start, row_group_rows))


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns in the order asked for.

    Raises:
        StorageError: the file has no such column.
        DamagedArtifactError: it is no whole Parquet file.
    """
    try:
        with pq.ParquetFile(path) as file:
            known = file.schema_arrow.names
            missing = [name for name in columns or [] if name not in known]
            if missing:
                raise StorageError(f"{path} has no column {missing}; it has {known}")
            table = file.read(columns=None if columns is None else list(columns))
            return table if columns is None else table.select(list(columns))
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DamagedArtifactError(str(path.parent), path.name, str(error)) from error
