"""An embedding table that is trained row by row: the sparse half of the hybrid Adam.

The paper (section 2.5) pairs torch's SparseAdam for the table with Adam for the dense layers. The
arithmetic here is SparseAdam's, on the rows that a batch touched and only those; what differs is
that no gradient of the size of the occurrences is ever made, and nothing is coalesced: each touched
row gathers its gradient from its bags into one scratch row, which Adam applies in place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch

from sparsedistill.bags import first_beyond
from sparsedistill.errors import DataError
from sparsedistill.parallel import map_ahead, map_ranges
from sparsedistill.text.buffers import frozen
from sparsedistill.training.order import update_generator
from sparsedistill.training.row_kernels import gradient_norms, pool_rows, update_rows
from sparsedistill.training.row_types import BFLOAT16, to_bfloat16

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from torch import Tensor

    from sparsedistill.bags import Bags
    from sparsedistill.training.grouping import GroupedBags
    from sparsedistill.training.held import Held

Pooling = Literal["mean", "sum"]
SecondMoment = Literal["element", "row"]
TableType = Literal["float32", "bfloat16"]

_BAGS_A_CALL = 128
# Calls a thread, so that one which got slow rows does not keep the others waiting.
_PIECES = 8
# Numbers to update that are worth a second thread.
_WORTH_A_THREAD = 1 << 18
# What a touched row costs, in occurrences: Adam reads and writes three rows of memory.
_ROW_COST = 8
_BLOCK, _START = 4096, 3


@dataclass(frozen=True, slots=True)
class TableOptions:
    """How a table is kept and updated.

    Attributes:
        betas: Decay of Adam's moments.
        epsilon: Added to the root of the second moment.
        decay: Decoupled weight decay of the rows a batch touches (AdamW).
        second_moment: One for each number, or one for each row: the mean of its squares, which
            saves a third of the memory.
        dtype: Of the table; bfloat16 is rounded by chance.
        pooling: Of a bag's rows.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    decay: float = 0.0
    second_moment: SecondMoment = "element"
    dtype: TableType = "float32"
    pooling: Pooling = "mean"

    @property
    def stored(self) -> type[np.float32 | np.uint16]:
        """NumPy's type of the numbers in the table."""
        return BFLOAT16 if self.dtype == "bfloat16" else np.float32

    def table_bytes(self, rows: int, width: int) -> int:
        """Return what the numbers of the table take."""
        return rows * width * np.dtype(self.stored).itemsize

    def moment_bytes(self, rows: int, width: int) -> int:
        """Return what Adam's moments take, float32."""
        return 4 * rows * (width + (1 if self.second_moment == "row" else width))

    def constants(self, update: int, learning_rate: float, factor: float) -> npt.NDArray[Any]:
        """Return what the arithmetic of one update needs, float32, as ``update_rows`` has it."""
        beta1, beta2 = self.betas
        step = learning_rate * math.sqrt(1 - beta2**update) / (1 - beta1**update)
        kept = 1 - learning_rate * self.decay
        return np.array(
            [step, beta1, 1 - beta1, beta2, 1 - beta2, self.epsilon, kept, factor], np.float32
        )


class EmbeddingTable(Protocol):
    """A table in memory, on some device, or on several.

    Attributes:
        weights: As ``CpuTable`` has them, wherever they are held; so are the moments.
        first_moment: Adam's.
        second_moment: Adam's.
        changed: The update that last changed each row, int32 [rows], in memory.
    """

    @property
    def weights(self) -> Held: ...  # noqa: D102
    @property
    def first_moment(self) -> Held: ...  # noqa: D102
    @property
    def second_moment(self) -> Held: ...  # noqa: D102
    @property
    def changed(self) -> npt.NDArray[np.int32]: ...  # noqa: D102

    def fill(self, first: int, values: npt.NDArray[np.float32]) -> None:
        """Set rows from ``first`` on, float32 [some, width]."""
        ...

    def pool(self, bags: Bags) -> Tensor:
        """Return the pooled rows of every bag, float32 [bags, width]; zero for an empty one."""
        ...

    def norm_squared(self, batch: GroupedBags, gradient: Tensor) -> float:
        """Return the squared length of the table's gradient, all rows together."""
        ...

    def update(
        self,
        batch: GroupedBags,
        gradient: Tensor,
        *,
        update: int,
        learning_rate: float,
        factor: float = 1.0,
    ) -> None:
        """Apply one step of Adam to the rows of a batch.

        Args:
            batch: Whose rows were pooled.
            gradient: Of the loss by what ``pool`` gave, float32 [bags, width].
            update: Number of this update, from 1: Adam's bias correction is by update, not by row.
            learning_rate: Of this update.
            factor: On the gradient, where it is clipped.
        """
        ...


class MakeTable(Protocol):
    """Makes room for a table."""

    def __call__(
        self,
        rows: int,
        width: int,
        options: TableOptions,
        *,
        weights: npt.NDArray[Any] | None = None,
    ) -> EmbeddingTable:
        """As the constructor of ``CpuTable`` has it."""
        ...


