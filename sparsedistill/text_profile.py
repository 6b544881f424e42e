"""What texts look like to a model: how they spread over a few quantities that tell of drift.

A profile is a handful of histograms over fixed bins. It takes 2 KB whatever the number of texts,
and profiles of parts add up to the profile of the whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsedistill.bags import Bags
from sparsedistill.errors import ConfigError
from sparsedistill.folded import Scores
from sparsedistill.metrics import softmax
from sparsedistill.scripts import SCRIPTS, dominant_scripts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sparsedistill.classifier import Classifier
    from sparsedistill.text.buffers import TextBuffer

# In the JSON form. To be raised when a bin or a quantity changes: old profiles compare with no new.
FORMAT = 1
_MOST_ROWS = 10**15


class Quantity(NamedTuple):
    """Something that every text has a value of.

    Attributes:
        name: In data.
        title: For people.
        edges: Bin `i` holds what is above `edges[i - 1]` and not above `edges[i]`; the last bin,
            after the last edge, the rest. None for kinds, which are counted by name.
    """

    name: str
    title: str
    edges: tuple[float, ...] | None


COVERAGE = Quantity("coverage", "coverage", tuple(step / 20 for step in range(20)))
NGRAMS = Quantity("ngrams", "n-grams in a text", (0, *(2**power for power in range(20))))
CONFIDENCE = Quantity(
    "confidence",
    "confidence",
    (*(step / 10 for step in range(1, 10)), 0.95, 0.98, 0.99, 0.995, 0.998, 0.999),
)
LABELS = Quantity("labels", "predicted label", None)
UNKNOWN = Quantity("unknown", "nothing known", None)
SCRIPT = Quantity("scripts", "script", None)
QUANTITIES = (COVERAGE, UNKNOWN, NGRAMS, CONFIDENCE, LABELS, SCRIPT)
MEASURED = (COVERAGE, NGRAMS, CONFIDENCE)


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """How texts spread over each of the `QUANTITIES`.

    Attributes:
        labels: Of the model.
        counts: int64[bins], texts by bin, by the name of the quantity.
        sums: Sum over the texts, by the name of those that are numbers.
    """

    labels: tuple[str, ...]
    counts: Mapping[str, NDArray[np.int64]]
    sums: Mapping[str, float]

    @classmethod
    def empty(cls, labels: tuple[str, ...]) -> Profile:
        """Of no text."""
        counts = {one.name: np.zeros(_bins(one, labels), np.int64) for one in QUANTITIES}
        return cls(labels, counts, {one.name: 0.0 for one in MEASURED})

    @property
    def rows(self) -> int:
        """How many texts there were."""
        return int(self.counts[UNKNOWN.name].sum())

    def mean(self, quantity: Quantity) -> float | None:
        """The mean over the texts; None of kinds, and of no text."""
        if quantity.name not in self.sums or not self.rows:
            return None
        return self.sums[quantity.name] / self.rows

    def shares(self, quantity: Quantity) -> tuple[float, ...]:
        """The share of the texts in each bin."""
        return tuple((self.counts[quantity.name] / max(self.rows, 1)).tolist())

    def names(self, quantity: Quantity) -> tuple[str, ...] | None:
        """What the bins of kinds are called; None for bins of numbers."""
        known = {LABELS.name: self.labels, UNKNOWN.name: ("no", "yes"), SCRIPT.name: SCRIPTS}
        return known.get(quantity.name)

    def __add__(self, other: Profile) -> Profile:
        return Profile(
            self.labels,
            {name: counts + other.counts[name] for name, counts in self.counts.items()},
            {name: value + other.sums[name] for name, value in self.sums.items()},
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, for a model's `reference`."""
        return {
            "format": FORMAT,
            "rows": self.rows,
            "sums": dict(self.sums),
            "counts": {name: counts.tolist() for name, counts in self.counts.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], labels: tuple[str, ...]) -> Profile:
        """From `to_json()`.

        Raises:
            ConfigError: Not such an object, or of another version of sparsedistill.
        """
        if not value:
            raise ConfigError(
                "the model has no reference to compare with: measure one on texts that are as they "
                "should be, with measure_reference(), or name a file of them with --against"
            )
        if value.get("format") != FORMAT:
            raise ConfigError(
                f"the model's reference has the format {value.get('format')!r:.40}, not {FORMAT}: "
                "measure it anew, with measure_reference()"
            )
        try:
            counts = {one.name: _counts(value["counts"][one.name]) for one in QUANTITIES}
            sums = {one.name: float(value["sums"][one.name]) for one in MEASURED}
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"the model's reference is malformed: {error!r:.80}") from error
        for one in QUANTITIES:
            if counts[one.name].shape != (_bins(one, labels),):
                raise ConfigError(
                    f"the model's reference has {counts[one.name].size} bins of {one.name}, not "
                    f"{_bins(one, labels)}: measure it anew, with measure_reference()"
                )
        rows = {int(each.sum()) for each in counts.values()}
        if len(rows) > 1 or not all(map(math.isfinite, sums.values())):
            raise ConfigError("the model's reference is malformed: its counts contradict another")
        return cls(labels, counts, sums)


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """How often each n-gram of a model was counted in the texts that it was made from.

    For these texts every n-gram that they brought in themselves is known, as it is for no new text.
    With the counts it can be told which n-grams of a text would be known without it.

    Attributes:
        counts: int64[rows], by row of the model's table.
        least: The least count that gave an n-gram a row.
        weight: How often an occurrence in these texts was counted.
    """

    counts: NDArray[np.int64]
    least: int
    weight: int = 1

    def without_own(self, bags: Bags) -> Bags:
        """Leave out of each text's bag the n-grams that would have no row without the text."""
        bag = np.repeat(np.arange(len(bags)), np.diff(bags.offsets))
        _, pair, times = np.unique(
            bag * len(self.counts) + bags.rows, return_inverse=True, return_counts=True
        )
        stays = self.counts[bags.rows] - self.weight * times[pair] >= self.least
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(stays)])[bags.offsets]
        return Bags(bags.rows[stays], offsets)


