"""Numbers of a trained table as kernels read and write them: float32, or bfloat16 in half the room.

NumPy has no bfloat16, so such a table is uint16: the upper half of a float32. What is written is
rounded up or down by chance, in proportion to what would be lost (stochastic rounding): a step of
Adam is often smaller than the distance of two neighbours, and would vanish if it were rounded to
the nearest. The chance is a hash of update, row and column, so that a run can be repeated.
"""

# ruff: noqa: ANN001, ANN201, ANN202, ARG001 - Numba wants the arguments' own names, and no types
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from sparsedistill.table_types import as_float

if TYPE_CHECKING:
    import numpy.typing as npt

BFLOAT16 = np.uint16
_HALF, _LOW = np.uint32(16), np.uint32(0xFFFF)
# Of the hash that decides how a number is rounded.
KEY, PRIME_1, PRIME_2 = (np.uint32(n) for n in (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35))
_15, _13 = np.uint32(15), np.uint32(13)


def number(stored: Any) -> np.float32:  # noqa: ANN401
    """The number that is stored."""
    raise NotImplementedError("only compiled")


def put(row: npt.NDArray[Any], column: int, value: np.float32, key: np.uint32) -> None:
    """Store a number in a row; `key` decides how it is rounded, where it is."""
    raise NotImplementedError("only compiled")


@overload(number)
def _number(stored):
    if stored == types.uint16:
        return lambda stored: as_float(np.uint32(stored) << _HALF)
    return lambda stored: stored


@overload(put)
def _put(row, column, value, key):
    if row.dtype == types.uint16:

        def rounded(row, column, value, key):
            # The compiler would make more than 32 bits of each sum and product.
            noise = np.uint32(np.uint32(key + np.uint32(column)) * PRIME_1)
            noise = np.uint32((noise ^ noise >> _15) * PRIME_2)
            noise ^= noise >> _13
            row[column] = np.uint16(np.uint32(as_bits(value) + (noise & _LOW)) >> _HALF)

        return rounded

    def as_it_is(row, column, value, key):
        row[column] = value

    return as_it_is


@intrinsic
def as_bits(context, value):
    """The bits of a float32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


def to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round float32 to the nearest bfloat16, ties to even; uint16 of the same shape."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    odd = bits >> _HALF & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> _HALF).astype(np.uint16)


def from_bfloat16(stored: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Return bfloat16 as float32, exactly."""
    return (stored.astype(np.uint32) << _HALF).view(np.float32)
