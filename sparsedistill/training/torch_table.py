"""An embedding table in plain torch, on any device: what trains a student on a GPU.

The arithmetic is that of ``CpuTable``, in torch's own operators over blocks of rows. Both sums, of
the rows of a bag and of what the bags hand back to a row, are torch's embedding bag, which adds in
a fixed order: nothing is added atomically, so an update can be repeated bit by bit. Nothing waits
for the device but the length of the gradient, where it is asked for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from sparsedistill.training.held import put
from sparsedistill.training.row_types import KEY, PRIME_1, PRIME_2
from sparsedistill.training.table import CpuTable, check_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    from torch import Tensor

    from sparsedistill.bags import Bags
    from sparsedistill.training.grouping import GroupedBags
    from sparsedistill.training.table import MakeTable, TableOptions

# Touched rows worked on together: of 1000 numbers, 65 MB for each of some temporary copies.
_ROWS = 16_384
# Occurrences that a device adds up one after another. The first rows are in every bag, some of
# them often, and would be added up long after all others are done.
_PIECE = 128
# Rows of a bfloat16 table that are made float32 together.
_WIDENED = 65_536


class TorchTable:
    """A table on a device.

    Attributes:
        options: How it is kept and updated.
        weights: float32 or bfloat16 [rows, width]; changed in place.
        first_moment: float32 [rows, width].
        second_moment: float32 [rows, width] or [rows].
        changed: The update that last changed each row, int32 [rows], in memory.
    """

    def __init__(
        self,
        rows: int,
        width: int,
        options: TableOptions,
        *,
        device: str | torch.device,
        weights: npt.NDArray[Any] | None = None,
    ) -> None:
        """Make room for a table; its rows are zero.

        Args:
            rows: Of the vocabulary.
            width: Of a row.
            options: How it is kept and updated.
            device: As torch names it.
            weights: To start from, in the type of the options (bfloat16 as uint16); copied.
        """
        self.options = options
        self._device = torch.device(device)
        self._narrow = options.dtype == "bfloat16"
        kind = torch.bfloat16 if self._narrow else torch.float32
        self.weights = torch.zeros((rows, width), dtype=kind, device=self._device)
        self.first_moment = torch.zeros((rows, width), device=self._device)
        shared = options.second_moment == "row"
        self.second_moment = torch.zeros(rows if shared else (rows, width), device=self._device)
        self.changed = np.zeros(rows, np.int32)
        if weights is not None:
            put(self.weights, weights)

    def fill(self, first: int, values: npt.NDArray[np.float32]) -> None:
        """Set rows from ``first`` on, float32 [some, width]."""
        self.weights[first : first + len(values)] = torch.from_numpy(values)

    def pool(self, bags: Bags) -> Tensor:
        """As ``EmbeddingTable`` has it; on the device."""
        check_rows(bags, len(self.weights))
        rows, offsets = self._sent(bags.rows, bags.offsets)
        if self._narrow:
            pooled = self._wide_sums(bags, rows, offsets)
        else:
            pooled = _sums(self.weights, rows, offsets)
        if self.options.pooling == "mean":
            pooled /= offsets.diff().clamp_(min=1)[:, None]
        return pooled

    def norm_squared(self, batch: GroupedBags, gradient: Tensor) -> float:
        """As ``EmbeddingTable`` has it; waits for the device."""
        squares = [
            torch.linalg.vector_norm(part, dtype=torch.float64).square()
            for _, part in self._row_gradients(batch, gradient)
        ]
        return float(torch.stack(squares).sum()) if squares else 0.0

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
        constants = self.options.constants(update, learning_rate, factor).tolist()
        for rows, part in self._row_gradients(batch, gradient):
            self._step(rows, part, constants, update)
        self.changed[batch.touched] = update

    def _step(self, rows: Tensor, gradient: Tensor, constants: list[float], update: int) -> None:
        """Apply one Adam step to some rows; their gradient is used up."""
        step, beta1, rest1, beta2, rest2, epsilon, kept, factor = constants
        if factor != 1:
            gradient *= factor
        first = self.first_moment.index_select(0, rows).mul_(beta1).add_(gradient, alpha=rest1)
        self.first_moment.index_copy_(0, rows, first)
        square = gradient.square_()
        if self.options.second_moment == "row":
            square = square.mean(1)
        second = self.second_moment.index_select(0, rows).mul_(beta2).add_(square, alpha=rest2)
        self.second_moment.index_copy_(0, rows, second)
        root = second.sqrt_().add_(epsilon)
        weights = self.weights.index_select(0, rows).float().mul_(kept)
        weights.addcdiv_(first, root.reshape(len(rows), -1), value=-step)
        stored = _rounded_by_chance(weights, rows, update) if self._narrow else weights
        self.weights.index_copy_(0, rows, stored)

    def _row_gradients(
        self, batch: GroupedBags, gradient: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield touched rows, some at a time, and the gradients of those, [some, width]."""
        cuts, pieces = _cut(batch.starts)
        touched, bag_of, counts, begins, firsts = self._sent(
            batch.touched, batch.bag_of, np.diff(batch.bags.offsets), cuts, pieces
        )
        if self.options.pooling == "mean":
            gradient = gradient / counts.clamp(min=1)[:, None]
        for first in range(0, len(touched), _ROWS):
            last = min(first + _ROWS, len(touched))
            begin, end = int(pieces[first]), int(pieces[last])
            occurrences = bag_of[int(cuts[begin]) : int(cuts[end])]
            by_piece = _sums(gradient, occurrences, begins[begin : end + 1] - int(cuts[begin]))
            numbers = torch.arange(end - begin, dtype=torch.int32, device=self._device)
            by_row = _sums(by_piece, numbers, firsts[first : last + 1] - begin)
            yield touched[first:last].long(), by_row

    def _wide_sums(self, bags: Bags, rows: Tensor, offsets: Tensor) -> Tensor:
        """Return the sums of a bfloat16 table's rows, added up as float32."""
        parts = [torch.zeros((0, self.weights.shape[1]), device=self._device)]
        first = 0
        while first < len(bags):
            begin = int(bags.offsets[first])
            last = int(np.searchsorted(bags.offsets, begin + _WIDENED, side="right")) - 1
            last = max(last, first + 1)
            some = rows[begin : int(bags.offsets[last])]
            numbers = torch.arange(len(some), dtype=torch.int32, device=self._device)
            wide = self.weights.index_select(0, some).float()
            parts.append(_sums(wide, numbers, offsets[first : last + 1] - begin))
            first = last
        return torch.cat(parts)

    def _sent(self, *arrays: npt.NDArray[np.integer[Any]]) -> tuple[Tensor, ...]:
        """Return integers on the device, int32, sent together."""
        packed = torch.from_numpy(np.concatenate(arrays, dtype=np.int32, casting="same_kind"))
        if self._device.type == "cuda":
            packed = packed.pin_memory()
        there = packed.to(self._device, non_blocking=True)
        return torch.split(there, [len(array) for array in arrays])


