"""Bags of a shard in a file: written as they come, mapped when they are read.

It holds, in the order of the shard's texts, their ``ids``, and their bags as ``rows`` and
``offsets``: plain arrays, so that training reads texts at random from more of them than fit the
memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.bags import Bags
from sparsedistill.errors import DataError
from sparsedistill.tensor_files import growing_tensor, read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

    Ids = npt.NDArray[np.uint64]


def write_bags(
    path: Path, parts: Iterable[tuple[Ids, Bags]], *, count: int
) -> npt.NDArray[np.int64]:
    """Put a file of bags in place, or none; ids and lengths are held, some 40 bytes a text.

    Args:
        path: The file.
        parts: Ids uint64 [rows] and bags of some texts each, in the shard's order.
        count: Texts of all parts.

    Returns:
        How many rows each bag has, int64 [texts].

    Raises:
        DataError: They are not so many.
    """
    ids, lengths = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)]
    beside = {"ids": (np.uint64, (count,)), "offsets": (np.int64, (count + 1,))}
    with growing_tensor(path, "rows", np.int32, beside=beside) as file:
        for own, bags in parts:
            file.append(bags.rows)
            ids.append(own)
            lengths.append(np.diff(bags.offsets))
        offsets = np.cumsum(np.concatenate(lengths))
        file.finish({"ids": np.concatenate(ids), "offsets": offsets})
    return np.diff(offsets)


def read_bags(path: Path) -> tuple[Ids, Bags]:
    """Return ids uint64 [rows] and bags of a shard, mapped: they are read when they are used.

    Raises:
        ModelFileError: The file is missing or not whole.
        DataError: Its arrays do not fit together.
    """
    layout = {"ids": (np.uint64, (None,)), "offsets": (np.int64, (None,))}
    found = read_tensors(path, {**layout, "rows": (np.int32, (None,))})
    bags = Bags(found["rows"], found["offsets"])
    if len(bags) != len(found["ids"]):
        raise DataError(f"{path}: {len(found['ids'])} ids but {len(bags)} bags")
    return found["ids"], bags
