"""Which units a batch drops: a function of seed, update, layer, row and unit, and of nothing else.

torch's own dropout draws from a state that all threads of a process share; a hash needs none, so a
batch may be worked on in slices, by any number of threads, and a run can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sparsedistill.jit import kernel
from sparsedistill.text import oracle
from sparsedistill.text.kernels import FINAL_1, FINAL_2, finalise

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

_SEED = np.uint64(0x9E3779B97F4A7C15)
_PARTS, _BITS = 4, np.uint64(16)
_ALL = 1 << 16


@dataclass(frozen=True, slots=True)
class UnitDropout:
    """Dropout of one update.

    Attributes:
        rate: Share of the units that is dropped, in steps of 1 / 65,536.
        seed: Of the run.
        update: Its number.
    """

    rate: float
    seed: int
    update: int

    def __call__(self, values: Tensor, *, layer: int, first: int) -> Tensor:
        """Drop units and scale the others up, so that the expected value stays.

        Args:
            values: float32 [rows, units].
            layer: Its number; each has chances of its own.
            first: Number of the first row in the batch.
        """
        if not self.rate:
            return values
        limit = min(round(self.rate * _ALL), _ALL - 1)
        scale = np.float32(_ALL / (_ALL - limit))
        if values.device.type != "cpu":
            return values * (self._drawn(values, layer, first) >= limit) * float(scale)
        kept = np.empty(tuple(values.shape), np.float32)
        _fill(kept, self.seed, self.update, layer, first, limit, scale)
        return values * torch.from_numpy(kept)

    def _drawn(self, values: Tensor, layer: int, first: int) -> Tensor:
        """Return what ``_fill`` compares with the limit, int64 [rows, units], on their device."""
        rows, units = values.shape
        seed = oracle.finalise(self.seed + int(_SEED) & oracle.MASK)
        key = oracle.finalise(oracle.finalise(seed ^ self.update) ^ layer)

        def numbers(*span: int) -> Tensor:
            return torch.arange(*span, device=values.device)

        keys = _finalised(numbers(first, first + rows) ^ _signed(key))
        chances = _finalised(keys[:, None] + numbers(0, units, _PARTS))
        drawn = chances[:, :, None] >> numbers(0, _PARTS) * int(_BITS) & _ALL - 1
        return drawn.reshape(rows, -1)[:, :units]


def _finalised(values: Tensor) -> Tensor:
    """Return the ``finalise`` of uint64 as int64, which is multiplied modulo 2**64 as well."""
    for shift, factor in ((30, FINAL_1), (27, FINAL_2)):
        values = (values ^ _shifted(values, shift)) * _signed(int(factor))
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, by: int) -> Tensor:
    """Return int64 shifted to the right as if it had no sign."""
    return values >> by & (1 << 64 - by) - 1


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


@kernel
def _fill(
    kept: npt.NDArray[np.float32],
    seed: int,
    update: int,
    layer: int,
    first: int,
    limit: int,
    scale: np.float32,
) -> None:
    """Fill in 0 for what is dropped, and the scale for what is kept."""
    rows, units = kept.shape
    run = finalise(finalise(np.uint64(seed) + _SEED) ^ np.uint64(update))
    for row in range(rows):
        key = finalise(finalise(run ^ np.uint64(layer)) ^ np.uint64(first + row))
        for part in range(0, units, _PARTS):
            chance = finalise(key + np.uint64(part))
            for unit in range(part, min(part + _PARTS, units)):
                dropped = np.int64(chance & np.uint64(0xFFFF)) < limit
                kept[row, unit] = np.float32(0) if dropped else scale
                chance >>= _BITS
