"""Memory budgets: bytes, written as people write them.

A budget is what the arrays of one step may take together. The interpreter, the libraries and the
compiled kernels come on top of it (docs/ngrams.md has figures).
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from functools import cache
from pathlib import Path

from sparsedistill.errors import ConfigError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
          "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}  # fmt: skip
# Of control groups, version 2 and 1.
_CONTAINER_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?|)b?", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Bytes, from "256MB", "1.5 GiB" or a number.

    Raises:
        ConfigError: It is no size.
    """
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no amount of memory; write it as 256MB or 1.5GB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def format_size(size: int) -> str:
    """A size rounded up to whole megabytes, so that it is enough if it is asked for."""
    return f"{-(-size // 10**6):,}MB".replace(",", "")


def machine_memory() -> int:
    """Bytes that a process may have: the machine's, or its container's where those are fewer."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _CONTAINER_LIMITS:
        try:
            found = min(found, int(Path(limit).read_text("ascii")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return found


def usable(budget: int) -> int:
    """What arrays may take of a budget: the rest is for what allocators keep of freed ones."""
    return budget * 4 // 5


def give_back() -> None:
    """Hand freed memory back to the system, where allocators can: between two large steps."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # glibc alone has it
        return None
