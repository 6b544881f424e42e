"""Files that are read once from front to end: opened, decompressed, and counted as they are read.

By the base install alone. `storage.sources` reads what a pipeline run reads, from anywhere and
again and again; here it is local files and standard input, whose end may not be there yet.
"""

from __future__ import annotations

import gzip
import os
import select
import stat
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import zstandard

from sparsedistill.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STANDARD_INPUT = "-"
FORMATS = ("text", "jsonl", "csv", "tsv", "parquet")
BLOCK = 1 << 20
"""Bytes that are read at a time, where so many are there."""

LONGEST_LINE = 1 << 26
"""Bytes in a line; a longer one is most likely no line of text at all."""

_SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_COMPRESSED = (".gz", ".zst")
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BOM = b"\xef\xbb\xbf"
# Of compressed bytes: even the densest zstandard turns so few into some 100 MB at most.
_SIP = 1 << 12


def format_by_name(name: str) -> str:
    """The format that a file's name tells; text where it tells none."""
    path = Path(name.lower())
    if path.suffix in _COMPRESSED:
        path = path.with_suffix("")
    return _SUFFIXES.get(path.suffix, "text")


def called(name: str) -> str:
    """How a file is called in messages."""
    return "standard input" if name == STANDARD_INPUT else name


class Meter:
    """How much of some files has been read, for whoever shows it.

    Attributes:
        read: Bytes so far, as they lie on disk.
        size: Bytes of all files; None where one is a pipe.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.read = 0
        sizes = [_size(name) for name in names]
        known = [size for size in sizes if size is not None]
        self.size = sum(known) if len(known) == len(sizes) else None


class InputFile:
    """An open file; gzip and zstandard are told by their first bytes, whatever the name.

    Attributes:
        name: For people.
        path: None for standard input.
    """

    def __init__(self, name: str, stream: BinaryIO, meter: Meter) -> None:
        self.path = None if name == STANDARD_INPUT else Path(name)
        self.name = called(name)
        self._stream = stream
        self._meter = meter
        self._whole = _is_regular(stream)

    def blocks(self) -> Iterator[bytes]:
        """The bytes in pieces of any size, decompressed.

        Of a pipe a piece is what is there: an answer need not wait for a block to fill.

        Raises:
            DataError: A compressed file is damaged or was cut short.
        """
        start = b""
        while len(start) < len(_ZSTD) and (more := self.read(BLOCK)):
            start += more
        if start.startswith(_GZIP):
            yield from self._gunzip(start)
        elif start.startswith(_ZSTD):
            yield from self._unzstd(start)
        else:
            while start:
                yield start
                start = self.read(BLOCK)

    def lines(self) -> Iterator[bytes]:
        r"""Whole lines, many at a time, each with its `\n` but for the last.

        A byte order mark is left out.

        Raises:
            DataError: As for `blocks`, or a line is longer than `LONGEST_LINE`.
        """
        line, size = 1, 0
        rest: list[bytes] = []
        for block in self._filled():
            end = block.rfind(b"\n") + 1
            if end:
                whole = b"".join([*rest, block[:end]])
                yield whole.removeprefix(_BOM) if line == 1 else whole
                line += whole.count(b"\n")
                block, rest, size = block[end:], [], 0
            rest.append(block)
            size += len(block)
            if size > LONGEST_LINE:
                raise DataError(
                    f"{self.name}: line {line}: longer than {LONGEST_LINE:,} bytes: is this a text "
                    "file? Say what it is with --format, or break its lines"
                )
        if size:
            last = b"".join(rest)
            yield last.removeprefix(_BOM) if line == 1 else last

    def read(self, size: int) -> bytes:
        """Bytes as they lie in the file, what is there and at most so many; none at its end."""
        data = self._stream.read1(size)  # type: ignore[attr-defined] # all that is opened here has it
        while not self._whole and 0 < len(data) < size and self._more_is_there():
            more = self._stream.read1(size - len(data))  # type: ignore[attr-defined]
            if not more:
                break
            data += more
        self._meter.read += len(data)
        return bytes(data)

    def advance(self, size: int) -> None:
        """Count bytes that were read by other means."""
        self._meter.read += size

    def is_compressed(self) -> bool:
        """Whether a file, not a pipe, begins as gzip or zstandard does."""
        if self.path is None:
            return False
        with self.path.open("rb") as file:
            return file.read(len(_ZSTD)).startswith((_GZIP, _ZSTD))

    def _more_is_there(self) -> bool:
        try:
            return bool(select.select([self._stream.fileno()], [], [], 0)[0])
        except (OSError, ValueError):  # not a pipe, or a system that cannot tell
            return False

    def _filled(self) -> Iterator[bytes]:
        """Blocks of a file on disk, filled up: decompressing gives small ones."""
        if not self._whole:
            yield from self.blocks()
            return
        waiting: list[bytes] = []
        size = 0
        for block in self.blocks():
            waiting.append(block)
            size += len(block)
            if size >= BLOCK:
                yield b"".join(waiting)
                waiting, size = [], 0
        if waiting:
            yield b"".join(waiting)

    def _gunzip(self, start: bytes) -> Iterator[bytes]:
        try:
            with gzip.GzipFile(fileobj=_Rest(start, self)) as file:  # type: ignore[call-overload]
                while data := file.read1(BLOCK):
                    yield data
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.name}: the gzip file is damaged or cut short ({error}); get it anew"
            ) from error

    def _unzstd(self, start: bytes) -> Iterator[bytes]:
        # Not its `stream_reader`: that takes a file that was cut short for a whole one.
        source = _Rest(start, self)
        frame = None
        try:
            while data := source.read(_SIP):
                while data:
                    frame = frame or zstandard.ZstdDecompressor().decompressobj()
                    if plain := frame.decompress(data):
                        yield plain
                    data = frame.unused_data if frame.eof else b""
                    frame = None if frame.eof else frame
        except zstandard.ZstdError as error:
            raise DataError(
                f"{self.name}: the zstandard file is damaged ({error}); get it anew"
            ) from error
        if frame is not None:
            raise DataError(f"{self.name}: the zstandard file is cut short; get it anew")


class _Rest:
    """What a decompressor reads: some bytes that were read before, and then the file."""

    def __init__(self, start: bytes, file: InputFile) -> None:
        self._start = start
        self._file = file

    def read(self, size: int) -> bytes:
        if not self._start:
            return self._file.read(size)
        data, self._start = self._start[:size], self._start[size:]
        return data


@contextmanager
def open_input(name: str, meter: Meter) -> Iterator[InputFile]:
    """Open a file, or standard input by the name `-`.

    Raises:
        DataError: It cannot be opened; names it and the reason.
    """
    if name == STANDARD_INPUT:
        yield InputFile(name, sys.stdin.buffer, meter)
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}") from error
    with stream:
        yield InputFile(name, stream, meter)


def check_inputs(names: Sequence[str]) -> None:
    """Refuse a file that cannot be read before the first is begun.

    Raises:
        DataError: See `open_input`; also for a directory.
        ConfigError: Standard input is given twice.
    """
    if list(names).count(STANDARD_INPUT) > 1:
        raise ConfigError("standard input (-) can be read only once")
    for name in names:
        if name == STANDARD_INPUT:
            continue
        if Path(name).is_dir():
            raise DataError(f"{name} cannot be read: it is a directory; name the files in it")
        # A pipe is not opened here: that would wait for whoever writes to it.
        if not Path(name).exists() or Path(name).is_file():
            with open_input(name, Meter([])):
                pass


def _size(name: str) -> int | None:
    try:
        found = os.fstat(sys.stdin.fileno()) if name == STANDARD_INPUT else Path(name).stat()
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _is_regular(stream: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False