class CpuTable:
    """A table in memory, worked on by Numba kernels.

    Attributes:
        weights: float32, or bfloat16 as uint16, [rows, width]; changed in place.
        first_moment: float32 [rows, width].
        second_moment: float32 [rows, width] or [rows].
        changed: The update that last changed each row, int32 [rows]; 0 where none has.
    """

    def __init__(
        self,
        rows: int,
        width: int,
        options: TableOptions,
        *,
        threads: int,
        weights: npt.NDArray[Any] | None = None,
    ) -> None:
        """Make room for a table; its rows are zero.

        Args:
            rows: Of the vocabulary.
            width: Of a row.
            options: How it is kept and updated.
            threads: Threads of the kernels; results are the same for any number.
            weights: Taken over as they are, not copied, in the type of the options; writable if
                the table is to be trained.
        """
        self.options = options
        # Pages of a zero array cost no memory before a row on them is touched.
        self.weights: npt.NDArray[Any] = (
            np.zeros((rows, width), options.stored) if weights is None else weights
        )
        self.first_moment = np.zeros((rows, width), np.float32)
        shared = options.second_moment == "row"
        self.second_moment = np.zeros(rows if shared else (rows, width), np.float32)
        self.changed = np.zeros(rows, np.int32)
        self._threads = threads

    def fill(self, first: int, values: npt.NDArray[np.float32]) -> None:
        """Set rows from ``first`` on, float32 [some, width]."""
        stored = values if self.options.dtype == "float32" else to_bfloat16(values)
        self.weights[first : first + len(values)] = stored

    def pool(self, bags: Bags) -> Tensor:
        """As ``EmbeddingTable`` has it."""
        mean = self.options.pooling == "mean"
        return torch.from_numpy(pooled(self.weights, bags, mean=mean, threads=self._threads))

    def norm_squared(self, batch: GroupedBags, gradient: Tensor) -> float:
        """As ``EmbeddingTable`` has it."""
        handed_back = self._by_occurrence(batch, gradient)
        norms = np.zeros(len(batch.touched))

        def work(begin: int, end: int) -> None:
            gradient_norms(batch.starts, batch.bag_of, handed_back, begin, end, norms)

        self._in_pieces(work, batch)
        return float(norms.sum())

    def update(
        self,
        batch: GroupedBags,
        gradient: Tensor,
        *,
        update: int,
        learning_rate: float,
        factor: float = 1.0,
    ) -> None:
        """As ``EmbeddingTable`` has it."""
        handed_back = self._by_occurrence(batch, gradient)
        constants = self.options.constants(update, learning_rate, factor)

        def work(begin: int, end: int) -> None:
            update_rows(
                self.weights, self.first_moment, self.second_moment, batch.touched, batch.starts,
                batch.bag_of, handed_back, constants, update, begin, end,
            )  # fmt: skip

        self._in_pieces(work, batch)
        self.changed[batch.touched] = update

    def _by_occurrence(self, batch: GroupedBags, gradient: Tensor) -> npt.NDArray[np.float32]:
        """Return what a bag hands back to each of its rows, [bags, width]."""
        handed_back: npt.NDArray[np.float32] = gradient.numpy()
        if self.options.pooling == "mean":
            counts = np.maximum(np.diff(batch.bags.offsets), 1).astype(np.float32)
            handed_back = handed_back / counts[:, None]
        return np.ascontiguousarray(handed_back)

    def _in_pieces(self, work: Callable[[int, int], None], batch: GroupedBags) -> None:
        """Call ``work`` for ranges of touched rows that take about as long."""
        rows = np.arange(len(batch.touched) + 1)
        cost = batch.starts + rows * _ROW_COST
        small = len(batch.touched) * self.weights.shape[1] < _WORTH_A_THREAD
        pieces = 1 if small or self._threads == 1 else self._threads * _PIECES
        cuts = np.searchsorted(cost, np.linspace(0, cost[-1], pieces + 1))
        spans = [(int(a), int(b)) for a, b in pairwise(cuts) if a < b]
        threads = min(self._threads, len(spans))
        for _ in map_ahead(lambda span: work(*span), spans, threads=threads):
            pass


def pooled(
    weights: npt.NDArray[Any], bags: Bags, *, mean: bool, threads: int
) -> npt.NDArray[np.float32]:
    """Return the sum or the mean of the rows of every bag, float32 [bags, width].

    Args:
        weights: float32 or bfloat16 [rows, width].
        bags: Of its rows; an empty one gives zero.
        mean: Divide by the number of rows.
        threads: Any number gives the same bytes.

    Raises:
        DataError: A bag has a row that is not there.
    """
    check_rows(bags, len(weights))
    out = np.empty((len(bags), weights.shape[1]), np.float32)
    table = frozen(weights, weights.dtype)

    def work(begin: int, end: int) -> None:
        pool_rows(bags.rows, bags.offsets[begin : end + 1], table, mean, out[begin:end])

    map_ranges(work, len(bags), block=_BAGS_A_CALL, threads=threads)
    return out


def check_rows(bags: Bags, rows: int) -> None:
    """See that a table has all rows of some bags: kernels do not look.

    Raises:
        DataError: It has not.
    """
    at = first_beyond(bags.rows, rows)
    if at is not None:
        raise DataError(
            f"a text has row {bags.rows[at]}, but the table has {rows:,}: its features are of "
            "another vocabulary, or damaged"
        )


def start_at_random(table: EmbeddingTable, scale: float, seed: int, *, threads: int) -> None:
    """Fill a table from a normal distribution.

    A larger table begins with the rows of a smaller one.

    Args:
        table: To fill.
        scale: Standard deviation.
        seed: Of the run.
        threads: Any number gives the same rows.
    """
    rows, width = table.weights.shape

    def work(first: int, last: int) -> None:
        generator = update_generator(seed, first // _BLOCK, _START)
        values = generator.standard_normal((last - first, width), np.float32)
        values *= np.float32(scale)
        table.fill(first, values)

    map_ranges(work, rows, block=_BLOCK, threads=threads)
