"""A batch of bags, its occurrences also sorted by table row: what a sparse update needs.

Sorted once a batch (ahead of the update, on the loader's thread), so that the forward pass goes
through the batch by bag, the backward pass and the optimiser by row, and no gradient of the size of
the occurrences is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from sparsedistill.bags import Bags

_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True, eq=False)
class GroupedBags:
    """Bags by bag and by row.

    Attributes:
        bags: The batch.
        touched: The rows that occur, int32 [unique], ascending.
        starts: Where each one's occurrences begin in ``bag_of``, int64 [unique + 1].
        bag_of: Number of the bag of every occurrence, sorted by row, int64 [occurrences].
    """

    bags: Bags
    touched: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    bag_of: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bags)


def group_by_row(bags: Bags) -> GroupedBags:
    """Sort the occurrences of a batch by table row, then by bag."""
    numbers = np.arange(len(bags), dtype=np.uint64)
    bag_of = np.repeat(numbers, np.diff(bags.offsets))
    # Row and bag in one integer: NumPy's vectorised sort of uint64 beats any argsort.
    packed = np.sort((bags.rows.astype(np.uint64) << _HALF) | bag_of)
    rows = (packed >> _HALF).astype(np.int32)
    first = np.flatnonzero(np.diff(rows, prepend=np.int32(-1)))
    starts = np.append(first, len(rows)).astype(np.int64)
    return GroupedBags(bags, rows[first], starts, (packed & _LOW).astype(np.int64))
