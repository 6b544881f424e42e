"""Whether texts are still such as a model was made for, and what is new about them.

A batch of texts is compared with the profile of those the model comes from (see `text_profile`).
Two things have to come together before it is called drift: the difference is more than chance,
which keeps small batches from crying wolf; and it is large, which keeps a million texts from making
much of a trifle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.chance import difference
from sparsedistill.drift_report import VERDICTS, DriftReport, Example, Shift, Unknown, Verdict
from sparsedistill.errors import ConfigError
from sparsedistill.frequent import FrequentHashes
from sparsedistill.text.counting import count_ngrams
from sparsedistill.text.inputs import buffers
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text.recovery import ngram_strings
from sparsedistill.text_profile import QUANTITIES, Counted, Profile, Quantity, profile_of, scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sparsedistill.classifier import Classifier
    from sparsedistill.folded import Scores
    from sparsedistill.text.buffers import TextBuffer
    from sparsedistill.text.inputs import Texts

ALPHA = 0.01
"""How often a batch of the reference's own texts may be called shifted."""
SHIFTED, DIFFERENT = 0.02, 0.1
"""Divergences in bits, over what chance makes, from which on these are the words."""

# Texts looked at together.
_BLOCK = 4096
_EXCERPT = 160


class DriftMonitor:
    """Watches texts go by, any number of them in constant memory.

    Attributes:
        profile: Of the texts so far.

    Example:
        >>> monitor = DriftMonitor(Classifier.load("student/"))
        >>> for batch in todays_texts:
        ...     monitor.add(batch)
        >>> monitor.report().verdict
        'same'
    """

    def __init__(
        self, classifier: Classifier, *, examples: int = 5, words: int = 20, capacity: int = 4096
    ) -> None:
        """Start with no text.

        Args:
            classifier: Whose answers are watched.
            examples: Texts to show, of those that the model knows least of.
            words: Unknown words to show.
            capacity: Unknown words held at a time. A count is too small by at most the number of
                unknown words that went by divided by this.
        """
        if examples < 0 or words < 0:
            raise ConfigError(f"examples and words are 0 or more, not {examples} and {words}")
        self._classifier = classifier
        self._most_examples, self._most_words = examples, words
        spec = classifier.folded.spec
        self._shortest = NgramSpec(spec.tokenizer, spec.min_n, spec.min_n)
        self._frequent = FrequentHashes(capacity)
        self._strings: dict[int, str] = {}
        self._occurrences = self._unknown = 0
        self._examples: list[Example] = []
        self.profile = Profile.empty(classifier.classes_)

    def add(self, texts: Texts) -> None:
        """Look at some texts; one, or many in any form.

        Raises:
            DataError: A row is not a string, or is one that has no UTF-8 form.
        """
        for part in _blocks(texts):
            found = scores(self._classifier, part)
            self._show(part, found)
            self.profile += profile_of(self._classifier, part, found)
            self._count(part)

    def report(self, reference: Profile | None = None, *, alpha: float = ALPHA) -> DriftReport:
        """Compare all texts so far with a reference.

        Args:
            reference: The model's own, if not given.
            alpha: How often a batch of the reference's own texts may be called shifted, all
                quantities together (Bonferroni).

        Raises:
            ConfigError: There is no reference, or `alpha` is not between 0 and 1.
        """
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha is between 0 and 1, not {alpha}")
        if reference is None:
            reference = Profile.from_json(self._classifier.reference, self._classifier.classes_)
        level = alpha / len(QUANTITIES)
        shifts = tuple(_shift(one, reference, self.profile, level) for one in QUANTITIES)
        return DriftReport(
            rows=self.profile.rows,
            reference_rows=reference.rows,
            alpha=alpha,
            verdict=max((shift.verdict for shift in shifts), key=VERDICTS.index),
            shifts=shifts,
            unknown=self._unknown_words(),
            examples=tuple(self._examples),
        )

    def _count(self, texts: TextBuffer) -> None:
        """Count the n-grams, words as a rule, that have no row."""
        counts = count_ngrams(texts, self._shortest, threads=self._classifier.threads)
        new = self._classifier.folded.index.find(counts.hash) < 0
        self._occurrences += int(counts.count.sum())
        self._unknown += int(counts.count[new].sum())
        names = self._frequent.add(counts.hash[new], counts.count[new])
        held = set(self._frequent.hashes.tolist())
        self._strings = {key: name for key, name in self._strings.items() if key in held}
        self._strings |= zip(
            names.tolist(), ngram_strings(texts, self._shortest, names), strict=True
        )

    def _unknown_words(self) -> Unknown:
        held = zip(self._frequent.hashes.tolist(), self._frequent.counts.tolist(), strict=True)
        words = sorted(
            ((self._strings[key], count) for key, count in held),
            key=lambda word: (-word[1], word[0]),
        )
        return Unknown(
            length=self._shortest.min_n,
            occurrences=self._occurrences,
            unknown=self._unknown,
            ngrams=tuple(words[: self._most_words]),
            error=self._frequent.error,
        )

    def _show(self, texts: TextBuffer, found: Scores) -> None:
        """Keep the least covered texts, each once."""
        if not self._most_examples:
            return
        # As if one n-gram more were known and one not: a word or two prove little.
        share = (found.known + 1) / (found.total + 2)
        first = self.profile.rows
        for row in np.argsort(share, kind="stable").tolist():
            if (
                len(self._examples) >= self._most_examples
                and _proof(self._examples[-1]) <= share[row]
            ):
                return
            if found.total[row] == 0:
                continue
            excerpt = " ".join(texts[row].split())[:_EXCERPT]
            if all(excerpt != example.text for example in self._examples):
                coverage = float(found.known[row] / found.total[row])
                example = Example(first + row, excerpt, coverage, int(found.total[row]))
                self._examples.append(example)
                self._examples.sort(key=lambda one: (_proof(one), one.row))
                del self._examples[self._most_examples :]


