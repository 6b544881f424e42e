"""Places things on a line so that they do not overlap and stay as near as can be to their wish."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def apart(wanted: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Return centres in the order given, each neighbour clear of the next.

    Minimises the squared distance to `wanted` (centres, same order as the result) while things of
    `sizes` do not overlap. Subtracting the room before each thing turns "do not overlap" into "do
    not decrease", which pooling adjacent violators solves exactly.
    """
    offsets = [0.0]
    for before, after in itertools.pairwise(sizes):
        offsets.append(offsets[-1] + (before + after) / 2)
    pools: list[tuple[float, int]] = []
    for wish, offset in zip(wanted, offsets, strict=False):
        pools.append((wish - offset, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (last, n), (mean, m) = pools.pop(), pools.pop()
            pools.append(((mean * m + last * n) / (m + n), m + n))
    placed = [mean for mean, n in pools for _ in range(n)]
    return [place + offset for place, offset in zip(placed, offsets, strict=False)]
