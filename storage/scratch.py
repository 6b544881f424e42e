"""Local directories that are not artifacts: what is being written, and what a kill must not cost.

A temporary directory carries the host and the process that writes in it, so that whoever makes the
same artifact next can sweep away what a killed process left behind.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import socket
from contextlib import suppress
from pathlib import Path

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"(?P<recipe>[a-z_]+-[0-9a-f]{32})-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def cache_directory() -> Path:
    """Where local copies of remote artifacts live.

    `$SPARSEDISTILL_CACHE`, else `sparsedistill` in `$XDG_CACHE_HOME` or `~/.cache`.
    """
    chosen = os.environ.get("SPARSEDISTILL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "sparsedistill"


def make_cache_directory() -> None:
    """Make it, for this user alone: what is in it is believed. Where it cannot be, it is missed."""
    with suppress(OSError):
        cache_directory().mkdir(mode=0o700, parents=True, exist_ok=True)


def make_temporary(parent: Path, kind: str, key: str) -> Path:
    """A new empty directory for one writer of `kind/key`."""
    path = temporary_path(parent, kind, key)
    path.mkdir(parents=True)
    return path


def temporary_path(parent: Path, kind: str, key: str) -> Path:
    """A path that is not yet taken, with a name that `sweep` understands."""
    return parent / f"{kind}-{own_name(key)}"


def own_name(key: str) -> str:
    """A name for something of this process alone: 32 hexadecimal digits, and who made it."""
    return f"{key}-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def is_of_dead_process(name: str) -> bool:
    """Whether a name made by `temporary_path` is of a process of this host that has ended.

    Processes of other hosts cannot be asked whether they live.
    """
    match = _NAME.fullmatch(name)
    return match is not None and match["host"] == _host() and not _is_alive(int(match["pid"]))


def is_of_this_host(name: str) -> bool:
    """Whether a name made by `temporary_path` is of this host, so that its process can be asked."""
    match = _NAME.fullmatch(name)
    return match is not None and match["host"] == _host()


def sweep(parent: Path, kind: str, key: str) -> None:
    """Remove what dead processes of this host left of earlier tries at `kind/key`."""
    for path in parent.glob(f"{kind}-{key}-*"):
        if is_of_dead_process(path.name):
            _LOG.info("removing %s, left behind by a killed process", path)
            shutil.rmtree(path, ignore_errors=True)


def sync(path: Path) -> None:
    """Have a file or directory written through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of(directory: Path) -> int:
    """Bytes in the files below a directory, as far as they can be read."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_size
            except OSError:
                continue  # a file that vanished meanwhile
    return total


def _host() -> str:
    """Where process numbers mean the same: containers, and machines, may well share a name."""
    parts = [re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:64] or "host"]
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    with suppress(OSError):
        # No two kernels that run have one; after a restart the numbers mean other processes, too.
        parts.append(_BOOT_ID.read_text(encoding="ascii").strip().replace("-", "")[:12])
    return ".".join(parts)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # someone else's process, or a number that says nothing: leave it alone
    return True
