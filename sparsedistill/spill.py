"""Sorted runs of counts on the local disk, for what does not fit the memory.

A run lives as long as the process that wrote it, in a directory that its caller removes, so it has
no format of its own: arrays end to end, and where they lie is kept in memory.
"""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.counted import ENTRY_BYTES, PART, CountedHashes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Run:
    """Counts in a file, by order and then by ascending hash.

    Attributes:
        path: The file.
        entries: How many different n-grams there are, by order.
        places: By order, for each part where it begins in the file, and its entries.
    """

    path: Path
    entries: Mapping[int, int]
    places: Mapping[int, list[tuple[int, int]]]

    @classmethod
    def write(cls, directory: Path, parts: Iterable[CountedHashes]) -> Run:
        """Write counts, that come by order and then by ascending hash, to a new file.

        Raises:
            OSError: The disk is full or fails; the message names the file.
        """
        entries: dict[int, int] = {}
        places: dict[int, list[tuple[int, int]]] = {}
        descriptor, name = tempfile.mkstemp(dir=directory, prefix="counts-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                for part in parts:
                    entries[part.order] = entries.get(part.order, 0) + len(part)
                    for begin in range(0, len(part), PART):
                        piece = slice(begin, begin + PART)
                        hashes, counts = part.hash[piece], part.count[piece]
                        places.setdefault(part.order, []).append((file.tell(), len(hashes)))
                        file.write(hashes.data)
                        file.write(counts.data)
        except OSError as error:
            Path(name).unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(
                    error.errno,
                    "no space left for counted n-grams that do not fit the memory; free some, or "
                    "give more memory",
                    name,
                ) from error
            raise
        return cls(Path(name), entries, places)

    def remove(self) -> None:
        """Free the disk that it takes."""
        self.path.unlink()

    def parts(self, order: int) -> Iterator[CountedHashes]:
        """The n-grams of one order by ascending hash, at most `PART` at a time."""
        with self.path.open("rb", buffering=0) as file:
            for offset, n in self.places.get(order, ()):
                file.seek(offset)
                block = file.read(n * ENTRY_BYTES)
                hashes = np.frombuffer(block, np.uint64, n)
                yield CountedHashes(order, hashes, np.frombuffer(block, np.int64, n, 8 * n))
