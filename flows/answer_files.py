"""Labels as lines of text, JSON lines, CSV, TSV or Parquet, with what the input had kept."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from flows.answer_columns import Column, Shown, free_prefix, written
from sparsedistill.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.input_rows import Batch
    from sparsedistill.answers import Answers


class Writer(Protocol):
    """Writes answers in one format."""

    def write(self, batch: Batch, answers: Answers) -> None:
        """Write the answers to a batch."""

    def close(self) -> None:
        """Write what has been held back."""


def make_writer(output_format: str, sink: BinaryIO, shown: Shown, labels: Sequence[str]) -> Writer:
    """The writer of a format.

    Raises:
        ConfigError: Lines of text cannot hold a label.
    """
    if output_format == "jsonl":
        return _JsonLines(sink, shown)
    if output_format == "parquet":
        from flows.parquet_answers import ParquetWriter

        return ParquetWriter(sink, shown)
    if output_format == "text":
        check_labels(labels)
        return _Text(sink, shown)
    return _Delimited(sink, shown, "," if output_format == "csv" else "\t")


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels that would break lines of text.

    Raises:
        ConfigError: Names one.
    """
    for label in labels:
        if len(label.splitlines()) > 1 or "\t" in label or label.endswith(("\n", "\r")):
            raise ConfigError(
                f"the label {label!r} does not fit in lines of text: use --output-format jsonl"
            )


class _Text:
    """One line for each text: its label; or where more is asked for, columns under a heading."""

    def __init__(self, sink: BinaryIO, shown: Shown) -> None:
        self._sink = sink
        self._shown = shown
        self._begun = not shown

    def write(self, batch: Batch, answers: Answers) -> None:  # noqa: ARG002 - as every writer
        if not len(answers):
            return
        columns = self._shown.columns(answers, bare=True)
        lines = [] if self._begun else ["\t".join(column.name for column in columns)]
        self._begun = True
        lines += map("\t".join, zip(*map(written, columns), strict=True))
        self._sink.write(("\n".join(lines) + "\n").encode())

    def close(self) -> None:
        pass


class _JsonLines:
    """The input's fields, and then ours; rows of JSON lines are kept byte for byte."""

    def __init__(self, sink: BinaryIO, shown: Shown) -> None:
        self._sink = sink
        self._shown = shown
        self._prefix: str | None = None
        self._encode = json.JSONEncoder(ensure_ascii=False, default=str).encode

    def write(self, batch: Batch, answers: Answers) -> None:
        ours = self._shown.objects(answers)
        if not ours:
            return
        if self._prefix is None:
            self._prefix = free_prefix(list(ours[0]), batch.columns)
        if self._prefix:
            ours = [{self._prefix + name: value for name, value in one.items()} for one in ours]
        _check_free(batch, list(ours[0]))
        ends = [self._encode(one)[1:].encode() + b"\n" for one in ours]
        if batch.lines is not None:
            starts = [line[:-1].rstrip() for line in batch.lines]
        else:
            rows = (dict(zip(batch.columns, row, strict=True)) for row in batch.rows())
            starts = [self._encode(row)[:-1].encode() for row in rows]
        self._sink.write(b"".join(s + b", " + e for s, e in zip(starts, ends, strict=True)))

    def close(self) -> None:
        pass


def _check_free(batch: Batch, ours: Sequence[str]) -> None:
    rows = batch.objects if batch.objects is not None else [batch.columns]
    for row in rows:
        for name in ours:
            if name in row:
                raise DataError(
                    f"{batch.source}: a row after the first has the field {name!r}, which is also "
                    "the name of one that is added: rename it in the input"
                )


class _Delimited:
    """The input's columns, and then ours."""

    def __init__(self, sink: BinaryIO, shown: Shown, delimiter: str) -> None:
        self._sink = sink
        self._shown = shown
        self._delimiter = delimiter
        self._columns: FixedColumns | None = None

    def write(self, batch: Batch, answers: Answers) -> None:
        ours = self._shown.columns(answers)
        lines = io.StringIO(newline="")
        writer = csv.writer(lines, delimiter=self._delimiter, lineterminator="\n")
        if self._columns is None:
            self._columns = FixedColumns(batch, ours)
            writer.writerow(self._columns.names)
        self._columns.check(batch)
        values = zip(*map(written, ours), strict=True)
        for row, added in zip(batch.rows(), values, strict=True):
            writer.writerow([*map(_as_field, row), *added])
        self._sink.write(lines.getvalue().encode())

    def close(self) -> None:
        pass


def _as_field(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


class FixedColumns:
    """The columns of the first batch, which those after it must have too.

    Attributes:
        names: The input's, and then ours.
    """

    def __init__(self, batch: Batch, ours: Sequence[Column]) -> None:
        self._source = batch.source
        self._columns = batch.columns
        names = [column.name for column in ours]
        prefix = free_prefix(names, batch.columns)
        self.names = [*batch.columns, *(prefix + name for name in names)]

    def check(self, batch: Batch) -> None:
        """Refuse a batch of other columns.

        Raises:
            DataError: Names both files.
        """
        if batch.columns != self._columns:
            raise DataError(
                f"{batch.source}: its columns are {', '.join(batch.columns)}, those of "
                f"{self._source} are {', '.join(self._columns)}: predict them one at a time, or "
                "with --output-format jsonl, which keeps the fields of every row"
            )
