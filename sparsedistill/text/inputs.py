"""The forms in which texts come to the classifier, turned into text buffers.

What lies in memory as Arrow lays out strings is used where it lies; everything else is encoded, an
iterator piece by piece, so that it may be longer than the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.text.buffers import TextBuffer

Texts: TypeAlias = str | Iterable[str] | TextBuffer | Any
"""One text, or many: a list, an array of NumPy or Arrow, a Polars series, any iterable."""

# Texts taken from an iterator at a time.
PIECE = 4096


def buffers(texts: Texts, *, piece: int = PIECE) -> Iterator[TextBuffer]:
    """Yield all texts in order, at most `piece` of them in a buffer.

    Raises:
        DataError: It is no text and holds none; or a row is not a string, or is one that has no
            UTF-8 form; names the row.
    """
    column = _arrow_column(texts)
    whole = TextBuffer.from_arrow(column) if column is not None else texts
    if isinstance(whole, TextBuffer):
        for start in range(0, len(whole), piece):
            yield whole.slice(start, min(start + piece, len(whole)))
        return
    rows = one_by_one(texts)
    first = 0
    while some := list(islice(rows, piece)):
        yield TextBuffer.from_strings(some, first_row=first)
        first += len(some)


def encoded(text: str) -> bytes:
    """One text in UTF-8; see `buffers` for the error."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        TextBuffer.from_strings([text])  # says what is wrong with it
        raise


def one_by_one(texts: Texts) -> Iterator[str]:
    """Iterate over the texts; see `buffers` for the errors that depend on their form."""
    if isinstance(texts, str):
        return iter([texts])
    column = _arrow_column(texts)
    if column is not None:
        return iter(TextBuffer.from_arrow(column))
    if isinstance(texts, bytes | bytearray | memoryview) or not isinstance(texts, Iterable):
        raise DataError(f"expected a text or many, got {type(texts).__name__}")
    if isinstance(texts, dict | set | frozenset):
        raise DataError(f"expected texts in an order, got a {type(texts).__name__}")
    if isinstance(texts, np.ndarray):
        if texts.ndim != 1:
            raise DataError(f"expected an array of one dimension, got {texts.ndim}")
        return iter(texts.tolist())
    return iter(texts)


def _arrow_column(texts: Texts) -> Any | None:  # noqa: ANN401
    """A pyarrow array of the texts, if that is what they are; imports nothing for what is not."""
    if hasattr(texts, "columns"):
        raise DataError(f"expected texts, got a {type(texts).__name__}: choose one column of it")
    module = type(texts).__module__.partition(".")[0]
    if module == "pyarrow":
        return texts
    if module in {"polars", "pandas"} and hasattr(texts, "to_arrow"):
        return texts.to_arrow()
    return None