def scores(classifier: Classifier, texts: TextBuffer, counted: Counted | None = None) -> Scores:
    """What the model finds in texts; with `counted`, as if each had not been counted itself.

    Raises:
        ConfigError: The counts are not those of the model's rows.
    """
    folded = classifier.folded
    found = folded.run(texts, threads=classifier.threads)
    if counted is None:
        return found
    if len(counted.counts) != len(folded.index):
        raise ConfigError(
            f"{len(counted.counts):,} counts for a model of {len(folded.index):,} rows"
        )
    bags = counted.without_own(folded.bags(texts))
    known = np.diff(bags.offsets)
    return Scores(folded.bag_logits(bags), known, found.total)


def profile_of(classifier: Classifier, texts: TextBuffer, found: Scores) -> Profile:
    """The profile of texts, from what the model found in them."""
    probabilities = softmax(found.logits, classifier.folded.temperature)
    values: dict[str, NDArray[Any]] = {
        COVERAGE.name: found.known / np.maximum(found.total, 1),
        NGRAMS.name: found.total,
        CONFIDENCE.name: probabilities.max(axis=1, initial=0),
        LABELS.name: probabilities.argmax(axis=1),
        UNKNOWN.name: (found.known == 0).astype(np.int64),
        SCRIPT.name: dominant_scripts(texts),
    }
    labels = classifier.classes_
    counts = {}
    for one in QUANTITIES:
        bins = values[one.name]
        if one.edges is not None:
            bins = np.searchsorted(one.edges, bins, side="left")
        counts[one.name] = np.bincount(bins, minlength=_bins(one, labels))
    return Profile(labels, counts, {one.name: float(values[one.name].sum()) for one in MEASURED})


def _bins(quantity: Quantity, labels: tuple[str, ...]) -> int:
    if quantity.edges is not None:
        return len(quantity.edges) + 1
    return {LABELS.name: len(labels), UNKNOWN.name: 2, SCRIPT.name: len(SCRIPTS)}[quantity.name]


def _counts(value: Any) -> NDArray[np.int64]:  # noqa: ANN401
    if not (isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)):
        raise ValueError("counts must be whole numbers, 0 or more")
    # Sums in int64 would turn over, and counts that are wrong together agree.
    if sum(value) > _MOST_ROWS:
        raise ValueError("counts of more texts than there are")
    return np.array(value, np.int64)
