"""Logits that some other teacher made: a Parquet of texts and logits, or probabilities.

They are matched by text. Labels are matched by name, never by position.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from sparsedistill.errors import DataError
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.identity import text_digests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True, slots=True)
class GivenLogits:
    """Logits by the text they belong to.

    Attributes:
        digests: Of the texts, sorted by their first half, uint64 [rows, 2].
        logits: float32 [rows, classes], columns in the order of the task's labels.
    """

    digests: npt.NDArray[np.uint64]
    logits: npt.NDArray[np.float32]

    def lookup(self, texts: TextBuffer) -> npt.NDArray[np.int64]:
        """Return the row of every text, -1 where there is none, int64 [texts]."""
        wanted = text_digests(texts)
        if len(self.digests) == 0:
            return np.full(len(texts), -1, np.int64)
        at = np.searchsorted(self.digests[:, 0], wanted[:, 0]).clip(max=len(self.digests) - 1)
        return np.where((self.digests[at] == wanted).all(axis=1), at, -1)


def read_given_logits(
    urls: Sequence[str], *, labels: Sequence[str], given_labels: Sequence[str] | None
) -> GivenLogits:
    """Read logits made elsewhere.

    Args:
        urls: Parquet files with ``text`` and ``logits`` or ``probabilities`` (a list a row).
        labels: The task's labels; the result's columns have their order.
        given_labels: Order of the columns in the files; None takes ``label_names`` of the metadata.

    Raises:
        DataError: No labels are stated, they are not the task's, or a value is not finite; the
            message names file and row. Of rows with one text the first counts.
    """
    parts = [_read_one(url, labels, given_labels) for url in urls]
    digests = np.concatenate([digest for digest, _ in parts])
    logits = np.concatenate([values for _, values in parts])
    order = np.argsort(digests[:, 0], kind="stable")
    first = order[np.diff(digests[order, 0], prepend=digests[order[:1], 0] - np.uint64(1)) != 0]
    return GivenLogits(digests[first], logits[first])


def _read_one(
    url: str, labels: Sequence[str], given_labels: Sequence[str] | None
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    try:
        with fsspec.open(url, "rb") as file:
            table = pq.read_table(file)
    except pa.ArrowInvalid as error:
        raise DataError(f"{url}: not a Parquet file: {error}") from error
    column = next((c for c in ("logits", "probabilities") if c in table.column_names), None)
    if column is None or "text" not in table.column_names:
        raise DataError(
            f"{url}: needs the columns text and logits (or probabilities), has {table.column_names}"
        )
    order = _column_order(url, table, labels, given_labels)
    values = _values(url, table[column], len(order))
    if column == "probabilities":
        if (values < 0).any() or (values > 1.001).any():
            raise DataError(f"{url}: the column probabilities has values outside 0 to 1")
        values = np.log(values.clip(min=_LEAST_PROBABILITY))
    return text_digests(_texts(url, table["text"])), values[:, order]


def _texts(url: str, column: pa.ChunkedArray) -> TextBuffer:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise DataError(f"{url}: the column text holds {column.type}, not strings")
    if column.null_count:
        row = column.is_null().to_pylist().index(True) + 1
        raise DataError(f"{url}: row {row} has no text; remove such rows from the file")
    return TextBuffer.from_arrow(column)


def _column_order(
    url: str, table: pa.Table, labels: Sequence[str], given_labels: Sequence[str] | None
) -> list[int]:
    metadata = table.schema.metadata or {}
    if given_labels is None and b"label_names" in metadata:
        given_labels = json.loads(metadata[b"label_names"])
    if given_labels is None:
        raise DataError(
            f"{url}: the file does not say which column is which label; give [logits] labels"
        )
    if sorted(given_labels) != sorted(labels):
        raise DataError(
            f"{url}: its labels are {sorted(given_labels)}, the task's are {sorted(labels)}"
        )
    return [list(given_labels).index(label) for label in labels]


def _values(url: str, column: pa.ChunkedArray, classes: int) -> npt.NDArray[np.float32]:
    """Return a column of lists as float32 [rows, classes]."""
    if not _is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        raise DataError(f"{url}: each row needs a list of {classes} values, not {column.type}")
    chunks = list(_flat_chunks(url, column, classes))
    values = np.concatenate([np.empty((0, classes), np.float32), *chunks])
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise DataError(
            f"{url}: row {int(bad[0]) + 1} is not finite: {values[bad[0]].tolist()} "
            f"({len(bad)} such rows); remove them from the file"
        )
    return values


def _flat_chunks(
    url: str, column: pa.ChunkedArray, classes: int
) -> Iterator[npt.NDArray[np.float32]]:
    row = 0
    for chunk in column.chunks:
        lengths = chunk.value_lengths().fill_null(0) if _is_list(chunk.type) else None
        widths: Any = (
            lengths.to_numpy() if lengths is not None else np.full(len(chunk), chunk.type.list_size)
        )
        wrong = np.flatnonzero(widths != classes)
        if len(wrong) or chunk.null_count:
            where = int(wrong[0]) if len(wrong) else chunk.is_null().to_pylist().index(True)
            raise DataError(f"{url}: row {row + where + 1} does not have {classes} values")
        row += len(chunk)
        yield chunk.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, classes)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
