"""The file of logits: by row id, in the order of the task's labels, and it says whose they are.

Bytes of like weight lie together (byte-stream split) before zstd packs them. With many classes a
row may keep its best few and the weight of the rest (``sparsedistill/teacher/top_k.py``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sparsedistill.errors import DataError
from sparsedistill.teacher.top_k import keep_top, spread_rest
from storage import read_table, write_table
from tasks.shards import positions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from storage import Artifact
    from tasks.shards import Texts

    Ids = npt.NDArray[np.uint64]
    Floats = npt.NDArray[np.float32]

FILE = "logits.parquet"
_DTYPES = {"float16": pa.float16(), "float32": pa.float32()}
_SPLIT = {"logits.list.element": "BYTE_STREAM_SPLIT", "rest": "BYTE_STREAM_SPLIT"}


def write_logits(
    path: Path,
    ids: Ids,
    values: Floats,
    *,
    dtype: str,
    labels: Sequence[str],
    whose: str,
    top_k: int | None = None,
) -> None:
    """Write the logits of a shard.

    Args:
        path: Of the file.
        ids: Of the rows, uint64 [rows].
        values: float32 [rows, classes].
        dtype: ``float16`` or ``float32``, on disk.
        labels: Names of the columns.
        whose: Digest of the teacher.
        top_k: How many of a row's logits are kept; None keeps all.

    Raises:
        DataError: A value is not finite in this type; the message names the row.
    """
    columns = {"id": pa.array(ids)}
    if top_k is None or top_k >= len(labels):
        columns["logits"] = _lists(_stored(values, ids, dtype), _DTYPES[dtype])
    else:
        classes, best, rest = keep_top(values, top_k)
        columns["classes"] = _lists(classes, pa.int32())
        columns["logits"] = _lists(_stored(best, ids, dtype), _DTYPES[dtype])
        columns["rest"] = pa.array(_stored(rest[:, None], ids, dtype)[:, 0], _DTYPES[dtype])
    table = pa.table(columns).replace_schema_metadata(
        {"label_names": json.dumps(list(labels)), "teacher": whose, "rows": str(len(ids))}
    )
    leaves = {name: how for name, how in _SPLIT.items() if name.partition(".")[0] in columns}
    write_table(path, table, encodings=leaves)


def read_logits(artifact: Artifact) -> tuple[Ids, Floats]:
    """Return ids uint64 [rows] and logits float32 [rows, classes] of a shard."""
    table = read_table(artifact.path(FILE))
    best = _array(table["logits"])
    if "classes" in table.column_names:
        count = len(json.loads((table.schema.metadata or {})[b"label_names"]))
        rest = table["rest"].to_numpy().astype(np.float32)
        best = spread_rest(_array(table["classes"]), best.astype(np.float32), rest, count=count)
    return table["id"].to_numpy(), best.astype(np.float32)


def aligned_logits(artifact: Artifact, texts: Texts) -> Floats:
    """Return the logits of every row, float32 [rows, classes]; NaN where there are none."""
    ids, values = read_logits(artifact)
    where = positions(texts.ids, ids)
    out = np.full((len(texts), values.shape[1]), np.nan, np.float32)
    out[where >= 0] = values[where[where >= 0]]
    return out


def _stored(values: Floats, ids: Ids, dtype: str) -> npt.NDArray[np.floating]:
    with np.errstate(over="ignore"):
        stored: npt.NDArray[np.floating] = values.astype(dtype)
    if not np.isfinite(stored).all():
        row = int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0])
        raise DataError(
            f"the logits of row {row} (id {int(ids[row])}) are not finite as {dtype}: "
            f"{values[row].tolist()}; set [logits] dtype = 'float32' if they are only large"
        )
    return stored


def _lists(values: npt.NDArray[np.generic], kind: pa.DataType) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), kind), values.shape[1])


def _array(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    width = column.type.list_size
    flat: npt.NDArray[Any] = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(-1, width)
