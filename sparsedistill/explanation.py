"""Why a text got its label: what each of its n-grams adds to the logit of each class.

With the activation replaced by its slope at this text's hidden vector (exactly itself for ReLU,
where the slope is 0 or 1; for tanh the slope is tanh(h) / h), the model is linear in the n-grams'
rows: the contributions and the bias add up to the logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsedistill.text.recovery import ngram_strings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.folded import FoldedModel
    from sparsedistill.text.buffers import TextBuffer


class Contribution(NamedTuple):
    """What one n-gram adds, all its occurrences together.

    Attributes:
        ngram: The n-gram.
        count: How often the text has it (among the n-grams that the model reads).
        contributions: float64[classes], what it adds to each logit.
    """

    ngram: str
    count: int  # type: ignore[assignment] # hides tuple.count, which nobody needs here
    contributions: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The parts of one text's logits.

    Attributes:
        label: The predicted label.
        labels: All labels, by class.
        ngrams: The text's known n-grams, each once, the one that speaks most for or against the
            predicted label (compared with the mean of the classes) first.
        bias: float64[classes], what the logits are without any n-gram, at the same slope.
        logits: float64[classes], the sum of `bias` and all contributions.
    """

    label: str
    labels: tuple[str, ...]
    ngrams: tuple[Contribution, ...]
    bias: NDArray[np.float64]
    logits: NDArray[np.float64]

    def towards(self, label: str) -> list[tuple[str, float]]:
        """What each n-gram does for a label against the others, the strongest first.

        It is the n-gram's contribution to the label less the mean of those to all labels: more
        than 0 speaks for the label.
        """
        column = self.labels.index(label)
        values = [
            (one.ngram, float(one.contributions[column] - one.contributions.mean()))
            for one in self.ngrams
        ]
        return sorted(values, key=lambda value: -abs(value[1]))


def explain(folded: FoldedModel, text: TextBuffer) -> Explanation:
    """Explain the prediction for a buffer of one text."""
    bags = folded.bags(text)
    rows, counts = np.unique(bags[0], return_counts=True)
    hidden = folded.hidden_vectors(bags)[0].astype(np.float64)
    weight = folded.head_weight * _slope(folded, hidden)  # [classes, hidden]
    share = counts / max(1, len(bags[0]))
    contributions = share[:, None] * (folded.rows(rows).astype(np.float64) @ weight.T)
    bias = weight @ folded.hidden_bias.astype(np.float64) + folded.head_bias
    predicted = int(folded.logits(text)[0].argmax())
    weights = np.abs(contributions[:, predicted] - contributions.mean(axis=1))
    # Read off the text, so that no file of strings is needed.
    strings = ngram_strings(text, folded.spec, folded.index.hashes[rows])
    ngrams = [
        Contribution(strings[int(i)], int(counts[i]), contributions[i])
        for i in np.argsort(-weights, kind="stable")
    ]
    return Explanation(
        label=folded.labels[predicted],
        labels=folded.labels,
        ngrams=tuple(ngrams),
        bias=bias,
        logits=bias + contributions.sum(axis=0),
    )


def _slope(folded: FoldedModel, hidden: NDArray[np.float64]) -> NDArray[np.float64]:
    if folded.activation == "relu":
        return (hidden > 0).astype(np.float64)
    still = np.abs(hidden) < 1e-9  # tanh(h) / h tends to 1
    return np.where(still, 1.0, np.tanh(hidden) / np.where(still, 1.0, hidden))
