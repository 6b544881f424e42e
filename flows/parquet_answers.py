"""Answers as Parquet, beside the columns of the input; the only writer that needs pyarrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.answer_files import FixedColumns
from sparsedistill.errors import DataError

if TYPE_CHECKING:
    from flows.answer_columns import Column, Shown
    from flows.input_rows import Batch
    from sparsedistill.answers import Answers

# Rows and bytes held back, so that row groups are of a useful size.
_ROWS, _BYTES = 1 << 17, 1 << 26


class ParquetWriter:
    """The input's columns with their types, and then ours.

    The types of what comes from JSON lines are those of the first rows; what does not fit them
    later is an error.
    """

    def __init__(self, sink: BinaryIO, shown: Shown) -> None:
        self._sink = sink
        self._shown = shown
        self._columns: FixedColumns | None = None
        self._schema: Any = None
        self._writer: Any = None
        self._waiting: list[Any] = []

    def write(self, batch: Batch, answers: Answers) -> None:
        """Write the answers to a batch."""
        ours = self._shown.columns(answers)
        if self._columns is None:
            self._columns = FixedColumns(batch, ours)
        self._columns.check(batch)
        table = self._table(batch, ours)
        if self._writer is None:
            self._schema = table.schema
            self._writer = pq.ParquetWriter(self._sink, table.schema, compression="zstd")
        elif table.schema != self._schema:
            try:
                table = table.cast(self._schema)
            except (pa.ArrowException, ValueError) as error:
                raise DataError(
                    f"{batch.source}: its columns have other types than the files before "
                    f"({error}): predict them one at a time"
                ) from error
        self._waiting.append(table)
        if (
            sum(one.num_rows for one in self._waiting) >= _ROWS
            or sum(one.nbytes for one in self._waiting) >= _BYTES
        ):
            self._flush()

    def close(self) -> None:
        """Write what has been held back, and the end of the file."""
        if self._writer is None:
            # No rows at all: a file with our columns and none of the input's, which had none.
            names = ["label", "probability"]
            pq.write_table(
                pa.table([pa.array([], pa.string()), pa.array([], pa.float32())], names=names),
                self._sink,
            )
            return
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting = []

    def _table(self, batch: Batch, ours: list[Column]) -> Any:  # noqa: ANN401
        added = [
            pa.array(column.values, pa.float32())
            if isinstance(column.values, np.ndarray)
            else pa.array(column.values, pa.string())
            for column in ours
        ]
        assert self._columns is not None  # noqa: S101 - made in `write`
        names = self._columns.names
        if batch.arrow is not None:
            kept = batch.arrow.columns
            fields = list(batch.arrow.schema)
        else:
            kept = self._arrays(batch)
            fields = [pa.field(n, a.type) for n, a in zip(names, kept, strict=False)]
        fields += [pa.field(n, a.type) for n, a in zip(names[len(kept) :], added, strict=True)]
        metadata = batch.arrow.schema.metadata if batch.arrow is not None else None
        return pa.Table.from_arrays([*kept, *added], schema=pa.schema(fields, metadata))

    def _arrays(self, batch: Batch) -> list[Any]:
        found = []
        for i, values in enumerate(zip(*batch.rows(), strict=True)):
            kind = None if self._schema is None else self._schema.field(i).type
            try:
                array = pa.array(values, kind)
            except (pa.ArrowException, OverflowError) as error:
                raise DataError(
                    f"{batch.source}: from line {batch.first} on: {batch.columns[i]!r} does not "
                    f"keep to one type ({error}): use --output-format jsonl"
                ) from error
            # Of the type of nothing, which no later row could have.
            found.append(array.cast(pa.string()) if pa.types.is_null(array.type) else array)
        return found or [pa.array([], pa.string()) for _ in batch.columns]
