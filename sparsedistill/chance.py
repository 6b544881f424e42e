"""What chance alone would do: the lower bound of a share, and how far equal samples lie apart."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_SHUFFLES = 4999
# NumPy draws from at most 1e9. So many rows leave nothing to chance, so fewer stand for them.
_MOST_ROWS = 10**8


def wilson_lower(hits: ArrayLike, rows: ArrayLike, *, confidence: float) -> NDArray[np.float64]:
    """The lower bound of a share, one-sided, by Wilson's score interval (1927); shapes are kept.

    Args:
        hits: Rows that hit.
        rows: All of them, 1 or more.
        confidence: How often the bound shall be below the true share, 0.5 to 1; with 0.5 it is the
            share that was seen.
    """
    z = NormalDist().inv_cdf(confidence)
    n = np.asarray(rows, np.float64)
    share = np.asarray(hits, np.float64) / n
    spread = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.asarray((share + z * z / (2 * n) - spread) / (1 + z * z / n))


def jensen_shannon(one: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """The Jensen-Shannon divergence of histograms in bits: 0 if alike, 1 if they share no bin.

    Bins that one of the two leaves empty are no trouble. Over the last axis; each histogram has a
    row at least.
    """
    p, q = (_shares(each) for each in (one, other))
    middle = (p + q) / 2
    bits = (_plogp(p) + _plogp(q)) / 2 - _plogp(middle)
    return np.asarray(bits.sum(axis=-1).clip(0, 1))


class Difference(NamedTuple):
    """How far two samples lie apart, and how far they would by chance.

    Attributes:
        divergence: `jensen_shannon` of their histograms.
        chance: What it is in the mean for two samples of these sizes from one population.
        p_value: How often such samples lie as far apart as these; never less than 1 / 5,000.
        detectable: What such samples reach only as often as the level of the test says: a
            divergence below it would go unnoticed.
    """

    divergence: float
    chance: float
    p_value: float
    detectable: float


def difference(
    one: NDArray[np.int64], other: NDArray[np.int64], *, level: float, seed: int = 0
) -> Difference:
    """Compare two samples by their histograms, in a permutation test.

    All rows are put together and dealt out anew 4,999 times. That is exact whatever the sizes and
    however empty the bins, where the tail of chi-square is neither. It takes rows to be independent
    of one another.

    Args:
        one: Rows by bin.
        other: The same of the other sample.
        level: Of the test, for `detectable`.
        seed: Of the shuffles.
    """
    one, other = _at_most(one), _at_most(other)
    if not (one.sum() and other.sum()):
        return Difference(0.0, 0.0, 1.0, 1.0)
    both = one + other
    dealt = np.random.default_rng(seed).multivariate_hypergeometric(
        both, int(other.sum()), size=_SHUFFLES, method="marginals"
    )
    found = float(jensen_shannon(one, other))
    shuffled = jensen_shannon(both - dealt, dealt)
    # Shuffles that are equal to what was found differ from it by rounding.
    as_far = int(np.count_nonzero(shuffled >= found - 1e-12))
    return Difference(
        divergence=found,
        chance=float(shuffled.mean()),
        p_value=(1 + as_far) / (1 + _SHUFFLES),
        detectable=float(np.quantile(shuffled, 1 - level, method="higher")),
    )


def _shares(counts: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(counts, np.float64)
    return np.asarray(values / np.maximum(values.sum(axis=-1, keepdims=True), 1e-300))


def _plogp(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(share * np.log2(np.where(share > 0, share, 1.0)))


def _at_most(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    rows = int(counts.sum())
    return counts if rows <= _MOST_ROWS else counts * _MOST_ROWS // rows
