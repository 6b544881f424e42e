"""Which rows make which batch: a pure function of seed, epoch and position.

So a run can be resumed from nothing but the number of updates it has done, and two runs with one
seed see the same batches whatever was in between.

Examples lie in mapped files, in which neighbours share pages. So blocks of neighbours are shuffled,
and then the rows of some blocks at a time: what is read in between is a small part of the files,
and no order of all rows is ever held. Data of one such group is shuffled as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

# Neighbours that stay in one group, and blocks in a group: 262,144 rows, which as texts of 100
# n-grams are 100 MB of mapped files.
BLOCK_ROWS, GROUP_BLOCKS = 1024, 256


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

    def batches(self, first: int, last: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Yield (update, row indices) for the updates ``first`` to ``last`` - 1."""
        order = None
        for update in range(first, last):
            epoch, batch = divmod(update, self.updates_per_epoch)
            if order is None or order.epoch != epoch:
                order = _EpochOrder(self, epoch)
            start = batch * self.batch_size
            yield update, order.rows(start, min(start + self.batch_size, self.rows))


class _EpochOrder:
    """The order of the rows in one epoch, of which one group is held at a time."""

    def __init__(self, order: DataOrder, epoch: int) -> None:
        self.epoch = epoch
        self._all, self._seed = order.rows, order.seed
        blocks = -(-order.rows // BLOCK_ROWS)
        self._blocks = np.random.default_rng([order.seed, epoch]).permutation(blocks)
        # All groups are equally long but the last, and the one of the last block.
        short = int(np.flatnonzero(self._blocks == blocks - 1)[0]) // GROUP_BLOCKS
        self._starts = np.arange(0, blocks, GROUP_BLOCKS) * BLOCK_ROWS
        self._starts[short + 1 :] -= blocks * BLOCK_ROWS - order.rows
        self._group, self._members = -1, np.empty(0, np.int64)

    def rows(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the rows from one position in the epoch up to another, int64 [stop - start]."""
        parts = []
        group = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            begin = self._starts[group]
            parts.append(self._rows_of(group)[start - begin : stop - begin])
            start += len(parts[-1])
            group += 1
        return np.concatenate(parts)

    def _rows_of(self, group: int) -> npt.NDArray[np.int64]:
        if group != self._group:
            blocks = self._blocks[group * GROUP_BLOCKS : (group + 1) * GROUP_BLOCKS]
            rows = (blocks[:, np.newaxis] * BLOCK_ROWS + np.arange(BLOCK_ROWS)).reshape(-1)
            rows = rows[rows < self._all]
            # Numbers apart from those of the blocks, and of `update_generator`.
            np.random.default_rng([self._seed, self.epoch, 0, group + 1]).shuffle(rows)
            self._group, self._members = group, rows
        return self._members


def update_generator(seed: int, update: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one update: the same at every visit.

    Args:
        seed: Of the run.
        update: Which update.
        purpose: From 1, each with numbers of its own; 0 would be those of the data order, because
            NumPy fills a seed up with zeros.
    """
    return np.random.default_rng([seed, update, purpose])
