"""The steps of a compression, each measured on the same held-out texts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.compression.sizes import model_bytes
from sparsedistill.metrics import accuracy
from sparsedistill.text.buffers import TextBuffer

if TYPE_CHECKING:
    import numpy.typing as npt

    from sparsedistill.folded import FoldedModel
    from sparsedistill.vocabulary import Vocabulary

EDGE_TEXTS = (
    "",
    " \t ",
    "\u2603 \u2603",
    "qzxv jqwk",
    "good " * 5000,
    "\u0130stanbul \u03a3\u03a3",
)
"""Texts that go wrong first: empty, blank, no word, nothing known, very long, odd lower case."""
_RUNS, _SECONDS = 3, 0.3


@dataclass(frozen=True, slots=True)
class Step:
    """What a step made of the model.

    Attributes:
        step: Its name.
        rows: Of the model.
        bytes: That the model takes on disk, about.
        max_logit_difference: The largest of any logit of any text, against the step before; None
            without held-out texts, as are those below.
        accuracy: Share of the held-out texts whose label is found.
        agreement: Share of the held-out texts labelled as by the model before the first step.
        texts_per_second: Held-out texts, text in and logits out.
    """

    step: str
    rows: int
    bytes: int
    max_logit_difference: float | None = None
    accuracy: float | None = None
    agreement: float | None = None
    texts_per_second: float | None = None

    def to_json(self) -> dict[str, float | str | None]:
        """Return the fields as plain JSON."""
        return asdict(self)


class StepLog:
    """Measures one model after the other.

    Attributes:
        steps: Those measured so far.
        logits: Of the last model for the held-out texts, float32[texts, classes].
    """

    def __init__(
        self,
        texts: TextBuffer | None = None,
        truth: npt.NDArray[np.int64] | None = None,
        *,
        threads: int = 1,
    ) -> None:
        """Texts and their labels, int64[texts]; without texts, only sizes are noted."""
        self.steps: list[Step] = []
        self._texts = texts
        self._truth = truth
        self._threads = threads
        self._checked = None if texts is None else check_texts(texts)
        self._first: npt.NDArray[np.int64] | None = None
        self._last: npt.NDArray[np.float32] | None = None

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """Of the last model for the held-out texts, float32[texts, classes]."""
        if self._last is None or self._texts is None:
            return np.empty((0, 0), np.float32)
        return self._last[: len(self._texts)]

    def start(self, logits: npt.NDArray[np.float32]) -> None:
        """Say what logits the model before the first step has for ``check_texts`` of them."""
        self._last = logits
        self._first = self.logits.argmax(axis=1)

    def measure(self, name: str, model: FoldedModel, vocabulary: Vocabulary) -> Step:
        """Take note of a step and return it."""
        size = model_bytes(model, vocabulary)
        if self._texts is None or self._checked is None or self._truth is None:
            step = Step(name, len(vocabulary), size)
        else:
            before = self._last
            self._last = model.logits(self._checked, threads=self._threads)
            predicted = self.logits.argmax(axis=1)
            if self._first is None:
                self._first = predicted
            step = Step(
                step=name,
                rows=len(vocabulary),
                bytes=size,
                max_logit_difference=(
                    None if before is None else largest_difference(before, self._last)
                ),
                accuracy=accuracy(self._truth, predicted),
                agreement=accuracy(self._first, predicted),
                texts_per_second=self._speed(model, self._texts),
            )
        self.steps.append(step)
        return step

    def _speed(self, model: FoldedModel, texts: TextBuffer) -> float:
        """Return texts per second of the fastest of some runs."""
        best, spent, runs = float("inf"), 0.0, 0
        while runs < _RUNS or (spent < _SECONDS and runs < 100):
            start = perf_counter()
            model.logits(texts, threads=self._threads)
            seconds = perf_counter() - start
            best, spent, runs = min(best, seconds), spent + seconds, runs + 1
            if spent > 10 * _SECONDS:
                break
        return len(texts) / best


def largest_difference(before: npt.NDArray[np.float32], after: npt.NDArray[np.float32]) -> float:
    """Return the largest difference of two models' logits over the same texts."""
    return float(np.abs(before - after).max(initial=0.0))


def check_texts(texts: TextBuffer) -> TextBuffer:
    """Return the texts followed by ``EDGE_TEXTS``: what steps are compared on."""
    return TextBuffer.concat([texts, TextBuffer.from_strings(EDGE_TEXTS)])
