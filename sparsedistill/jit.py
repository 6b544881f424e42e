"""The one way in which this library compiles a loop.

Every hot loop is a plain Python function over arrays, compiled by Numba at its first call and
cached on disk. `nogil` lets callers run several at once from threads; Numba's own `parallel=True`
is not used, because its work queue may not be entered from two threads.
"""

from __future__ import annotations

import contextlib
import logging
from functools import cache
from pathlib import Path
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
    and one layout, read-only where they are only read. Its cache looks at the kernel's own file
    only, but kernels of other files, and constants of those in `text`, are compiled into it: so it
    is told when any of them is younger.
    """
    try:
        compiled = numba.njit(cache=True, nogil=True)(function)
        with contextlib.suppress(AttributeError):  # no public way: without, only developers suffer
            compiled._cache._cache_file._source_stamp = _sources()
    except RuntimeError:  # no directory to cache in: a read-only installation without a home
        _log.info("no writable cache directory: %s is compiled in each process", function.__name__)
        compiled = numba.njit(nogil=True)(function)
    return cast("Callable[P, R]", compiled)


@cache
def _sources() -> tuple[float, int]:
    """What changes when a module with kernels, or in `text`, does: the newest time, all sizes."""
    root = Path(__file__).parent
    modules = [path for path in root.rglob("*.py") if path.parent.name == "text" or _compiles(path)]
    found = [path.stat() for path in modules]
    return max(one.st_mtime for one in found), sum(one.st_size for one in found)


def _compiles(path: Path) -> bool:
    source = path.read_bytes()
    return b"sparsedistill.jit" in source or b"numba" in source
