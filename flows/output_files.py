"""What commands write: files that are whole or not there, and JSON that harms no terminal.

A file is written beside its place and renamed when it is whole, so that what a killed run leaves
behind is never taken for its result.
"""

from __future__ import annotations

import gzip
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import zstandard

from dashboards.format import json_text
from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def open_output(name: str | None, *, option: str = "--output") -> Iterator[BinaryIO]:
    """Open a file that appears under its name only when the block ends well; or standard output.

    By its suffix it is compressed. What is no plain file (a pipe, a device) is written directly.

    Args:
        name: Its path; None is standard output.
        option: That gave it, for messages.

    Raises:
        ConfigError: There is no such directory, or it may not be written in.
    """
    if name is None:
        yield sys.stdout.buffer
        return
    path = Path(name).resolve()
    if path.exists() and not path.is_file():
        if path.is_dir():
            raise ConfigError(f"{option} {name}: it is a directory; name a file in it")
        with path.open("wb") as sink:
            yield sink
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        sink = part.open("wb")
    except OSError as error:
        raise ConfigError(f"{option} {name} cannot be written: {error.strerror}") from error
    try:
        with sink:
            with _compressed(sink, path.suffix) as packed:
                yield packed
            sink.flush()
            os.fsync(sink.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def open_json(name: str | None) -> Iterator[Callable[[object], None]]:
    """Open the file of a ``--json FILE``; what is yielded writes to it, or nowhere without a name.

    To be opened before the work: a path that cannot be written is then known before minutes of it.

    Raises:
        ConfigError: As for `open_output`.
    """
    if name is None:
        yield lambda _: None
        return
    with open_output(name, option="--json") as sink:

        def write(value: object) -> None:
            sink.write(f"{json_text(value)}\n".encode())

        yield write


def print_json(value: object) -> None:
    """Print a value; where standard output has not all characters, others as escapes."""
    everything = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    print(json_text(value, ascii_only=not everything))  # noqa: T201


@contextmanager
def _compressed(sink: BinaryIO, suffix: str) -> Iterator[BinaryIO]:
    if suffix == ".gz":
        # No time in its head: the same answers are the same bytes.
        with gzip.GzipFile(
            filename="", fileobj=sink, mode="wb", compresslevel=6, mtime=0
        ) as packed:
            yield packed  # type: ignore[misc] # a binary file, by its methods
    elif suffix == ".zst":
        with zstandard.ZstdCompressor().stream_writer(sink, closefd=False) as packed:
            yield packed
    else:
        yield sink
