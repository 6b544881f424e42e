"""Numbers of a table as kernels read them: one function, compiled for each type of table.

float32 as it is; int8 times the step of its row; float16, for which the compiler has no type, from
its bits: moved to where a float32 has them they are the number times 2**-112, also for subnormal
ones. Only infinities and NaN would come out wrong.
"""

# ruff: noqa: ANN001, ANN201, ANN202, ARG001, ARG005 - Numba wants the arguments' own names, and no types
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIGN, _REST = np.uint16(0x8000), np.uint16(0x7FFF)
_TO_SIGN, _TO_REST = np.uint32(16), np.uint32(13)
_UNSCALE, _ONE = np.float32(2.0**112), np.float32(1)


def step(table: NDArray[Any], scale: NDArray[np.float32], row: Any) -> np.float32:  # noqa: ANN401
    """What `value` is to multiply the numbers of a row with."""
    raise NotImplementedError("only compiled")


def value(stored: Any, step: np.float32) -> np.float32:  # noqa: ANN401
    """A number of the table."""
    raise NotImplementedError("only compiled")


@overload(step)
def _step(table, scale, row):
    if table.dtype == types.int8:
        return lambda table, scale, row: scale[row]
    constant = _UNSCALE if table.dtype == types.uint16 else _ONE
    return lambda table, scale, row: constant


@overload(value)
def _value(stored, step):
    if stored == types.int8:
        return lambda stored, step: np.float32(stored) * step
    if stored == types.uint16:
        return lambda stored, step: (
            as_float(np.uint32(stored & _SIGN) << _TO_SIGN | np.uint32(stored & _REST) << _TO_REST)
            * step
        )
    return lambda stored, step: stored


@intrinsic
def as_float(context, bits):
    """The float32 that has these bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate
