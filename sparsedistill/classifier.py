"""The run-time classifier: texts in, labels out; all that an application needs to know."""

from __future__ import annotations

from collections.abc import Sized
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from sparsedistill import explanation
from sparsedistill.answers import Answers, kept_rows
from sparsedistill.errors import ConfigError
from sparsedistill.metrics import softmax
from sparsedistill.model_format import load_model, load_ngrams, read_config, save_model
from sparsedistill.parallel import map_ahead
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.inputs import PIECE, Texts, buffers, encoded, one_by_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from sparsedistill.answers import Answer, Threshold
    from sparsedistill.explanation import Explanation
    from sparsedistill.folded import FoldedModel, Scores
    from sparsedistill.model_format import ModelConfig
    from sparsedistill.vocabulary import Vocabulary

# Fewest texts that a thread is given at a time.
_LEAST = 128


class Classifier:
    """A finished student. Safe to use from several threads at once.

    Texts are one `str`, or many: a list, an array of NumPy or Arrow, a Polars series, a
    `TextBuffer`, any iterable; an iterator is read in pieces of 4096 texts. What begins with
    `predict` gives one result for one text, and a result for each of many.

    Attributes:
        threads: How many threads a call may use; results do not depend on it.
        training: What the model's directory says of where it comes from.
        thresholds: Below which probability to abstain, by label, as fitted on held-out rows when
            the model was made; applied only where a call is given them as `abstain_below`.
        reference: What texts of the training corpus looked like to this model, for `drift`.

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
        thresholds: Mapping[str, float] | None = None,
        reference: Mapping[str, Any] | None = None,
        threads: int = 1,
    ) -> None:
        if threads < 1:
            raise ConfigError(f"threads must be 1 or more, not {threads}")
        self.threads = threads
        self.training = dict(training or {})
        self.thresholds = dict(thresholds or {})
        self.reference = dict(reference or {})
        self._folded = folded
        self._ngrams = ngrams
        self._saved: tuple[Path, ModelConfig] | None = None

    @classmethod
    def load(cls, directory: str | Path, *, threads: int = 1, verify: bool = False) -> Classifier:
        """Load a model's directory; runs nothing that is in it.

        Args:
            directory: As the `package` stage or `save_pretrained` wrote it.
            threads: How many threads a call may use.
            verify: Also compare the table with its checksum, which reads all of it. Every other
                file is compared in any case.

        Raises:
            ModelFileError: A file is missing, damaged or newer; names the file and the reason.
        """
        config = read_config(directory)
        classifier = cls(
            load_model(directory, config=config, verify=verify),
            training=config.training,
            thresholds=config.thresholds,
            reference=config.reference,
            threads=threads,
        )
        classifier._saved = Path(directory), config
        return classifier

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache: str | Path | None = None,
        threads: int = 1,
        verify: bool = False,
    ) -> Classifier:
        """Load a model from a directory, a URL or the Hugging Face hub.

        What is not here yet is fetched, its checksums compared, and kept.

        Args:
            name: A directory; a URL that fsspec reads (`https://`, `s3://`, ...); or the id of a
                repository on the hub, `owner/name`.
            revision: Branch, tag or commit on the hub.
            token: For the hub, where its own ways to find one do not serve.
            cache: Where fetched models are kept; `~/.cache/sparsedistill` if not given.
            threads: How many threads a call may use.
            verify: As for `load`.

        Raises:
            ModelFileError: As for `load`, or it cannot be fetched.
        """
        from sparsedistill.remote import fetch_model

        directory = fetch_model(name, revision=revision, token=token, cache=cache)
        return cls.load(directory, threads=threads, verify=verify)

    @classmethod
    def from_folded(
        cls, folded: FoldedModel, *, vocabulary: Vocabulary | None = None, threads: int = 1
    ) -> Classifier:
        """A classifier of a model in memory; the vocabulary only serves `ngrams` and saving."""
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
            ModelFileError: The file is damaged, or another model's by now.
        """
        if self._ngrams is None and self._saved is not None:
            self._ngrams = load_ngrams(*self._saved)
        return self._ngrams

    def save_pretrained(self, directory: str | Path) -> None:
        """Write the model's directory; the same model gives the same bytes."""
        save_model(
            directory,
            self._folded,
            self.ngrams,
            training=self.training,
            thresholds=self.thresholds,
            reference=self.reference,
        )

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        token: str | None = None,
        message: str = "Upload a sparsedistill model",
    ) -> str:
        """Upload model and model card to the Hugging Face hub; returns the address.

        Args:
            repository: `owner/name`; made if it is not there.
            private: Whether a repository that is made is private.
            token: For the hub, where its own ways to find one do not serve.
            message: Of the commit.

        Raises:
            ConfigError: The hub cannot be reached, or refuses.
        """
        import tempfile

        from sparsedistill.remote import push_model

        with tempfile.TemporaryDirectory(prefix="sparsedistill-") as directory:
            self.save_pretrained(directory)
            return push_model(directory, repository, private=private, token=token, message=message)

    @overload
    def predict(  # type: ignore[overload-overlap] # str is Iterable
        self, texts: str, *, abstain_below: None = None
    ) -> str: ...
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, texts: str, *, abstain_below: Threshold
    ) -> str | None: ...
    @overload
    def predict(self, texts: Texts, *, abstain_below: None = None) -> list[str]: ...
    @overload
    def predict(self, texts: Texts, *, abstain_below: Threshold) -> list[str | None]: ...
    def predict(self, texts: Texts, *, abstain_below: Threshold | None = None) -> Any:
        """The most probable label of each text.

        Args:
            texts: One text or many.
            abstain_below: Where the most probable label is less probable than this (a number for
                all labels, or a mapping from label to number), the answer is None.

        Raises:
            DataError: A row is not a string, or is one that has no UTF-8 form.
            ConfigError: A threshold is not between 0 and 1, or is for no label of the model.
        """
        if abstain_below is not None:
            labels = self.answers(texts, abstain_below=abstain_below).labels
            return labels[0] if isinstance(texts, str) else labels
        if isinstance(texts, str):
            return self.classes_[int(self._folded.run_one(encoded(texts)).argmax())]
        names = np.array(self.classes_, object)
        return [
            label
            for scores in self._scores(texts)
            for label in names[scores.logits.argmax(axis=1)].tolist()
        ]

    def predict_proba(self, texts: Texts) -> NDArray[np.float32]:
        """The probability of each class, float32[texts, classes] (or [classes] for one text).

        Rows sum to 1. They are the softmax, in float64, of the logits divided by the temperature
        that was fitted on held-out data.

        Raises:
            DataError: As for `predict`.
        """
        probabilities = self.answers(texts).probabilities
        return probabilities[0] if isinstance(texts, str) else probabilities

    @overload
    def predict_topk(  # type: ignore[overload-overlap] # str is Iterable
        self, texts: str, k: int
    ) -> list[tuple[str, float]]: ...
    @overload
    def predict_topk(self, texts: Texts, k: int) -> list[list[tuple[str, float]]]: ...
    def predict_topk(
        self, texts: Texts, k: int
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
        result: list[list[tuple[str, float]]] = []
        for scores in self._scores(texts):
            best = np.argsort(-scores.logits, axis=1, kind="stable")[:, :k]
            shares = softmax(scores.logits, self._folded.temperature).astype(np.float32)
            result += [
                [(self.classes_[c], float(row[c])) for c in chosen]
                for row, chosen in zip(shares, best.tolist(), strict=True)
            ]
        return result[0] if isinstance(texts, str) else result

    def answers(self, texts: Texts, *, abstain_below: Threshold | None = None) -> Answers:
        """Labels, probabilities and coverage of texts, all of one pass.

        Args:
            texts: Many texts; one counts as many of one.
            abstain_below: As for `predict`.

        Raises:
            DataError: As for `predict`.
            ConfigError: As for `predict`.
        """
        shares = [np.zeros((0, len(self.classes_)), np.float32)]
        coverage = [np.zeros(0, np.float32)]
        best = [np.zeros(0, np.int64)]
        for scores in self._scores(texts):
            tempered = softmax(scores.logits, self._folded.temperature)
            shares.append(tempered.astype(np.float32))
            coverage.append(scores.coverage)
            # Of the logits: probabilities that differ may be equal as float32.
            best.append(scores.logits.argmax(axis=1))
        probabilities: NDArray[np.float32] = np.concatenate(shares)
        most_probable = np.concatenate(best)
        return Answers(
            classes=self.classes_,
            probabilities=probabilities,
            best=most_probable,
            kept=kept_rows(self.classes_, probabilities, most_probable, abstain_below),
            coverage=np.concatenate(coverage),
        )

    def stream(self, texts: Texts, *, abstain_below: Threshold | None = None) -> Iterator[Answer]:
        """The answer to each text, in order and in constant memory, while texts come.

        Texts are taken 4096 at a time; `answers` says the rest.
        """
        rows = one_by_one(texts)
        while part := list(islice(rows, PIECE)):
            yield from self.answers(part, abstain_below=abstain_below)

    def coverage(self, texts: Texts) -> NDArray[np.float32]:
        """The share of each text's n-grams that the model knows, float32[texts].

        0 for a text without any. What lies beyond `max_ngrams` known ones is not counted.
        """
        return self.answers(texts).coverage

    def explain(self, text: str) -> Explanation:
        """What each n-gram of a text adds to the logit of each class; see `Explanation`."""
        return explanation.explain(self._folded, TextBuffer.from_strings([text]))

    def _scores(self, texts: Texts) -> Iterator[Scores]:
        """What the model finds in the texts, in order, a piece at a time.

        Pieces are answered in threads while the next ones are encoded.
        """
        piece = _piece(texts, self.threads)
        alone = isinstance(texts, str) or (isinstance(texts, Sized) and len(texts) <= piece)
        pieces = buffers(texts, piece=piece)
        return map_ahead(self._folded.run, pieces, threads=1 if alone else self.threads)


def _piece(texts: Texts, threads: int) -> int:
    """How many texts a piece has: few enough that every thread gets some."""
    if threads == 1 or not isinstance(texts, Sized):
        return PIECE
    return min(PIECE, max(_LEAST, -(-len(texts) // (4 * threads))))
