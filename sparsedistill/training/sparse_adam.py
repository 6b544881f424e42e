"""Adam on the rows that a batch touched, and only those: the sparse half of the hybrid Adam.

The paper (section 2.5) pairs torch's SparseAdam for the table with Adam for the dense layers. The
arithmetic here is SparseAdam's; what differs is that no nnz x d gradient is ever made: the
occurrences of the batch are sorted by row once, and each touched row gathers its gradient from the
bags' gradients into one scratch row, which Adam then applies in place. A row belongs to one thread,
so the result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparsedistill.jit import kernel
from sparsedistill.parallel import map_ranges
from sparsedistill.text.buffers import frozen

if TYPE_CHECKING:
    from sparsedistill.bags import Bags

Float32 = npt.NDArray[np.float32]
_BAGS_A_CALL = 512
_ROWS_A_CALL = 4096
# Rows summed before they are added to the total: 2,048 additions one after another would lose two
# digits, 32 of sums of 64 lose none.
_PART = 64


@kernel
def _update_rows(
    table: Float32,
    first_moment: Float32,
    second_moment: Float32,
    touched: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    bag_of: npt.NDArray[np.int64],
    bag_scale: Float32,
    bag_gradient: Float32,
    step_size: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    begin: int,
    end: int,
) -> None:
    width = table.shape[1]
    gradient = np.empty(width, np.float32)
    b1, b2 = np.float32(beta1), np.float32(beta2)
    c1, c2 = np.float32(1.0 - beta1), np.float32(1.0 - beta2)
    size, eps = np.float32(step_size), np.float32(epsilon)
    for u in range(begin, end):
        for k in range(width):
            gradient[k] = 0.0
        for j in range(starts[u], starts[u + 1]):
            bag = bag_of[j]
            scale = bag_scale[bag]
            for k in range(width):
                gradient[k] += scale * bag_gradient[bag, k]
        row = touched[u]
        for k in range(width):
            g = gradient[k]
            m = b1 * first_moment[row, k] + c1 * g
            v = b2 * second_moment[row, k] + c2 * g * g
            first_moment[row, k] = m
            second_moment[row, k] = v
            table[row, k] -= size * m / (np.sqrt(v) + eps)


class SparseTable:
    """An embedding table with its Adam moments, updated row by row.

    Args:
        table: float32 [rows, width], changed in place.
        betas: Decay of the first and second moment.
        epsilon: Added to the root of the second moment, as in ``torch.optim.SparseAdam``.
        threads: Threads of the kernels; the result is the same for any number.
    """

    def __init__(
        self, table: Float32, *, betas: tuple[float, float], epsilon: float, threads: int
    ) -> None:
        self.table = table
        # Pages of a zero array cost no memory before a row on them is touched.
        self.first_moment = np.zeros_like(table)
        self.second_moment = np.zeros_like(table)
        self._betas = betas
        self._epsilon = epsilon
        self._threads = threads

    def mean(self, bags: Bags) -> Float32:
        """Return the mean embedding of every bag, float32 [bags, width]; zero for an empty one."""
        table = frozen(self.table, np.float32)
        out = np.empty((len(bags), table.shape[1]), np.float32)

        def work(begin: int, end: int) -> None:
            add_rows(bags.rows, bags.offsets[begin : end + 1], table, out[begin:end])

        map_ranges(work, len(bags), block=_BAGS_A_CALL, threads=self._threads)
        out /= np.maximum(np.diff(bags.offsets), 1).astype(np.float32)[:, None]
        return out

    def update(self, bags: Bags, gradient: Float32, *, update: int, learning_rate: float) -> None:
        """Apply one Adam step to the rows in ``bags``.

        Args:
            bags: The bags whose means were taken.
            gradient: Of the loss by those means, float32 [bags, width].
            update: Number of this update, from 1: Adam's bias correction is by update, not by row.
            learning_rate: Of this update.
        """
        if len(bags.rows) == 0:
            return
        lengths = np.diff(bags.offsets)
        scale = (1.0 / np.maximum(lengths, 1)).astype(np.float32)
        touched, starts, bag_of = _group_by_row(bags.rows, lengths)
        beta1, beta2 = self._betas
        step_size = learning_rate * math.sqrt(1 - beta2**update) / (1 - beta1**update)
        gradient = np.ascontiguousarray(gradient)

        def work(begin: int, end: int) -> None:
            _update_rows(
                self.table, self.first_moment, self.second_moment, touched, starts, bag_of, scale,
                gradient, step_size, beta1, beta2, self._epsilon, begin, end,
            )  # fmt: skip

        map_ranges(work, len(touched), block=_ROWS_A_CALL, threads=self._threads)


def _group_by_row(
    rows: npt.NDArray[np.int32], lengths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sort the occurrences of a batch by table row, then by bag.

    Returns:
        The touched rows in ascending order, where each one's occurrences start (one more entry
        closes the last), and the bag of every occurrence.
    """
    bag_of = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    # Row and bag in one integer: NumPy's vectorised sort of uint64 beats any argsort.
    packed = np.sort((rows.astype(np.uint64) << np.uint64(32)) | bag_of)
    sorted_rows = (packed >> np.uint64(32)).astype(np.int32)
    first = np.flatnonzero(np.diff(sorted_rows, prepend=np.int32(-1)))
    starts = np.append(first, len(rows)).astype(np.int64)
    return sorted_rows[first], starts, (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)


@kernel
def add_rows(
    rows: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    table: Float32,
    out: Float32,
) -> None:
    """Sum the rows of each bag."""
    width = table.shape[1]
    part = np.empty(width, np.float32)
    for bag in range(len(offsets) - 1):
        out[bag] = 0
        for first in range(offsets[bag], offsets[bag + 1], _PART):
            part[:] = 0
            for i in range(first, min(first + _PART, offsets[bag + 1])):
                row = table[rows[i]]
                for j in range(width):
                    part[j] += row[j]
            out[bag] += part
