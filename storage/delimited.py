"""Records of .csv and .tsv files, as Python's `csv` reads them, but in bounded memory.

`csv.reader` does the parsing. What it lacks is a limit: a quote that never closes makes it read
the rest of the file into one field. So lines are handed to it one by one and counted; a record
that grows too long is dropped, and a small automaton finds where it ends.
"""

from __future__ import annotations

import csv
import io
from enum import Enum
from typing import TYPE_CHECKING

from storage.errors import SourceError
from storage.lines import too_long

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storage.lines import Report
    from storage.streams import Piece

DELIMITERS = {"csv": ",", "tsv": "\t"}
_QUOTE = '"'
_UNCLOSED = "a quote opened in this row is never closed; fix the quoting of the file"


class _State(Enum):
    """Where in a record the next character stands; as in CPython's `_csv.c`."""

    FIELD = "at the start of a field, or after a quote inside quotes"
    PLAIN = "in an unquoted field"
    QUOTED = "inside quotes"


class _TooLongError(Exception):
    """Carries the line with which a record became too long; never leaves this module."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.line = line


class _Feeder:
    """Hands lines to `csv.reader` and knows how much of the present record it has handed over."""

    def __init__(self, pieces: Iterable[Piece], max_bytes: int) -> None:
        self._lines = _text_lines(pieces)
        self._max_bytes = max_bytes
        self._number = 0
        self._used = 0
        self.lines = 0
        self.cut = False

    def begin(self) -> int:
        """Start a record; gives the number of its first line."""
        self._used = 0
        self.lines = 0
        return self._number + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines, None)
        if line is None:
            # The reader wants a second line only inside quotes.
            self.cut = self.lines > 0
            raise StopIteration
        self._number += line.endswith("\n")
        self._used += len(line) if line.isascii() else len(line.encode(errors="surrogateescape"))
        if self._used > self._max_bytes or not line.endswith("\n"):
            raise _TooLongError(line)
        self.lines += 1
        return line

    def drop(self, line: str, delimiter: str) -> bool:
        """Skip to the end of the present record, of which `line` is next; False if it has none."""
        state = _State.QUOTED if self.lines else _State.FIELD
        while True:
            state = _advance(state, line, delimiter)
            if line.endswith("\n") and state is not _State.QUOTED:
                return True
            following = next(self._lines, None)
            if following is None:
                return state is not _State.QUOTED
            line = following
            self._number += line.endswith("\n")


def records(
    pieces: Iterable[Piece], name: str, *, delimiter: str, max_bytes: int, report: Report
) -> Iterator[tuple[int, list[str]]]:
    """Records as lists of fields, each with the number of the line it starts on.

    The header is a record like the others; a blank line is an empty list. Bytes that are not UTF-8
    are in the fields as lone surrogates. Records longer than `max_bytes` are reported instead.

    Raises:
        SourceError: a quote is never closed, so everything after it would be lost.
    """
    # A global of the csv module, raised and never lowered: the feeder keeps to a lower limit.
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
    feeder = _Feeder(pieces, max_bytes)
    reader = csv.reader(feeder, delimiter=delimiter)
    while True:
        row = feeder.begin()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except _TooLongError as error:
            report(row, too_long(max_bytes), error.line)
            if not feeder.drop(error.line, delimiter):
                raise SourceError(name, _UNCLOSED, row) from None
            continue
        if feeder.cut:
            raise SourceError(name, _UNCLOSED, row)
        yield row, fields


def _text_lines(pieces: Iterable[Piece]) -> Iterator[str]:
    """Lines with their ends; parts of a line that is too long come without."""
    for piece in pieces:
        text = piece.data.decode(errors="surrogateescape")
        if piece.whole:
            yield from io.StringIO(text, newline="\n")
        else:
            yield text


def _advance(state: _State, text: str, delimiter: str) -> _State:
    """The state after some text, which holds a line end at most as its last character."""
    at = 0
    while at < len(text):
        if state is _State.FIELD:
            state = _step(text[at], delimiter)
            at += 1
            continue
        found = text.find(_QUOTE if state is _State.QUOTED else delimiter, at)
        if found < 0:
            return state
        # After a quote inside quotes the same may follow as at the start of a field.
        state = _State.FIELD
        at = found + 1
    return state


def _step(character: str, delimiter: str) -> _State:
    if character == _QUOTE:
        return _State.QUOTED
    if character in (delimiter, "\n"):
        return _State.FIELD
    return _State.PLAIN
