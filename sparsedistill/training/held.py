"""Arrays of a student as it holds them: in memory, on a device, or elsewhere.

A checkpoint knows NumPy arrays. What is in memory is one, or shares its memory with one; what is on
a device, or in other processes, is copied here and back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy.typing as npt

# Rows copied together, so that no copy of a table is made on the way.
_ROWS = 16_384


class Elsewhere(Protocol):
    """An array that is not in this process."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As NumPy has it."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """As NumPy has it."""
        ...

    def get(self) -> npt.NDArray[Any]:
        """Return a copy."""
        ...

    def put(self, values: npt.NDArray[Any]) -> None:
        """Write all of it."""
        ...


Held: TypeAlias = "npt.NDArray[Any] | Tensor | Elsewhere"


def on_host(held: Held) -> npt.NDArray[Any]:
    """Return it as an array, bfloat16 as uint16: a view where it is in memory, else a copy."""
    if isinstance(held, np.ndarray):
        return held
    if isinstance(held, Tensor):
        found: npt.NDArray[Any] = _plain(held).cpu().numpy()
        return found
    return held.get()


def put(held: Held, values: npt.NDArray[Any]) -> None:
    """Write an array of the same shape and type into it."""
    if isinstance(held, np.ndarray):
        # What it is already would be copied onto itself, and a mapped table into memory.
        if held.ctypes.data != values.ctypes.data:
            held[...] = values
    elif isinstance(held, Tensor):
        there = _plain(held).reshape(held.shape or 1)
        given = values.reshape(there.shape)
        for first in range(0, len(there), _ROWS):
            # Copied, because torch wants arrays that may be written to.
            some = torch.from_numpy(given[first : first + _ROWS].copy())
            there[first : first + _ROWS] = some
    else:
        held.put(values)


def form(held: Held) -> str:
    """Return type and shape, for a message."""
    if isinstance(held, Tensor):
        return f"{str(_plain(held).dtype).removeprefix('torch.')} {list(held.shape)}"
    return f"{held.dtype.name} {list(held.shape)}"


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor without its history, of a type that NumPy knows; memory is shared."""
    tensor = tensor.detach()
    return tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
