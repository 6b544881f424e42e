"""Rows of named fields out of .jsonl, .csv, .tsv and .parquet: values as they are, unchecked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from storage import parquet
from storage.delimited import DELIMITERS, records
from storage.errors import SourceError
from storage.lines import good_lines
from storage.sources import Source, format_of
from storage.streams import open_bytes, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from storage.lines import Report

    # Row number and the values asked for; None for a blank line.
    Row: TypeAlias = tuple[int, tuple[Any, ...] | None]


def read_rows(
    source: Source,
    columns: Sequence[str],
    *,
    max_bytes: int,
    report: Report,
    storage_options: Mapping[str, object] | None,
) -> Iterator[Row]:
    """The values of some columns, row by row; None for a blank line.

    Rows that are too long, malformed, or lack a field are reported instead.

    Raises:
        SourceError: the file is missing, empty or damaged, or has no such column.
    """
    file_format, compression = format_of(source.url)
    if file_format == "parquet":
        yield from parquet.rows(source, columns, storage_options=storage_options)
        return
    with open_bytes(source, compression, storage_options) as file:
        if file_format == "jsonl":
            lines = good_lines(file, source.name, max_bytes=max_bytes, report=report)
            for first, run in lines:
                yield from _objects(first, run, columns, report)
        else:
            found = records(
                pieces(file, source.name, max_bytes),
                source.name,
                delimiter=DELIMITERS[file_format],
                max_bytes=max_bytes,
                report=report,
            )
            yield from _fields(found, source.name, columns, report)


def _objects(first: int, lines: list[str], columns: Sequence[str], report: Report) -> Iterator[Row]:
    for row, line in enumerate(lines, first):
        if not line.strip():
            yield row, None
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            report(row, f"malformed JSON: {error}", line)
            continue
        if not isinstance(fields, dict):
            report(row, "malformed JSON: not an object", line)
            continue
        missing = [column for column in columns if column not in fields]
        if missing:
            there = ", ".join(map(repr, list(fields)[:10])) or "none"
            report(row, f"no field {missing[0]!r}; there are: {there}", line)
            continue
        yield row, tuple(fields[column] for column in columns)


def _fields(
    found: Iterator[tuple[int, list[str]]], name: str, columns: Sequence[str], report: Report
) -> Iterator[Row]:
    row, header = next(found, (1, []))
    wanted = [_position(header, column, name, row) for column in columns]
    for row, fields in found:
        if not fields:
            yield row, None
        elif len(fields) != len(header):
            report(row, f"{len(fields)} fields where the header has {len(header)}", fields)
        else:
            yield row, tuple(fields[position] for position in wanted)


def _position(header: list[str], column: str, name: str, row: int) -> int:
    if header.count(column) != 1:
        times = "two columns" if column in header else "no column"
        there = ", ".join(map(repr, header)) or "none"
        raise SourceError(name, f"{times} {column!r}; the header has: {there}", row)
    return header.index(column)
