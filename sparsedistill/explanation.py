"""Why a text got its label: what each of its n-grams adds to the logit of each class.

With the activation replaced by its slope at this text's hidden vector (for ReLU 0 or 1, for tanh
tanh(h) / h), the model is linear in the n-grams' rows, and *for this text* it is the model: bias
and contributions add up to the logits, nothing is left over and nothing was estimated.

What it does not say is what another text would get. Without an n-gram the others weigh more (the
model takes their mean), and parts of the hidden layer may switch on or off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsedistill.metrics import softmax
from sparsedistill.text.kernels import hash_ngrams
from sparsedistill.text.recovery import ngram_strings
from sparsedistill.text.spans import token_spans
from sparsedistill.text.tokens import token_hashes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.folded import FoldedModel
    from sparsedistill.text.buffers import TextBuffer

    Spans = tuple[tuple[int, int], ...]


class Contribution(NamedTuple):
    """What one n-gram adds, all its occurrences together.

    Attributes:
        ngram: The n-gram.
        count: How often the text has it (among the n-grams that the model reads).
        contributions: float64[classes], what it adds to each logit.
        spans: Where each occurrence begins and ends in the text, in characters.
    """

    ngram: str
    count: int  # type: ignore[assignment] # hides tuple.count, which nobody needs here
    contributions: NDArray[np.float64]
    spans: Spans


class Word(NamedTuple):
    """One token of the text, and its part of the n-grams that cover it.

    Attributes:
        start: Where it begins in the text, in characters.
        end: Where it ends.
        known: Whether any n-gram that counts covers it.
        contributions: float64[classes]; every occurrence of an n-gram is shared out evenly among
            its tokens, so that words add up to what n-grams do.
    """

    start: int
    end: int
    known: bool
    contributions: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The parts of one text's logits.

    Attributes:
        text: The text.
        label: The predicted label.
        labels: All labels, by class.
        ngrams: The text's known n-grams, each once, the one that speaks most for or against the
            predicted label (compared with the mean of the classes) first.
        words: All tokens of the text, in order.
        bias: float64[classes], what the logits are without any n-gram, at the same slope.
        logits: float64[classes], the sum of `bias` and all contributions.
        temperature: Of the probabilities.
        complete: False for a text so long that the model does not read all of it.
    """

    text: str
    label: str
    labels: tuple[str, ...]
    ngrams: tuple[Contribution, ...]
    words: tuple[Word, ...]
    bias: NDArray[np.float64]
    logits: NDArray[np.float64]
    temperature: float
    complete: bool

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The probability of each class: the softmax of the logits over the temperature."""
        shares: NDArray[np.float64] = softmax(self.logits[None, :], self.temperature)[0]
        return shares

    def towards(self, label: str) -> list[tuple[str, float]]:
        """What each n-gram does for a label against the others, the strongest first.

        It is the n-gram's contribution to the label less the mean of those to all labels: more
        than 0 speaks for the label.
        """
        values = [(one.ngram, self._for(label, one.contributions)) for one in self.ngrams]
        return sorted(values, key=lambda value: -abs(value[1]))

    def words_towards(self, label: str) -> list[tuple[int, int, float]]:
        """Where each word of a known n-gram begins and ends, and what it does for a label."""
        return [
            (one.start, one.end, self._for(label, one.contributions))
            for one in self.words
            if one.known
        ]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON; contributions by label."""
        return {
            "text": self.text,
            "label": self.label,
            "probabilities": self._by_label(self.probabilities),
            "temperature": self.temperature,
            "logits": self._by_label(self.logits),
            "bias": self._by_label(self.bias),
            "ngrams": [
                {
                    "ngram": one.ngram,
                    "count": one.count,
                    "contributions": self._by_label(one.contributions),
                    "spans": [list(span) for span in one.spans],
                }
                for one in self.ngrams
            ],
            "words": [
                {
                    "start": one.start,
                    "end": one.end,
                    "known": one.known,
                    "contributions": self._by_label(one.contributions),
                }
                for one in self.words
            ],
            "complete": self.complete,
        }

    def _for(self, label: str, contributions: NDArray[np.float64]) -> float:
        return float(contributions[self.labels.index(label)] - contributions.mean())

    def _by_label(self, values: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self.labels, values.tolist(), strict=True))


