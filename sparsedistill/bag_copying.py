"""Copying bags together, some of their n-grams left out on the way.

Which n-grams a training update leaves out (feature dropout) is a hash of the seed, the update, the
example and the place in its bag: it depends neither on the batch that the example is in, nor on
threads, and takes no pass of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.addresses import int32_at, int64_at
from sparsedistill.errors import ConfigError
from sparsedistill.jit import kernel
from sparsedistill.text import oracle
from sparsedistill.text.kernels import LENGTH, combine, finalise

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FeatureDrop:
    """The share of n-gram occurrences that an update leaves out, and which.

    Occurrence `i` (from 0) of example `row` is left out if the `i`-th number of the splitmix64
    generator that starts at hash(seed, update, row) is below `rate` * 2**64.

    Attributes:
        rate: From 0 to below 1.
        seed: Of the run; 64 bits of it count.
        update: Which update, not negative.
    """

    rate: float
    seed: int
    update: int

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ConfigError(
                f"feature dropout must be from 0 to below 1, not {self.rate}: at 1 nothing is left"
            )

    @property
    def threshold(self) -> np.uint64:
        """What the number of an occurrence must reach for it to stay."""
        return np.uint64(int(self.rate * 2**64))

    @property
    def key(self) -> np.uint64:
        """The hash of seed and update."""
        seed = oracle.finalise(self.seed & oracle.MASK)
        return np.uint64(oracle.finalise(seed * oracle.COMBINE + self.update & oracle.MASK))


KEEP_ALL = FeatureDrop(0.0, 0, 0)


def copied(
    addresses: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    numbers: NDArray[np.int64],
    drop: FeatureDrop | None,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Copy bags together from where they lie.

    Args:
        addresses: uint64[bags], of the first n-gram of each.
        lengths: int64[bags], n-grams of each.
        numbers: int64[bags], by which `drop` knows them.
        drop: What to leave out; None nothing.

    Returns:
        int32[n-grams] and int64[bags + 1], their rows and offsets.
    """
    drop = drop or KEEP_ALL
    rows = np.empty(int(lengths.sum()), np.int32)
    offsets = np.zeros(len(lengths) + 1, np.int64)
    kept = copy_bags(addresses, lengths, numbers, drop.key, drop.threshold, rows, offsets)
    return rows[:kept], offsets


@kernel
def copy_bags(
    addresses: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    numbers: NDArray[np.int64],
    key: np.uint64,
    threshold: np.uint64,
    rows: NDArray[np.int32],
    offsets: NDArray[np.int64],
) -> int:
    """See `copied`; returns how many n-grams there are then."""
    at = 0
    for bag in range(len(addresses)):
        source = int32_at(addresses[bag], lengths[bag])
        if threshold == 0:
            for i in range(len(source)):
                rows[at + i] = source[i]
            at += len(source)
        else:
            state = combine(key, np.uint64(numbers[bag]))
            for i in range(len(source)):
                state += LENGTH
                # No branch, which could not be foreseen: what is left out is written over.
                rows[at] = source[i]
                at += 1 if finalise(state) >= threshold else 0
        offsets[bag + 1] = at
    return at


@kernel
def find_bags(
    numbers: NDArray[np.int64],
    firsts: NDArray[np.int64],
    parts: NDArray[np.uint64],
    addresses: NDArray[np.uint64],
    lengths: NDArray[np.int64],
) -> None:
    """Find bags by number in several parts.

    Args:
        numbers: int64[n], from 0 to below `firsts[-1]`.
        firsts: int64[parts + 1], the number of each part's first bag, ascending from 0.
        parts: uint64[parts, 4], addresses of a part's rows, of its offsets, of its chosen bags (0
            where all of them are), and how many bags its offsets describe.
        addresses: uint64[n], to be filled: of the first n-gram of each, and
        lengths: int64[n], its n-grams.
    """
    for i in range(len(numbers)):
        part = np.searchsorted(firsts, numbers[i], side="right") - 1
        bag = numbers[i] - firsts[part]
        if parts[part, 2] != 0:
            bag = int64_at(parts[part, 2], firsts[part + 1] - firsts[part])[bag]
        offsets = int64_at(parts[part, 1], np.int64(parts[part, 3]) + 1)
        addresses[i] = parts[part, 0] + np.uint64(4 * offsets[bag])
        lengths[i] = offsets[bag + 1] - offsets[bag]