def measure_reference(
    classifier: Classifier, texts: Texts, *, counted: Counted | None = None
) -> Profile:
    """The profile of texts that a model is at home with.

    Args:
        classifier: The model.
        texts: Some thousands of them, drawn from all of the corpus.
        counted: To be given where the vocabulary was made from these very texts: each is then
            looked at as if it had not been there, as every new text is.

    Raises:
        ConfigError: The counts are not those of the model's rows.
        DataError: A row is not a string, or is one that has no UTF-8 form.
    """
    profile = Profile.empty(classifier.classes_)
    for part in _blocks(texts):
        profile += profile_of(classifier, part, scores(classifier, part, counted))
    return profile


def compare(
    classifier: Classifier,
    texts: Texts,
    *,
    reference: Profile | None = None,
    alpha: float = ALPHA,
) -> DriftReport:
    """Compare texts with those that a model was made from; see `DriftMonitor`."""
    monitor = DriftMonitor(classifier)
    monitor.add(texts)
    return monitor.report(reference, alpha=alpha)


def _shift(quantity: Quantity, reference: Profile, batch: Profile, level: float) -> Shift:
    found = difference(reference.counts[quantity.name], batch.counts[quantity.name], level=level)
    divergence = max(0.0, found.divergence - found.chance)
    verdict: Verdict = "same"
    if found.p_value < level and divergence >= SHIFTED:
        verdict = "different" if divergence >= DIFFERENT else "shifted"
    return Shift(
        quantity=quantity,
        names=reference.names(quantity),
        reference=reference.shares(quantity),
        batch=batch.shares(quantity),
        reference_mean=reference.mean(quantity),
        batch_mean=batch.mean(quantity),
        divergence=divergence,
        p_value=found.p_value,
        detectable=max(SHIFTED, found.detectable - found.chance),
        verdict=verdict,
    )


def _blocks(texts: Texts) -> Iterator[TextBuffer]:
    for part in buffers(texts):
        for start in range(0, len(part), _BLOCK):
            yield part.slice(start, min(start + _BLOCK, len(part)))


def _proof(example: Example) -> float:
    return (example.coverage * example.ngrams + 1) / (example.ngrams + 2)
