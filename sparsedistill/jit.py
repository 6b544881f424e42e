"""The one way in which this library compiles a loop.

Every hot loop is a plain Python function over arrays, compiled by Numba at its first call and
cached on disk. `nogil` lets callers run several at once from threads; Numba's own `parallel=True`
is not used, because its work queue may not be entered from two threads.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` at its first call, without the GIL, and keep the result on disk.

    Numba compiles once per combination of argument types, so callers hand over arrays of one dtype
    and one layout, read-only where they are only read. Its cache notices a change of the kernel's
    own file only: kernels that call each other live in one file.
    """
    try:
        compiled = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no directory to cache in: a read-only installation without a home
        _log.info("no writable cache directory: %s is compiled in each process", function.__name__)
        compiled = numba.njit(nogil=True)(function)
    return cast("Callable[P, R]", compiled)
