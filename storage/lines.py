"""Validated lines of a text file: the fast path of `.txt`, and what `.jsonl` is parsed from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from storage.streams import pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    # Row, reason, and the value or bytes at fault.
    Report: TypeAlias = Callable[[int, str, object], None]

INVALID_UTF8 = "invalid UTF-8"
NUL = "NUL character"
NULL = "null instead of text"


def too_long(max_bytes: int) -> str:
    """The reason given for a row longer than the limit."""
    return f"longer than {max_bytes:,} bytes"


def text_problem(value: object) -> str | None:
    """Why a value is no usable text, or None if it is.

    Lone surrogates stand for bytes that were not UTF-8, or come from JSON escapes.
    """
    if not isinstance(value, str):
        return NULL if value is None else f"{type(value).__name__}, not text"
    if "\0" in value:
        return NUL
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return INVALID_UTF8
    return None


def good_lines(
    file: Any,  # noqa: ANN401 (any binary file)
    name: str,
    *,
    max_bytes: int,
    report: Report,
) -> Iterator[tuple[int, list[str]]]:
    """Runs of consecutive good lines without their line ends, each with its first line's number.

    Lines that are too long, hold NUL or are not UTF-8 are reported instead.

    Raises:
        SourceError: the file is empty or damaged.
    """
    row = 1
    inside_long = False
    for piece in pieces(file, name, max_bytes):
        data = piece.data
        if not piece.whole:
            if not inside_long:
                report(row, too_long(max_bytes), data)
            inside_long = True
            continue
        if inside_long:
            data = data[data.index(b"\n") + 1 :]
            row += 1
            inside_long = False
        if data:
            yield from _runs(data, row, max_bytes, report)
            row += data.count(b"\n")


def _runs(data: bytes, row: int, max_bytes: int, report: Report) -> Iterator[tuple[int, list[str]]]:
    lines = _all_good(data, max_bytes)
    if lines is not None:
        yield row, lines
        return
    good: list[str] = []
    number = row
    for number, line in enumerate(data[:-1].split(b"\n"), row):
        reason, text = checked(line, max_bytes)
        if reason is None:
            good.append(text)
            continue
        if good:
            yield number - len(good), good
            good = []
        report(number, reason, line)
    if good:
        yield number + 1 - len(good), good


def _all_good(data: bytes, max_bytes: int) -> list[str] | None:
    """All lines, checked at once; None when one of them may be bad."""
    if b"\0" in data:
        return None
    try:
        lines = data[:-1].decode().split("\n")
    except UnicodeDecodeError:
        return None
    # A character takes up to four bytes.
    if len(data) > max_bytes and max(map(len, lines)) * 4 > max_bytes:
        return None
    return lines


def checked(line: bytes, max_bytes: int) -> tuple[str | None, str]:
    """Why some bytes are no usable text (None if they are), and the text."""
    if len(line) > max_bytes:
        return too_long(max_bytes), ""
    if b"\0" in line:
        return NUL, ""
    try:
        return None, line.decode()
    except UnicodeDecodeError:
        return INVALID_UTF8, ""
