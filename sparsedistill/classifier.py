"""The run-time classifier: texts in, labels out; all that an application needs to know."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from sparsedistill import explanation
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.metrics import softmax
from sparsedistill.model_format import load_model, load_ngrams, read_config, save_model
from sparsedistill.text.buffers import TextBuffer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from sparsedistill.explanation import Explanation
    from sparsedistill.folded import FoldedModel
    from sparsedistill.vocabulary import Vocabulary

# Texts taken from an iterator at a time.
CHUNK = 4096


class Classifier:
    """A finished student. Safe to use from several threads at once.

    Every method takes one text, or many: a list, a numpy array, a `TextBuffer`, any iterable; an
    iterator is read in pieces of 4096 texts. One text gives one result, many give one for each.

    Attributes:
        threads: How many threads a call may use; results do not depend on it.
        training: What the model's directory says of where it comes from.

    Example:
        >>> classifier = Classifier.load("student/")
        >>> classifier.predict("a gripping film")
        'positive'
    """

    def __init__(
        self,
        folded: FoldedModel,
        *,
        ngrams: TextBuffer | None = None,
        training: Mapping[str, Any] | None = None,
        threads: int = 1,
    ) -> None:
        if threads < 1:
            raise ConfigError(f"threads must be 1 or more, not {threads}")
        self.threads = threads
        self.training = dict(training or {})
        self._folded = folded
        self._ngrams = ngrams
        self._directory: Path | None = None

    @classmethod
    def load(cls, directory: str | Path, *, threads: int = 1, verify: bool = False) -> Classifier:
        """Load a model's directory; runs nothing that is in it.

        Args:
            directory: As the `package` stage or `save` wrote it.
            threads: How many threads a call may use.
            verify: Also compare every file with its checksum (reads the whole table).

        Raises:
            ModelFileError: A file is missing, damaged or newer; names the file and the reason.
        """
        folded = load_model(directory, verify=verify)
        classifier = cls(folded, training=read_config(directory).training, threads=threads)
        classifier._directory = Path(directory)
        return classifier

    @classmethod
    def from_folded(
        cls, folded: FoldedModel, *, vocabulary: Vocabulary | None = None, threads: int = 1
    ) -> Classifier:
        """A classifier of a model in memory; the vocabulary only serves `ngrams` and `save`."""
        return cls(folded, ngrams=vocabulary.ngrams if vocabulary else None, threads=threads)

    @property
    def classes_(self) -> tuple[str, ...]:
        """The labels, in the order of the columns of `predict_proba`."""
        return self._folded.labels

    @property
    def folded(self) -> FoldedModel:
        """The model behind it."""
        return self._folded

    @property
    def ngrams(self) -> TextBuffer | None:
        """The known n-grams by row, read when first asked for; None if the model has none saved.

        Raises:
            ModelFileError: The file is damaged.
        """
        if self._ngrams is None and self._directory is not None:
            self._ngrams = load_ngrams(self._directory)
        return self._ngrams

    def save(self, directory: str | Path) -> None:
        """Write the model's directory; the same model gives the same bytes."""
        save_model(directory, self._folded, self.ngrams, training=self.training)

    @overload
    def predict(self, texts: str) -> str: ...  # type: ignore[overload-overlap] # str is Iterable
    @overload
    def predict(self, texts: Iterable[str] | TextBuffer) -> list[str]: ...
    def predict(self, texts: str | Iterable[str] | TextBuffer) -> str | list[str]:
        """The most probable label of each text.

        Raises:
            DataError: A row is not a string, or is one that has no UTF-8 form.
        """
        labels = [
            self.classes_[best]
            for logits in self._logits(texts)
            for best in logits.argmax(axis=1).tolist()
        ]
        return labels[0] if isinstance(texts, str) else labels

    def predict_proba(self, texts: str | Iterable[str] | TextBuffer) -> NDArray[np.float32]:
        """The probability of each class, float32[texts, classes] (or [classes] for one text).

        Rows sum to 1. They are the softmax, in float64, of the logits divided by the temperature
        that was fitted on held-out data.

        Raises:
            DataError: As for `predict`.
        """
        empty = np.zeros((0, len(self.classes_)), np.float32)
        temperature = self._folded.temperature
        rows = [softmax(logits, temperature).astype(np.float32) for logits in self._logits(texts)]
        probabilities: NDArray[np.float32] = np.concatenate([empty, *rows])
        return probabilities[0] if isinstance(texts, str) else probabilities

    @overload
    def predict_topk(  # type: ignore[overload-overlap] # str is Iterable
        self, texts: str, k: int
    ) -> list[tuple[str, float]]: ...
    @overload
    def predict_topk(
        self, texts: Iterable[str] | TextBuffer, k: int
    ) -> list[list[tuple[str, float]]]: ...
    def predict_topk(
        self, texts: str | Iterable[str] | TextBuffer, k: int
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """The `k` most probable labels of each text with their probabilities, best first.

        Args:
            texts: One text or many.
            k: Labels per text; all of them if there are fewer.

        Raises:
            ConfigError: `k` is less than 1.
            DataError: As for `predict`.
        """
        if k < 1:
            raise ConfigError(f"k must be 1 or more, not {k}")
        probabilities = np.atleast_2d(self.predict_proba(texts))
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        result = [
            [(self.classes_[c], float(row[c])) for c in chosen]
            for row, chosen in zip(probabilities, best.tolist(), strict=True)
        ]
        return result[0] if isinstance(texts, str) else result

    def explain(self, text: str) -> Explanation:
        """What each n-gram of a text adds to the logit of each class; see `Explanation`."""
        return explanation.explain(self._folded, TextBuffer.from_strings([text]))

    def _logits(self, texts: str | Iterable[str] | TextBuffer) -> Iterator[NDArray[np.float32]]:
        return (self._folded.logits(part, threads=self.threads) for part in _buffers(texts))


def _buffers(texts: str | Iterable[str] | TextBuffer) -> Iterator[TextBuffer]:
    if isinstance(texts, TextBuffer):
        yield texts
        return
    if not isinstance(texts, Iterable):
        raise DataError(f"expected a text or many, got {type(texts).__name__}")
    if isinstance(texts, np.ndarray) and texts.ndim != 1:
        raise DataError(f"expected an array of one dimension, got {texts.ndim}")
    rows = iter([texts] if isinstance(texts, str) else texts)
    first = 0
    while chunk := list(islice(rows, CHUNK)):
        yield TextBuffer.from_strings(chunk, first_row=first)
        first += len(chunk)