def table_on(device: torch.device, *, threads: int) -> MakeTable:
    """Return what makes the tables of a device; in memory, ``threads`` work on them."""
    if device.type == "cpu":
        return partial(CpuTable, threads=threads)
    return partial(TorchTable, device=device)


def _sums(values: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
    """Return the sums of some rows of float32 values, one for each bag; zero for an empty one."""
    return embedding_bag(rows, values, offsets, mode="sum", include_last_offset=True)


def _cut(
    starts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut the occurrences of each row into pieces.

    Args:
        starts: Where those of each row begin, int64 [rows + 1].

    Returns:
        Where each piece begins, int64 [pieces + 1], and the first piece of each row, [rows + 1].
    """
    each = -(-np.diff(starts) // _PIECE)
    pieces = np.concatenate([[0], np.cumsum(each)])
    within = np.arange(pieces[-1]) - np.repeat(pieces[:-1], each)
    return np.append(np.repeat(starts[:-1], each) + within * _PIECE, starts[-1]), pieces


def _rounded_by_chance(values: Tensor, rows: Tensor, update: int) -> Tensor:
    """Return float32 as bfloat16, rounded by the chances that ``row_types.put`` has.

    Integers are multiplied modulo 2**32: signed ones have the same bits as unsigned ones.
    """
    key = (rows.int() * _KEY + update) * _KEY
    columns = torch.arange(values.shape[1], dtype=torch.int32, device=values.device)
    noise = (key[:, None] + columns).mul_(_PRIME_1)
    noise = (noise ^ _shifted(noise, 15)).mul_(_PRIME_2)
    noise ^= _shifted(noise, 13)
    bits = values.view(torch.int32) + (noise & 0xFFFF)
    return (bits >> 16).to(torch.int16).view(torch.bfloat16)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Return int32 shifted to the right as if it had no sign."""
    return (bits >> by) & ((1 << 32 - by) - 1)


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


_KEY, _PRIME_1, _PRIME_2 = (_signed(int(n)) for n in (KEY, PRIME_1, PRIME_2))
