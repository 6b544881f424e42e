"""Local copies of files of an object store, in a directory with a limit of size.

    $SPARSEDISTILL_CACHE/artifacts/<kind>/<key and content>/<file>

When a new copy would go beyond the limit, the least recently used ones go first; the time of access
of a copy tells when it was last asked for. What was asked for within the last hour stays, even
beyond the limit: whoever asked was given a path, and opens it when it needs it.
"""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from storage.checksums import check_file
from storage.errors import DamagedArtifactError, StorageError
from storage.scratch import cache_directory
from storage.turns import turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.manifest import FileEntry

SIZE_VARIABLE = "SPARSEDISTILL_CACHE_SIZE"
DEFAULT_SIZE = "50GB"
SPARED_SECONDS = 3600.0
"""What was asked for within that time is never removed."""
NOTED_SECONDS = 60.0
"""A use is noted at most that often, so the hour may be that much shorter."""

_LOG = logging.getLogger(__name__)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
# Eviction goes down to this share of the limit, and is looked at again when that much has come.
_FILLED, _STEP = 0.9, 0.02


class LocalCopies:
    """The copies of all stores that this user reads; threads and processes may share them."""

    def __init__(self) -> None:
        self._top = cache_directory() / "artifacts"
        self._limit = cache_size()
        self._room = 0

    def path(self, *parts: str) -> Path:
        """Where a copy, or a directory of them, is, or would be.

        Raises:
            StorageError: a link there leads out of the cache.
        """
        path = self._top.joinpath(*parts)
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(self._top.parent)):
            raise StorageError(f"{path} is a link that leaves the cache; remove it")
        return path

    def has(self, path: Path, entry: FileEntry) -> bool:
        """Whether there is a whole copy, spared for an hour then; a damaged one is removed."""
        if not self._use(path):
            return False
        try:
            check_file(path, "a local copy", entry)
        except DamagedArtifactError as error:
            _LOG.warning("%s: %s; it is fetched again", path, error.reason)
            path.unlink(missing_ok=True)
            return False
        return True

    def make_room(self, size: int) -> None:
        """Remove the least recently used copies where the limit asks for it."""
        self._room -= size
        if self._room < 0:
            with turn(self._lock):
                self._room = self._evict(size)

    def take(self, file: Path, path: Path) -> None:
        """Put a whole file in the place of a copy."""
        with turn(self._lock):  # an eviction removes directories that it finds empty
            path.parent.mkdir(parents=True, exist_ok=True)
            file.replace(path)

    @property
    def _lock(self) -> Path:
        return self._top.parent / "copies.lock"

    def _use(self, path: Path) -> bool:
        try:
            if time.time() - path.stat().st_atime > NOTED_SECONDS:
                # Not between an eviction's last look at the file and its removal.
                with turn(self._lock):
                    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _evict(self, size: int) -> int:
        """Make room for a copy; returns how many more bytes may come before the next look."""
        copies = sorted(self._copies())
        total = sum(bytes_ for _, bytes_, _ in copies) + size
        if total > self._limit:
            spared = time.time() - SPARED_SECONDS
            for used, bytes_, path in copies:
                if total <= self._limit * _FILLED or used > spared:
                    break
                path.unlink(missing_ok=True)
                _remove_empty(path.parent, self._top)
                total -= bytes_
            if total > self._limit:
                _LOG.warning(
                    "the local cache %s holds %s bytes, more than %s=%s: all of it was used within "
                    "the last hour", self._top, f"{total:,}", SIZE_VARIABLE, f"{self._limit:,}",
                )  # fmt: skip
        return int(max(self._limit * _STEP, (self._limit - total) / 2))

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        for parent, _, names in os.walk(self._top):
            for name in names:
                path = Path(parent) / name
                try:
                    stat = path.lstat()
                except FileNotFoundError:
                    continue
                yield stat.st_atime, stat.st_size, path


def cache_size() -> int:
    """Bytes that local copies may take: `$SPARSEDISTILL_CACHE_SIZE`, 50 GB where it is not set.

    Raises:
        StorageError: it is no size.
    """
    given = os.environ.get(SIZE_VARIABLE) or DEFAULT_SIZE
    match = _SIZE.fullmatch(given.strip())
    if not match:
        raise StorageError(f"{SIZE_VARIABLE}={given!r} is no size; write it as 50GB or 500MB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _remove_empty(directory: Path, top: Path) -> None:
    while directory != top:
        try:
            directory.rmdir()
        except OSError:
            return  # something else is in it
        directory = directory.parent
