"""Arrays by their address, so that one kernel reads from any number of them.

Numba compiles a tuple of arrays anew for every length, and a typed list costs seconds of compiling
in each process; an array of addresses costs nothing. Whoever hands over an address sees to it that
the array lives, is contiguous, and is as long as is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import carray, types
from numba.extending import intrinsic

from sparsedistill.jit import kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Int = int | np.int64


def address(array: NDArray[Any]) -> int:
    """Where a contiguous array begins; good for as long as somebody holds it."""
    return int(array.__array_interface__["data"][0])


def _pointer_to(element: Any) -> Any:  # noqa: ANN401 - Numba's types have none
    @intrinsic  # type: ignore[untyped-decorator]
    def pointer(typing_context: Any, at: Any) -> Any:  # noqa: ANN401, ARG001 - as Numba calls it
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.uint64), generate

    return pointer


_int32_pointer, _int64_pointer = _pointer_to(types.int32), _pointer_to(types.int64)


@kernel
def int32_at(at: np.uint64, length: Int) -> NDArray[np.int32]:
    """The flat int32 array that begins there."""
    found: NDArray[np.int32] = carray(_int32_pointer(at), (length,))
    return found


@kernel
def int64_at(at: np.uint64, length: Int) -> NDArray[np.int64]:
    """The flat int64 array that begins there."""
    found: NDArray[np.int64] = carray(_int64_pointer(at), (length,))
    return found
