"""Which rows make which batch: a pure function of seed, epoch and position.

So a run can be resumed from nothing but the number of updates it has done, and two runs with one
seed see the same batches whatever was in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class DataOrder:
    """The batches of a run over ``rows`` examples, shuffled anew every epoch.

    The last batch of an epoch is smaller where ``batch_size`` does not divide the rows, so that
    every row is seen once an epoch.
    """

    rows: int
    batch_size: int
    seed: int

    @property
    def updates_per_epoch(self) -> int:
        """Batches in one epoch."""
        return -(-self.rows // self.batch_size)

    def permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the order of the rows in that epoch, int64 [rows]."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    def batches(self, first: int, last: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield (update, row indices) for the updates ``first`` to ``last`` - 1."""
        current, order = -1, np.empty(0, np.int64)
        for update in range(first, last):
            epoch, position = divmod(update, self.updates_per_epoch)
            if epoch != current:
                current, order = epoch, self.permutation(epoch)
            start = position * self.batch_size
            yield update, order[start : start + self.batch_size]


def update_generator(seed: int, update: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one update: the same at every visit.

    Args:
        seed: Of the run.
        update: Which update.
        purpose: From 1, each with numbers of its own; 0 would be those of the data order, because
            NumPy fills a seed up with zeros.
    """
    return np.random.default_rng([seed, update, purpose])
