"""Rows of text files, JSON lines, CSV, TSV and Parquet for the commands over a finished model.

Rows come in batches of about a megabyte, in order, each with all it takes to write it out again.
The first bad row ends the reading, after the rows before it: whoever asks for the label of every
row must not get the labels of others.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.input_files import LONGEST_LINE, STANDARD_INPUT, format_by_name, open_input
from sparsedistill.errors import DataError
from sparsedistill.text.buffers import TextBuffer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flows.input_files import InputFile, Meter

_NEWLINE = ord("\n")
_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Batch:
    """Some rows of a file, one after another; none where a file has columns and no rows.

    Attributes:
        source: The file's name, for people.
        first: Number of the first row, for people: its line in the file, or its row in Parquet.
        texts: Their texts. Those of a text file still have their line ends, which belong to no
            token and so change nothing.
        columns: Names of what a row has.
        lines: Of JSON lines, the rows as they stand in the file.
        objects: Of JSON lines, the same parsed.
        records: Of CSV and TSV, the rows' fields.
        arrow: Of Parquet, the rows as a pyarrow record batch.
    """

    source: str
    first: int
    texts: TextBuffer
    columns: tuple[str, ...]
    lines: Sequence[bytes] | None = None
    objects: Sequence[Mapping[str, Any]] | None = None
    records: Sequence[Sequence[str]] | None = None
    arrow: Any = None

    def rows(self) -> Iterable[Sequence[Any]]:
        """The rows' values, in the order of `columns`.

        Raises:
            DataError: A JSON object has a field that the first of the file had not.
        """
        if self.records is not None:
            return self.records
        if self.objects is not None:
            return self._of_objects(self.objects)
        if self.arrow is not None:
            return zip(*(column.to_pylist() for column in self.arrow.columns), strict=True)
        return ([text.removesuffix("\n").removesuffix("\r")] for text in self.texts)

    def _of_objects(self, objects: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Any]]:
        known = set(self.columns)
        for one in objects:
            if not known.issuperset(one):
                extra = next(name for name in one if name not in known)
                raise DataError(
                    f"{self.source}: the field {extra!r} comes up after the first row, whose "
                    "fields became the columns: --output-format jsonl keeps every field"
                )
            yield [one.get(name) for name in self.columns]


def read_batches(
    names: Sequence[str], *, file_format: str, column: str, meter: Meter
) -> Iterator[Batch]:
    """All rows of some files, in order and in bounded memory.

    Args:
        names: Paths; `-` is standard input.
        file_format: One of `input_files.FORMATS`, or "auto": by each file's name.
        column: Column or field of the text; not used for text files.
        meter: Told how far reading has got.

    Raises:
        DataError: A file cannot be read, or a row has no text; names file and row.
    """
    for name in names:
        kind = format_by_name(name) if file_format == "auto" else file_format
        with open_input(name, meter) as file:
            if kind == "text":
                yield from _text(file)
            elif kind == "jsonl":
                yield from _json_lines(file, column)
            elif kind == "parquet":
                from flows.parquet_rows import parquet_batches

                yield from parquet_batches(file, column)
            else:
                yield from _delimited(file, column, _DELIMITERS[kind])


def input_names(names: Sequence[str]) -> list[str]:
    """The files that were given; standard input if none."""
    return list(names) or [STANDARD_INPUT]


def no_column(source: str, column: str, there: Iterable[str]) -> DataError:
    """The error for a column that is not there, or is there twice."""
    names = list(there)
    times = "two columns" if column in names else "no column"
    known = ", ".join(map(repr, names[:20])) or "nothing"
    return DataError(f"{source}: {times} {column!r}; there is {known}: name one with --column")


def _text(file: InputFile) -> Iterator[Batch]:
    first = 1
    for block in file.lines():
        bad = _invalid_from(block)
        good = block if bad is None else block[: block.rfind(b"\n", 0, bad) + 1]
        data = np.frombuffer(good, np.uint8)
        ends = np.flatnonzero(data == _NEWLINE) + 1
        last = [] if not good or good.endswith(b"\n") else [len(good)]
        offsets = np.concatenate([np.zeros(1, np.int64), ends, np.array(last, np.int64)])
        if len(offsets) > 1:
            texts = TextBuffer(data, offsets)
            yield Batch(source=file.name, first=first, texts=texts, columns=("text",))
        first += len(offsets) - 1
        if bad is not None:
            raise _not_utf8(file.name, first, bad - len(good))


def _json_lines(file: InputFile, column: str) -> Iterator[Batch]:
    columns: tuple[str, ...] = ()
    number = 1
    for block in file.lines():
        first = number
        lines: list[bytes] = []
        objects: list[Mapping[str, Any]] = []
        error = None
        for line in block.removesuffix(b"\n").split(b"\n"):
            stripped = line.strip()
            if stripped:
                try:
                    objects.append(_object(stripped, column))
                    lines.append(stripped)
                except DataError as problem:
                    error = DataError(f"{file.name}: line {number}: {problem}")
                    break
            number += 1
        if objects:
            columns = columns or tuple(objects[0])
            yield Batch(
                source=file.name,
                first=first,
                texts=TextBuffer.from_strings([one[column] for one in objects]),
                columns=columns,
                lines=lines,
                objects=objects,
            )
        if error:
            raise error


def _object(line: bytes, column: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise DataError(_invalid_bytes(error.reason, error.start)) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"malformed JSON: {error}") from error
    if not isinstance(found, dict):
        raise DataError(
            "not a JSON object: one object a line is expected; `jq -c '.[]'` makes them of an array"
        )
    if column not in found:
        there = ", ".join(map(repr, list(found)[:20])) or "nothing"
        raise DataError(f"no field {column!r}; there is {there}: name one with --column")
    _check_text(found[column], column)
    return found


def _check_text(value: object, column: str) -> None:
    if value is None:
        raise DataError(f"{column!r} is null: fill or drop the rows without text")
    if not isinstance(value, str):
        raise DataError(f"{column!r} is {value!r:.60}, not text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{column!r} has the lone surrogate U+{ord(value[error.start]):04X}, which is "
                "half a character: mend the text where it was cut"
            ) from error


class _Lines:
    """Hands lines to `csv.reader`, and knows where it is."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._lines = self._decoded()
        self.number = 0
        self.in_block = 0
        self.at_end = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._lines)
        except StopIteration:
            self.at_end = True
            raise
        self.number += 1
        self.in_block -= 1
        return line

    def _decoded(self) -> Iterator[str]:
        for block in self._file.lines():
            bad = _invalid_from(block)
            good = block if bad is None else block[: block.rfind(b"\n", 0, bad) + 1]
            # Not `splitlines`, which knows many more line ends.
            found = [f"{line}\n" for line in good.removesuffix(b"\n").decode().split("\n")]
            self.in_block = len(found) if good else 0
            yield from found[: self.in_block]
            if bad is not None:
                raise _not_utf8(self._file.name, self.number + 1, bad - len(good))


