"""Rows of text out of .txt, .jsonl, .csv, .tsv and .parquet files, each plain, .gz or .zst.

Streaming, in memory that does not grow with the file. Bad rows of a corpus are reported one by one
and left out; a labelled set is small and must be right, so there the first bad row is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage import parquet
from storage.errors import SourceError
from storage.lines import good_lines, text_problem
from storage.rows import read_rows
from storage.sources import Source, format_of
from storage.streams import as_source, open_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from storage.lines import Report
    from storage.rows import Row

_EXCERPT = 80
_RUN = 1024


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out.

    Attributes:
        source: Name of the file.
        row: 1-based; in text formats the line on which the row starts.
        reason: Why, in words.
        excerpt: How it starts: at most 80 printable characters, others escaped.
    """

    source: str
    row: int
    reason: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """A labelled set.

    Attributes:
        texts: One a row.
        labels: One a row, all strings or all numbers.
        label_names: From the Parquet metadata `label_names`: the name of each label number.
    """

    texts: list[str]
    labels: list[str | int]
    label_names: list[str] | None


def read_texts(
    source: Source | str | Path,
    *,
    on_bad: Callable[[BadRow], None],
    text_column: str = "text",
    batch_rows: int = 8192,
    max_bytes: int = 1 << 20,
    storage_options: Mapping[str, object] | None = None,
) -> Iterator[list[str]]:
    r"""The texts of a file in order, in lists of `batch_rows` (the last one may be shorter).

    In .txt each line is a row. Line ends inside quoted fields become `\n`. Empty rows are
    texts too: `""`.

    Args:
        source: A source, path or URL; its suffix decides how it is read.
        on_bad: Called for each row left out: not UTF-8, NUL, longer than `max_bytes`, malformed
            JSON, a missing field, a wrong type, a wrong number of fields.
        text_column: Column or field of the text; not used for .txt.
        batch_rows: Rows in a list.
        max_bytes: Longest row, in bytes of the file (of the text, in Parquet).
        storage_options: What fsspec needs for URLs.

    Raises:
        SourceError: the file is missing, empty or damaged, of an unknown format, has no such
            column (the message names those there are), or a CSV quote never closes.
    """
    source = as_source(source)

    def report(row: int, reason: str, value: object) -> None:
        on_bad(BadRow(source.name, row, reason, excerpt(value)))

    runs = _text_runs(source, text_column, max_bytes, report, storage_options)
    return _batches(runs, batch_rows)


def read_labelled(
    source: Source | str | Path,
    *,
    text_column: str,
    label_column: str,
    max_bytes: int = 1 << 20,
    storage_options: Mapping[str, object] | None = None,
) -> LabelledRows:
    """All texts and labels of a .jsonl, .csv, .tsv or .parquet file.

    Labels of .csv and .tsv are strings; of the others, strings or integers as they are. Blank lines
    are passed over.

    Raises:
        SourceError: anything at all is wrong; names file, row and reason.
    """
    source = as_source(source)
    file_format, _ = format_of(source.url)
    if file_format == "txt":
        raise SourceError(source.name, "a .txt file holds no labels; use .jsonl, .csv or .parquet")

    def report(row: int, reason: str, value: object) -> None:
        raise SourceError(source.name, f"{reason}: {excerpt(value)!r}", row)

    label_names: list[str] | None = None
    if file_format == "parquet":
        label_names = parquet.label_names(source, storage_options)
    texts: list[str] = []
    labels: list[str | int] = []
    columns = (text_column, label_column)
    for row, values in read_rows(
        source, columns, max_bytes=max_bytes, report=report, storage_options=storage_options
    ):
        if values is None:
            continue
        text, label = values
        problem = text_problem(text) or _label_problem(label, labels, label_names)
        if problem:
            raise SourceError(source.name, f"{problem} (text {excerpt(text)!r})", row)
        texts.append(text)
        labels.append(label)
    return LabelledRows(texts, labels, label_names)


def excerpt(value: object) -> str:
    """The start of a value, at most 80 characters, safe to print."""
    if isinstance(value, bytes):
        value = value[: 4 * _EXCERPT].decode(errors="backslashreplace")
    shown = value[:_EXCERPT] if isinstance(value, str) else repr(value)[:_EXCERPT]
    return repr(shown)[1:-1][:_EXCERPT]


def _text_runs(
    source: Source,
    column: str,
    max_bytes: int,
    report: Report,
    options: Mapping[str, object] | None,
) -> Iterator[list[str]]:
    """Lists of good texts, of any length."""
    file_format, compression = format_of(source.url)
    if file_format == "txt":
        with open_bytes(source, compression, options) as file:
            for _, lines in good_lines(file, source.name, max_bytes=max_bytes, report=report):
                yield lines
    elif file_format == "parquet":
        yield from parquet.texts(
            source, column, max_bytes=max_bytes, report=report, storage_options=options
        )
    else:
        found = read_rows(
            source, (column,), max_bytes=max_bytes, report=report, storage_options=options
        )
        yield from _checked(found, column, report)


def _checked(found: Iterator[Row], column: str, report: Report) -> Iterator[list[str]]:
    run: list[str] = []
    for row, values in found:
        text = "" if values is None else values[0]
        problem = text_problem(text)
        if problem:
            report(row, f"{column!r}: {problem}", text)
            continue
        run.append(text)
        if len(run) == _RUN:
            yield run
            run = []
    yield run


def _batches(runs: Iterable[list[str]], size: int) -> Iterator[list[str]]:
    """The same texts in lists of one size; the last may be shorter, none is empty."""
    pending: list[str] = []
    for run in runs:
        pending += run
        if len(pending) >= size:
            whole = len(pending) // size * size
            for start in range(0, whole, size):
                yield pending[start : start + size]
            pending = pending[whole:]
    if pending:
        yield pending


def _label_problem(
    label: object, labels: Sequence[str | int], names: Sequence[str] | None
) -> str | None:
    if label is None or label == "":
        return "missing label"
    if type(label) not in (str, int):
        return f"label {label!r} is a {type(label).__name__}, not a string or an integer"
    if isinstance(label, str) and text_problem(label):
        return f"label: {text_problem(label)}"
    if labels and type(label) is not type(labels[0]):
        return f"label {label!r} where the rows before have {type(labels[0]).__name__} labels"
    if names is not None and isinstance(label, int) and not 0 <= label < len(names):
        return f"label {label} has no name; label_names has {len(names)}"
    return None
