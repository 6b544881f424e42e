"""What can go wrong in the store and with source files, as types a caller can tell apart.

Every message names the thing (artifact, file, row), the reason, and where it helps what to do next.
"""

from __future__ import annotations

import errno

from storage.urls import shown


class StorageError(Exception):
    """Base of all errors of this package; also raised for unsafe names and unknown artifacts."""


class NoStoreError(StorageError):
    """There is no store where one is to be opened."""


class DamagedArtifactError(StorageError):
    """A file of an artifact is missing, altered, or not what its manifest says.

    Attributes:
        artifact: `kind/key`, or the path read when the file is not known as part of an artifact.
        file: Name of the damaged file.
        reason: What is wrong with it.
    """

    def __init__(self, artifact: str, file: str, reason: str) -> None:
        super().__init__(artifact, file, reason)
        self.artifact = artifact
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.artifact}: {self.file}: {self.reason}. The artifact is damaged; "
            "run the pipeline again to have it recomputed."
        )


class StoreUnreachableError(StorageError):
    """A store on a network did not do what was asked, and trying again did not help.

    Attributes:
        url: Of the store.
        what: That was asked for.
        reason: What the file system, or the server, says.
    """

    def __init__(self, url: str, what: str, reason: str) -> None:
        super().__init__(shown(url), what, shown(reason))
        self.url, self.what, self.reason = shown(url), what, shown(reason)

    def __str__(self) -> str:
        return (
            f"{self.url}: {self.what} failed: {self.reason}. Check the network and the credentials "
            "(docs/store.md), and run again: finished work is kept."
        )


class StoreVersionError(StorageError):
    """The store or a manifest was written by a newer version of this software."""

    def __init__(self, what: str, found: int, known: int) -> None:
        super().__init__(what, found, known)
        self.what = what
        self.found = found
        self.known = known

    def __str__(self) -> str:
        return (
            f"{self.what} has format {self.found}, this version reads up to format {self.known}: "
            "it was written by a newer version. Upgrade sparsedistill, or use another store."
        )


class SourceError(StorageError):
    """An input file cannot be used.

    Attributes:
        source: The file, as people know it.
        reason: What is wrong with it.
        row: 1-based row (the line it starts on, in text formats), or None for the whole file.
    """

    def __init__(self, source: str, reason: str, row: int | None = None) -> None:
        # URLs are shown without what may be secret in them.
        super().__init__(shown(source), shown(reason), row)
        self.source = shown(source)
        self.reason = shown(reason)
        self.row = row

    def __str__(self) -> str:
        where = self.source if self.row is None else f"{self.source}, row {self.row}"
        return f"{where}: {self.reason}"


class StoreFullError(StorageError):
    """No space left where an artifact was being written; nothing of it was kept.

    Attributes:
        what: The artifact, as `kind/key`.
        place: The directory that is full.
        written: Bytes that had been written when space ran out.
    """

    def __init__(self, what: str, place: str, written: int) -> None:
        super().__init__(what, place, written)
        self.what = what
        self.place = place
        self.written = written

    def __str__(self) -> str:
        return (
            f"no space left in {self.place} after {self.written:,} bytes of {self.what}; nothing "
            "half-written was kept. Free some space (`sparsedistill store gc`) or choose a store "
            "on a larger disk, and run again: finished work is reused."
        )


def is_out_of_space(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that a disk or a quota is full.

    Libraries written in Rust or C++ (safetensors, polars, torch) report it in the message only.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