def _delimited(file: InputFile, column: str, delimiter: str) -> Iterator[Batch]:
    # A global of the csv module. Without it a quote that never closes would swallow the file.
    csv.field_size_limit(LONGEST_LINE)
    lines = _Lines(file)
    found = _records(csv.reader(lines, delimiter=delimiter), lines, file.name)
    _, header = next(found, (0, []))
    if not header:
        return
    columns = tuple(header)
    if columns.count(column) != 1:
        raise no_column(file.name, column, columns)
    at = columns.index(column)
    records: list[list[str]] = []
    first = header_end = lines.number + 1

    def batch() -> Batch:
        texts = TextBuffer.from_strings([record[at] for record in records])
        return Batch(source=file.name, first=first, texts=texts, columns=columns, records=records)

    try:
        for number, record in found:
            if len(record) != len(columns):
                raise DataError(
                    f"{file.name}: line {number}: {len(record)} fields where the header has "
                    f"{len(columns)}: quote the fields that hold a delimiter or a line end"
                )
            records.append(record)
            if lines.in_block == 0:
                yield batch()
                records, first = [], lines.number + 1
    except DataError:
        if records:
            yield batch()
        raise
    if records or first == header_end:
        yield batch()  # without any row, so that an output has the columns at least


def _records(
    reader: Iterator[list[str]], lines: _Lines, name: str
) -> Iterator[tuple[int, list[str]]]:
    """The records without blank lines, each with the number of the line it begins on."""
    while True:
        line = lines.number + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{name}: line {line}: malformed: {error}; a quote that is never closed, or line "
                "ends of an old Mac, would explain it"
            ) from error
        if record is None:
            return
        if lines.at_end:
            raise DataError(
                f"{name}: line {line}: a quote opened in this row is never closed; close it, or "
                "double the quotes inside a quoted field"
            )
        if record:
            yield line, record


def _invalid_from(block: bytes) -> int | None:
    """Where a block is no UTF-8; None if it is."""
    if block.isascii():
        return None
    try:
        block.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def _not_utf8(name: str, line: int, at: int) -> DataError:
    return DataError(f"{name}: line {line}: {_invalid_bytes('invalid bytes', at)}")


def _invalid_bytes(reason: str, at: int) -> str:
    return (
        f"not valid UTF-8 ({reason} at byte {at} of the line): convert the file, for instance with "
        "`iconv -f latin1 -t utf-8`"
    )
