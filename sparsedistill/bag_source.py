"""Where training takes its bags from: some in memory, or all the mapped shards of a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparsedistill.addresses import address
from sparsedistill.bag_copying import FeatureDrop, copied, find_bags
from sparsedistill.bags import Bags, checked_numbers, first_beyond
from sparsedistill.errors import DataError
from sparsedistill.text.buffers import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["BagPart", "BagSource", "FeatureDrop", "MappedBags"]


class BagSource(Protocol):
    """Bags by number. `Bags` is one, and so is `MappedBags`."""

    def __len__(self) -> int:
        """How many bags there are."""
        ...

    def take(self, rows: NDArray[np.int64], drop: FeatureDrop | None = None) -> Bags:
        """Copy the bags of these numbers together, in the order asked for.

        Args:
            rows: int64[n], from 0 to below the number of bags.
            drop: N-grams to leave out; which ones depends on a bag's number here, not on the others
                that are asked for.

        Raises:
            IndexError: There is no such bag.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class BagPart:
    """Bags of a shard, or some of them.

    Attributes:
        bags: All of the shard, usually over a mapped file.
        chosen: int64[n], the bags that belong to the part, in their order; None for all.
    """

    bags: Bags
    chosen: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.chosen is not None:
            object.__setattr__(self, "chosen", checked_numbers(self.chosen, len(self.bags)))

    def __len__(self) -> int:
        return len(self.bags) if self.chosen is None else len(self.chosen)


class MappedBags:
    """Many parts as one source of bags, numbered through; nothing of them is read beforehand.

    Args:
        parts: In the order of the numbers.
        vocabulary_rows: Rows of the vocabulary. Files are not read before they are used, so what
            is taken from them is compared with it: a student's kernels do not look.
    """

    def __init__(self, parts: Sequence[BagPart], *, vocabulary_rows: int) -> None:
        self._parts = tuple(parts)  # held, because only their addresses are used
        self._vocabulary_rows = vocabulary_rows
        lengths = np.array([len(part) for part in parts], np.int64)
        self._firsts = frozen(np.concatenate([[0], np.cumsum(lengths)]), np.int64)
        addresses = [
            (
                address(part.bags.rows),
                address(part.bags.offsets),
                0 if part.chosen is None else address(part.chosen),
                len(part.bags),
            )
            for part in parts
        ]
        self._addresses = frozen(np.array(addresses, np.uint64).reshape(-1, 4), np.uint64)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def take(self, rows: NDArray[np.int64], drop: FeatureDrop | None = None) -> Bags:
        """See `BagSource`.

        Raises:
            IndexError: There is no such bag.
            DataError: A bag has an n-gram that the vocabulary has not.
        """
        numbers = checked_numbers(rows, len(self))
        addresses, lengths = np.empty(len(numbers), np.uint64), np.empty(len(numbers), np.int64)
        find_bags(numbers, self._firsts, self._addresses, addresses, lengths)
        taken = Bags(*copied(addresses, lengths, numbers, drop))
        at = first_beyond(taken.rows, self._vocabulary_rows)
        if at is not None:
            bag = int(np.searchsorted(taken.offsets, at, side="right")) - 1
            raise DataError(
                f"the features of example {numbers[bag]} name row {taken.rows[at]} of a vocabulary "
                f"of {self._vocabulary_rows:,}: they are damaged or of another vocabulary; "
                "`sparsedistill store verify` finds damaged files"
            )
        return taken
