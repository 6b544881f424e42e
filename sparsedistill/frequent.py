"""The most frequent of very many things, in the memory of a few.

Misra and Gries (1982), batch by batch as Agarwal et al. (2012) merge summaries: when more than
`capacity` things are held, the count of the first that does not fit is taken off all, and what has
nothing left goes. A count is then too small by what was taken off, and that is at most the sum of
all counts divided by `capacity + 1`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FrequentHashes:
    """Counts hashes; what it forgets is rare.

    Attributes:
        hashes: uint64[held], ascending.
        counts: int64[held]; the true count is this, or more by `error` at most.
        error: How much has been taken off. What is not held came up no more often.
    """

    def __init__(self, capacity: int = 4096) -> None:
        if capacity < 1:
            raise ConfigError(f"capacity must be 1 or more, not {capacity}")
        self._capacity = capacity
        self.hashes = np.zeros(0, np.uint64)
        self.counts = np.zeros(0, np.int64)
        self.error = 0

    def add(self, hashes: NDArray[np.uint64], counts: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Count some more.

        Args:
            hashes: uint64[n], each once.
            counts: int64[n], how often.

        Returns:
            Those that are held now and were not before.
        """
        before = self.hashes
        both, places = np.unique(np.concatenate([before, hashes]), return_inverse=True)
        sums = np.zeros(len(both), np.int64)
        np.add.at(sums, places, np.concatenate([self.counts, counts]))
        if len(both) > self._capacity:
            # The one that would be next after the capacity, in descending order.
            at = len(both) - self._capacity - 1
            excess = int(np.partition(sums, at)[at])
            self.error += excess
            sums -= excess
            both, sums = both[sums > 0], sums[sums > 0]
        self.hashes, self.counts = both, sums
        return np.setdiff1d(both, before, assume_unique=True)
