"""Counts of n-grams as every step after counting takes them: by number of tokens, then by hash.

Strings are the wrong unit to count (a 4-gram is some 25 bytes and a Python object): n-grams are
counted by their 64-bit hash. The strings of the few that are chosen are read off the texts
afterwards (`text/recovery.py`) and checked against the hashes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.text.buffers import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

# Entries in one part of a source: what must be held of each of many sources while they are merged.
PART = 1 << 14
ENTRY_BYTES = 16


@dataclass(frozen=True, slots=True, eq=False)
class CountedHashes:
    """How often n-grams of one length occur.

    Attributes:
        order: Tokens in each.
        hash: uint64[n], ascending, each once.
        count: int64[n], 1 or more.
    """

    order: int
    hash: NDArray[np.uint64]
    count: NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", frozen(self.hash, np.uint64))
        object.__setattr__(self, "count", frozen(self.count, np.int64))
        if self.hash.shape != self.count.shape or self.hash.ndim != 1:
            raise DataError(f"{self.hash.shape} hashes with {self.count.shape} counts")

    def __len__(self) -> int:
        return len(self.hash)


class CountSource(Protocol):
    """Counts that are read part by part, from a file or an artifact."""

    @property
    def entries(self) -> Mapping[int, int]:
        """How many different n-grams there are, by order."""
        ...

    def parts(self, order: int) -> Iterator[CountedHashes]:
        """The n-grams of one order by ascending hash, at most `PART` at a time."""
        ...
