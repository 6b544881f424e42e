"""Bytes of a source file, decompressed, in blocks; and whole lines of them, in bounded memory."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from storage.errors import SourceError
from storage.sources import Compression, Source, open_file_system
from storage.urls import safe_cause, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BLOCK = 1 << 18
"""Bytes read at a time. Small enough that a line rarely fills `max_bytes` by sharing a block."""

_BOM = b"\xef\xbb\xbf"
_DAMAGED = re.compile("compressed stream|decompress|inflate", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Piece:
    r"""Part of a text file, with `\n` for every line end.

    Attributes:
        data: Either whole lines, each with its line end, or part of a line that is too long.
        whole: Which of the two. After parts of a long line, the next whole piece begins with the
            rest of that line.
    """

    data: bytes
    whole: bool


def as_source(source: Source | str | Path) -> Source:
    """A source from a path or URL given by hand; one that is a source already stays as it is."""
    return (
        source if isinstance(source, Source) else Source(str(source), shown(str(source)), None, "")
    )


@contextmanager
def open_bytes(
    source: Source, compression: Compression | None, storage_options: Mapping[str, object] | None
) -> Iterator[Any]:
    """A readable binary file, decompressed on the way.

    Raises:
        SourceError: the file is missing or may not be read.
    """
    fs, path = open_file_system(source.url, storage_options)
    with _without_secrets(source):
        try:
            file = fs.open(path, "rb")
        except FileNotFoundError as error:
            raise SourceError(source.name, "the file does not exist") from safe_cause(error)
        except (PermissionError, IsADirectoryError) as error:
            reason = f"the file cannot be read: {error.strerror}"
            raise SourceError(source.name, reason) from safe_cause(error)
        with file:
            if compression is None:
                yield file
            else:
                yield pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression)


@contextmanager
def _without_secrets(source: Source) -> Iterator[None]:
    """Errors that quote a URL whose query may be a signature become ones that do not."""
    try:
        yield
    except Exception as error:
        cause = safe_cause(error)
        if cause is error:
            raise
        reason = f"it cannot be read ({type(error).__name__}: {error})"
        raise SourceError(source.name, reason) from cause


def blocks(file: Any, name: str) -> Iterator[bytes]:  # noqa: ANN401 (any binary file)
    """A binary file in blocks.

    Raises:
        SourceError: a compressed file is damaged or was cut short.
    """
    while True:
        try:
            block = bytes(file.read(BLOCK))
        except OSError as error:
            if not _DAMAGED.search(str(error)):
                raise  # the disk or the network, and a retry may help
            raise SourceError(name, f"the compressed file is damaged: {error}") from error
        if not block:
            return
        yield block


def pieces(file: Any, name: str, max_bytes: int) -> Iterator[Piece]:  # noqa: ANN401
    r"""Whole lines, many at a time; a line longer than `max_bytes` comes in parts.

    `\r\n` and `\r` become `\n`, a byte order mark is dropped, a last line gets its line end. Holds
    at most about `max_bytes` plus two blocks.

    Raises:
        SourceError: the file has no bytes at all, or is damaged.
    """
    rest = b""
    empty = True
    for block in blocks(file, name):
        rest = rest + block
        if empty:
            rest = rest.removeprefix(_BOM)
            empty = False
        end = _end_of_lines(rest)
        if end:
            yield Piece(_unix(rest[:end]), whole=True)
            rest = rest[end:]
        elif len(rest) > max_bytes and not rest.endswith(b"\r"):
            yield Piece(rest, whole=False)
            rest = b""
    if empty:
        raise SourceError(name, "the file is empty")
    if rest:
        data = _unix(rest)
        yield Piece(data if data.endswith(b"\n") else data + b"\n", whole=True)


def _end_of_lines(data: bytes) -> int:
    r"""Length of the whole lines at the start; a last `\r` waits for the `\n` it may belong to."""
    return max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1


def _unix(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data
