"""Which files of artifacts a piece of code opened: a figure for people."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_File = tuple[str, str, str]
_OPENED: ContextVar[dict[_File, int] | None] = ContextVar("opened", default=None)


@contextmanager
def counting_reads() -> Iterator[Mapping[_File, int]]:
    """Bytes of the files opened in the block, by (kind, key, name); each counts once.

    Threads that the block starts are not seen.
    """
    opened: dict[_File, int] = {}
    token = _OPENED.set(opened)
    try:
        yield opened
    finally:
        _OPENED.reset(token)


def note_read(kind: str, key: str, name: str, size: int) -> None:
    """Say that a file is about to be read."""
    opened = _OPENED.get()
    if opened is not None:
        opened[kind, key, name] = size
