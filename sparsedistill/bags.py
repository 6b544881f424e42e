"""Bags of n-grams: for each text, the vocabulary rows of the n-grams it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.addresses import address
from sparsedistill.bag_copying import copied
from sparsedistill.errors import DataError
from sparsedistill.text.buffers import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sparsedistill.bag_copying import FeatureDrop


def first_beyond(rows: NDArray[np.int32], limit: int) -> int | None:
    """Where the first row number is that a table of so many rows does not have; None for none."""
    unsigned = rows.view(np.uint32)  # in which negative numbers are large
    if len(unsigned) == 0 or unsigned.max() < limit:
        return None
    return int((unsigned >= limit).argmax())


@dataclass(frozen=True, slots=True, eq=False)
class Bags:
    """Ragged rows of row numbers: bag `i` is `rows[offsets[i]:offsets[i + 1]]`.

    Inside a bag the n-grams come by the position of their first token, then by length; one that
    occurs twice is there twice, an unknown one is not.

    Attributes:
        rows: int32[n-grams].
        offsets: int64[bags + 1], ascending from 0.
    """

    rows: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", frozen(self.rows, np.int32))
        object.__setattr__(self, "offsets", frozen(self.offsets, np.int64))
        offsets = self.offsets
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(self.rows):
            raise DataError(f"bag offsets must run from 0 to the number of rows, {len(self.rows)}")
        if (np.diff(offsets) < 0).any():
            raise DataError("bag offsets must ascend")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, bag: int) -> NDArray[np.int32]:
        if not -len(self) <= bag < len(self):
            raise IndexError(f"bag {bag} of {len(self)}")
        bag %= len(self)
        return self.rows[self.offsets[bag] : self.offsets[bag + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return (self[bag] for bag in range(len(self)))

    def take(
        self, rows: NDArray[np.integer[Any]] | Sequence[int], drop: FeatureDrop | None = None
    ) -> Bags:
        """The bags of these numbers in the order asked for, copied together.

        Args:
            rows: Numbers of bags, from 0.
            drop: N-grams to leave out.

        Raises:
            IndexError: There is no such bag.
        """
        numbers = checked_numbers(rows, len(self))
        starts = self.offsets[:-1][numbers]
        lengths = self.offsets[1:][numbers] - starts
        addresses = starts.view(np.uint64) * 4 + np.uint64(address(self.rows))
        return Bags(*copied(addresses, lengths, numbers, drop))

    @classmethod
    def concat(cls, parts: Sequence[Bags]) -> Bags:
        """All bags of the parts, in order; no parts give no bags."""
        rows = np.concatenate([np.zeros(0, np.int32), *(part.rows for part in parts)])
        lengths = [np.diff(part.offsets) for part in parts]
        offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
        return cls(rows, offsets)


def checked_numbers(
    numbers: NDArray[np.integer[Any]] | Sequence[int], bags: int
) -> NDArray[np.int64]:
    """Numbers of bags as a kernel takes them; IndexError for one that none of the bags has."""
    found = frozen(numbers, np.int64)
    strange = (found < 0) | (found >= bags)
    if strange.any():
        raise IndexError(f"bag {found[strange][0]} of {bags}")
    return found
