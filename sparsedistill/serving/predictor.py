"""From the bytes of a request to the bytes of its answer.

Most requests are one short text, which takes microseconds: less than to hand it to a thread and
back. They are answered where they arrive. Larger ones go to a few threads (the classifier releases
the GIL), so that a batch does not hold up the requests behind it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.serving import problems
from sparsedistill.serving.limits import Slots
from sparsedistill.serving.schema import (
    Explanation,
    LabelProbability,
    ManyPredictions,
    NgramWeight,
    OnePrediction,
    Prediction,
    PredictRequest,
    request_model,
)
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.recovery import ngram_strings
from sparsedistill.text.tokens import token_hashes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sparsedistill.answers import Answers, Threshold
    from sparsedistill.classifier import Classifier
    from sparsedistill.serving.metrics import Metrics
    from sparsedistill.serving.settings import Settings

# Bodies up to this size are answered on the event loop: about 60 short texts.
DIRECT_BYTES = 4096
# Digits of probabilities after the point. float32 has about seven that mean anything.
_DIGITS = 6


class Answer(NamedTuple):
    """A response's body, and how many texts it is about."""

    body: bytes
    texts: int


class Predictor:
    """Answers requests with one classifier."""

    def __init__(self, classifier: Classifier, settings: Settings, metrics: Metrics) -> None:
        self._classifier = classifier
        self._settings = settings
        self._metrics = metrics
        self._slots = Slots(settings.max_concurrency)
        self._threads = ThreadPoolExecutor(settings.threads, "sparsedistill")
        self.request_type = request_model(settings)

    async def warm(self) -> None:
        """Have every kernel compiled, as one text and as several need them."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._warm)

    async def answer(self, body: bytes) -> Answer:
        """Answer the body of a request.

        Raises:
            ServiceError: It is no request, is over a limit, or there is no room for it.
        """
        if len(body) > DIRECT_BYTES:
            return await self._in_thread(lambda: self._answer(self._read(body)))
        request = self._read(body)
        if request.explain:
            return await self._in_thread(lambda: self._answer(request))
        return self._answer(request)

    def close(self) -> None:
        """Let the threads end when they have done what they do."""
        self._threads.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        with self._slots.one():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _answer(self, request: PredictRequest) -> Answer:
        texts = [request.text] if request.texts is None else request.texts
        # The request has one or the other.
        predictions = self._predict(texts, request)  # type: ignore[arg-type]
        name = self._settings.name
        answer = (
            OnePrediction(model=name, prediction=predictions[0])
            if request.texts is None
            else ManyPredictions(model=name, predictions=predictions)
        )
        return Answer(answer.model_dump_json(exclude_unset=True).encode(), len(texts))

    def _warm(self) -> None:
        # Past the metrics: nobody asked for these.
        self._classifier.answers(["warm"])
        self._classifier.answers(["warm", ""] * 512)
        self._classifier.explain("warm")
        text, spec = TextBuffer.from_strings(["warm"]), self._classifier.folded.spec
        # An explanation reads the strings of known n-grams off the text; it may know none here.
        with suppress(DataError):
            ngram_strings(text, spec, token_hashes(text, spec)[0])

    def _read(self, body: bytes) -> PredictRequest:
        try:
            request = self.request_type.model_validate_json(body)
        except ValidationError as error:
            raise problems.from_validation(error, max_texts=self._settings.max_texts) from None
        most = self._settings.max_text_bytes
        many = request.texts is not None
        for row, text in enumerate(request.texts or [request.text or ""]):
            # A character takes four bytes at most, so a short text need not be encoded to know.
            if 4 * len(text) > most and len(text.encode()) > most:
                raise problems.too_large(
                    "text_too_long",
                    f"{f'texts[{row}]' if many else 'text'} is longer than {most:,} bytes: cut it",
                )
        if request.explain and len(request.texts or ()) > self._settings.max_explained:
            raise problems.too_large(
                "too_many_texts",
                f"explain is for {self._settings.max_explained} texts in a request at most",
            )
        return request

    def _predict(self, texts: list[str], request: PredictRequest) -> list[Prediction]:
        try:
            answers = self._classifier.answers(texts, abstain_below=self._threshold(request))
        except ConfigError as error:
            raise problems.invalid(str(error)) from None
        self._metrics.count_answers(answers)
        shares = answers.probabilities.astype(np.float64).round(_DIGITS)
        top = shares[np.arange(len(texts)), answers.best].tolist()
        extras = self._extras(texts, request, answers, shares)
        return [
            Prediction(label=label, probability=probability, **extra)
            for label, probability, extra in zip(answers.labels, top, extras, strict=True)
        ]

    def _threshold(self, request: PredictRequest) -> Threshold | None:
        if request.abstain_below != "model":
            return request.abstain_below
        if not self._classifier.thresholds:
            raise ConfigError(
                "abstain_below: this model came without thresholds; give a number from 0 to 1"
            )
        return self._classifier.thresholds

    def _extras(
        self,
        texts: list[str],
        request: PredictRequest,
        answers: Answers,
        shares: NDArray[np.float64],
    ) -> list[dict[str, Any]]:
        extras: list[dict[str, Any]] = [{} for _ in texts]
        classes = answers.classes
        if request.top_k is not None:
            best = np.argsort(-answers.probabilities, axis=1, kind="stable")[:, : request.top_k]
            for extra, row, chosen in zip(extras, shares.tolist(), best.tolist(), strict=True):
                extra["top"] = [
                    LabelProbability(label=classes[c], probability=row[c]) for c in chosen
                ]
        if request.proba:
            for extra, row in zip(extras, shares.tolist(), strict=True):
                extra["probabilities"] = dict(zip(classes, row, strict=True))
        if request.coverage:
            coverage = answers.coverage.astype(np.float64).round(_DIGITS).tolist()
            for extra, share in zip(extras, coverage, strict=True):
                extra["coverage"] = share
        if request.explain:
            for extra, text in zip(extras, texts, strict=True):
                extra["explanation"] = self._explain(text, request.explain)
        return extras

    def _explain(self, text: str, most: int) -> Explanation:
        found = self._classifier.explain(text)
        towards = found.towards(found.label)
        ngrams = [
            NgramWeight(ngram=ngram, weight=round(weight, _DIGITS))
            for ngram, weight in towards[:most]
        ]
        return Explanation(
            label=found.label, ngrams=ngrams, omitted=max(0, len(towards) - len(ngrams))
        )
