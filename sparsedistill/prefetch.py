"""Asking the processor for memory before it is needed.

A load that misses the caches holds up what comes after it; a prefetch does not. Where the addresses
of the next loads are known, as with rows of a table, this is what keeps memory busy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

_INT32 = ir.IntType(32)
# A read, to be kept near, of data.
_READ, _KEEP, _DATA = _INT32(0), _INT32(3), _INT32(1)


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(context: Any, array: Any, offset: Any) -> tuple[Any, Callable[..., Any]]:  # noqa: ANN401, ARG001
    """Fetch the cache line with the byte at `offset` from where an array's data begins.

    The array is contiguous, and the offset (int64) inside it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ANN401
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        first = builder.bitcast(data, ir.IntType(8).as_pointer())
        line = builder.gep(first, [arguments[1]])
        kind = ir.FunctionType(ir.VoidType(), [line.type, _INT32, _INT32, _INT32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [line, _READ, _KEEP, _DATA])
        return context.get_dummy_value()

    return types.none(array, types.int64), generate