class _Occurrences(NamedTuple):
    """The known n-grams of a text that count, in the order in which the model reads them.

    Attributes:
        rows: int32[n], their rows.
        starts: int64[n], the first token of each.
        lengths: int64[n], and how many it has.
        all: Whether there are no more.
    """

    rows: NDArray[np.int32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    all: bool


def explain(folded: FoldedModel, text: TextBuffer) -> Explanation:
    """Explain the prediction for a buffer of one text."""
    tokens = token_hashes(text, folded.spec)[0]
    found = _occurrences(folded, tokens)
    rows, which, counts = np.unique(found.rows, return_inverse=True, return_counts=True)
    weights = counts / max(1, len(found.rows))
    embedded = folded.rows(rows).astype(np.float64)
    bias = folded.hidden_bias.astype(np.float64)
    # [classes, hidden]
    linear = folded.head_weight * _slope(folded, weights @ embedded + bias)
    contributions = weights[:, None] * (embedded @ linear.T)
    logits = linear @ bias + folded.head_bias + contributions.sum(axis=0)
    predicted = int(folded.logits(text)[0].argmax())
    spans = token_spans(text[0], folded.spec)
    words = _words(found, spans, (contributions / counts[:, None])[which])
    strength = np.abs(contributions[:, predicted] - contributions.mean(axis=1))
    # Read off the text, so that no file of strings is needed.
    strings = ngram_strings(text, folded.spec, folded.index.hashes[rows])
    places = _places(found, which, spans, len(rows))
    return Explanation(
        text=text[0],
        label=folded.labels[predicted],
        labels=folded.labels,
        ngrams=tuple(
            Contribution(strings[i], int(counts[i]), contributions[i], tuple(places[i]))
            for i in np.argsort(-strength, kind="stable").tolist()
        ),
        words=words,
        bias=linear @ bias + folded.head_bias,
        logits=logits,
        temperature=folded.temperature,
        complete=found.all,
    )


def _occurrences(folded: FoldedModel, tokens: NDArray[np.uint64]) -> _Occurrences:
    """The known n-grams in the order in which the model reads them."""
    spec, every = folded.spec, np.arange(len(tokens))
    hashes = np.empty(len(tokens) * spec.max_n, np.uint64)
    written = hash_ngrams(tokens, 0, len(tokens), len(tokens), spec.max_n, hashes)
    found = folded.index.find(hashes[:written])
    starts = np.repeat(every, np.minimum(len(tokens) - every, spec.max_n))
    lengths = np.arange(written) - np.searchsorted(starts, starts) + 1
    known = np.flatnonzero((found >= 0) & (lengths >= spec.min_n))
    kept = known[: folded.max_ngrams]
    return _Occurrences(found[kept], starts[kept], lengths[kept], all=len(kept) == len(known))


def _words(
    found: _Occurrences, spans: NDArray[np.int64], each: NDArray[np.float64]
) -> tuple[Word, ...]:
    """The tokens with their parts of the occurrences, whose contributions are in `each`."""
    sums = np.zeros((len(spans), each.shape[1]))
    known = np.zeros(len(spans), np.bool_)
    for length in np.unique(found.lengths).tolist():
        here = found.lengths == length
        for place in range(length):
            np.add.at(sums, found.starts[here] + place, each[here] / length)
            known[found.starts[here] + place] = True
    return tuple(
        Word(start, end, is_known, values)
        for (start, end), is_known, values in zip(spans.tolist(), known.tolist(), sums, strict=True)
    )


def _places(
    found: _Occurrences, which: NDArray[np.int64], spans: NDArray[np.int64], rows: int
) -> list[list[tuple[int, int]]]:
    places: list[list[tuple[int, int]]] = [[] for _ in range(rows)]
    starts = spans[found.starts, 0].tolist()
    ends = spans[found.starts + found.lengths - 1, 1].tolist()
    for row, start, end in zip(which.tolist(), starts, ends, strict=True):
        places[row].append((start, end))
    return places


def _slope(folded: FoldedModel, hidden: NDArray[np.float64]) -> NDArray[np.float64]:
    if folded.activation == "relu":
        return (hidden > 0).astype(np.float64)
    still = np.abs(hidden) < 1e-9  # tanh(h) / h tends to 1
    return np.where(still, 1.0, np.tanh(hidden) / np.where(still, 1.0, hidden))
