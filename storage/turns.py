"""Turns: of all threads and processes of a machine, one at a time works on a thing.

A turn is a lock of the kernel on a file, so it ends with its holder, however that ends. The file is
removed at the end of a turn; whoever waited for it sees that it is gone and opens a new one.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from storage.errors import StoreFullError, is_out_of_space

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextmanager
def turn(path: Path) -> Iterator[float]:
    """Wait for the turn that a file stands for; yields the seconds waited.

    Not to be taken twice by one thread. Where the file system knows no locks (some network disks),
    a warning is logged and nobody waits.

    Raises:
        StoreFullError: no space left for the file.
    """
    started = time.monotonic()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(path, wait=True)
    except OSError as error:
        if is_out_of_space(error):
            raise StoreFullError(path.stem, str(path.parent), 0) from error
        raise
    assert descriptor is not None  # noqa: S101 - None only where one does not wait
    try:
        yield time.monotonic() - started
    finally:
        _release(path, descriptor)


def is_free(path: Path) -> bool:
    """Whether nobody holds the turn that a file stands for; changes nothing."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        return _lock(path, descriptor, wait=False)
    finally:
        os.close(descriptor)


@contextmanager
def turn_if_free(path: Path) -> Iterator[bool]:
    """As `turn`, but yields whether it was free instead of waiting; False: nothing is held."""
    descriptor = _locked(path, wait=False)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _release(path, descriptor)


def _locked(path: Path, *, wait: bool) -> int | None:
    """A descriptor of the file, locked; None where another holds it and one does not wait."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            if not _lock(path, descriptor, wait=wait):
                os.close(descriptor)
                return None
            # Whoever had the turn before removed the file: a lock on it is a lock on nothing.
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(path: Path, descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return False
        _LOG.info("waiting for another thread or process that works on %s", path.stem)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _LOG.warning("%s cannot be locked (%s): nobody else should work on it", path, error)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _release(path: Path, descriptor: int) -> None:
    path.unlink(missing_ok=True)
    # By word, not only by closing: a forked child may hold the same open file.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
