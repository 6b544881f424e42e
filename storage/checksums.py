"""Checksums of local files, read once per process and version of a file.

A version is where the file lies on its disk, its size and the time of its last change: a file that
is replaced or written to is read again. What changes behind the back of the file system, a bad
sector or a bit in memory, is found by the next process, or by `verify`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from storage.digests import sha256_file
from storage.errors import DamagedArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    from storage.manifest import FileEntry

ALTERED = "its bytes are not those that were written (checksum)"
_KNOWN: dict[tuple[int, int, int, int], str] = {}


def checksum(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    stat = path.stat()
    version = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if version not in _KNOWN:
        _KNOWN[version] = sha256_file(path)
    return _KNOWN[version]


def check_file(path: Path, artifact: str, entry: FileEntry) -> None:
    """Compare a local file with what a manifest says of it.

    Raises:
        DamagedArtifactError: it is missing, has another size or other bytes, or the disk cannot
            read it.
    """
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            raise DamagedArtifactError(artifact, entry.name, wrong_size(size, entry))
        if checksum(path) != entry.sha256:
            raise DamagedArtifactError(artifact, entry.name, ALTERED)
    except FileNotFoundError as error:
        raise DamagedArtifactError(artifact, entry.name, "the file is missing") from error
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        reason = f"it cannot be read ({error.strerror})"
        raise DamagedArtifactError(artifact, entry.name, reason) from error


def wrong_size(size: int, entry: FileEntry) -> str:
    """The reason against a file of another size."""
    return f"it has {size:,} bytes instead of {entry.bytes:,}"
