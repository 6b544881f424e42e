"""Comparing models on labelled texts: scores, calibration, confusion, disagreements.

Functions from predictions to plain JSON, in the shape of ``summary.json``.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparsedistill.metrics import accuracy, calibration, confusion, macro_f1, softmax
from sparsedistill.text.buffers import TextBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sparsedistill.classifier import Classifier
    from sparsedistill.explanation import Explanation

Predictions = npt.NDArray[np.int64]
_SHOWN_NGRAMS = 6
_SHOWN_CHARACTERS = 600
LEAST_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ModelScore:
    """One row of the table of results; ``summary.json`` has it under these names.

    Attributes:
        model: Its name in data.
        title: Its name for people.
        accuracy: Mean over the seeds.
        accuracy_spread: Standard deviation over the seeds; None for one.
        seeds: How many there are.
        macro_f1: Mean over the seeds.
        agreement: Share of texts on which it says what the teacher says; None without a teacher.
        texts_per_second: Text to label; None where it was not measured.
        bytes: Of the model on disk.
    """

    model: str
    title: str
    accuracy: float
    accuracy_spread: float | None
    seeds: int
    macro_f1: float
    agreement: float | None
    texts_per_second: float | None
    bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return asdict(self)


def score(
    model: str,
    title: str,
    predicted: Sequence[Predictions],
    *,
    truth: Predictions,
    teacher_logits: npt.NDArray[np.float32],
    texts_per_second: float | None,
    size: int | None,
) -> ModelScore:
    """Score a model's predictions.

    Args:
        model: Its name in data.
        title: Its name for people.
        predicted: Labels int64 [rows], for each seed.
        truth: Labels int64 [rows].
        teacher_logits: float32 [rows, classes]; NaN where the teacher said nothing: then
            agreement is not measured.
        texts_per_second: As measured.
        size: Bytes on disk.
    """
    right = [accuracy(truth, one) for one in predicted]
    teacher = teacher_logits.argmax(axis=1)
    # Of a part of the texts only, agreement could be compared with nothing else in the table.
    compared = np.isfinite(teacher_logits).all() and model != "teacher"
    agreed = [accuracy(teacher, one) for one in predicted] if compared else []
    classes = teacher_logits.shape[1]
    return ModelScore(
        model=model,
        title=title,
        accuracy=float(np.mean(right)),
        accuracy_spread=float(np.std(right, ddof=1)) if len(right) > 1 else None,
        seeds=len(right),
        macro_f1=float(np.mean([macro_f1(truth, one, classes=classes) for one in predicted])),
        agreement=float(np.mean(agreed)) if agreed else None,
        texts_per_second=texts_per_second,
        bytes=size,
    )


def speed_of(answer: Callable[[list[str]], object], texts: list[str], *, passes: int = 3) -> float:
    """Return texts a second of the fastest pass, after one that only warms up.

    Few texts are answered several times in a pass, so that a pass is long enough to be timed: how
    often, the passes before it tell.
    """
    answer(texts)
    best, repeats = float("inf"), 1
    for _ in range(passes):
        started = time.perf_counter()
        for _ in range(repeats):
            answer(texts)
        best = min(best, (time.perf_counter() - started) / repeats)
        repeats = max(1, round(LEAST_SECONDS / max(best, 1e-6)))
    return len(texts) / best


def calibration_of(classifier: Classifier, texts: list[str], truth: Predictions) -> dict[str, Any]:
    """Return how far confidence and accuracy are apart, before and after the temperature."""
    logits = classifier.folded.logits(TextBuffer.from_strings(texts), threads=classifier.threads)
    temperature = classifier.folded.temperature

    def at(degree: float) -> dict[str, Any]:
        found = calibration(truth, softmax(logits, temperature=degree))
        return {"ece": found.error, "bins": [asdict(one) for one in found.bins]}

    return {
        "temperature": temperature,
        "before": at(1.0),
        "after": at(temperature),
    }


def confusion_of(
    truth: Predictions, models: Mapping[str, Predictions], labels: Sequence[str]
) -> dict[str, Any]:
    """Return counts by true and predicted label, for each model."""
    return {
        "labels": list(labels),
        "models": {
            name: confusion(truth, predicted, classes=len(labels)).tolist()
            for name, predicted in models.items()
        },
    }


def disagreements_of(
    classifier: Classifier,
    texts: list[str],
    *,
    truth: Predictions,
    teacher_logits: npt.NDArray[np.float32],
    examples: int,
) -> dict[str, Any]:
    """Return how often student and teacher are right, and texts on which they differ most surely.

    Args:
        classifier: The packaged student.
        texts: Rows.
        truth: Their labels, int64 [rows].
        teacher_logits: float32 [rows, classes].
        examples: How many texts to show.
    """
    student = classifier.predict_proba(texts)
    teacher = softmax(teacher_logits)
    says, taught = student.argmax(axis=1), teacher.argmax(axis=1)
    right, teacher_right = says == truth, taught == truth
    surety = np.where(says != taught, student.max(axis=1) * teacher.max(axis=1), -1.0)
    shown = [int(i) for i in np.argsort(-surety, kind="stable")[:examples] if surety[i] >= 0]
    labels = classifier.classes_
    return {
        "counts": {
            "both_right": int(np.sum(right & teacher_right)),
            "only_teacher": int(np.sum(~right & teacher_right)),
            "only_student": int(np.sum(right & ~teacher_right)),
            "both_wrong": int(np.sum(~right & ~teacher_right)),
        },
        "examples": [
            {
                "text": texts[i][:_SHOWN_CHARACTERS],
                "label": labels[truth[i]],
                "teacher": {"label": labels[taught[i]], "confidence": float(teacher[i].max())},
                "student": {"label": labels[says[i]], "confidence": float(student[i].max())},
                **_reasons(classifier.explain(texts[i]), labels[says[i]]),
            }
            for i in shown
        ],
    }


def _reasons(explanation: Explanation, label: str) -> dict[str, Any]:
    """Return what spoke for and against a label: the strongest n-grams, and the text's words.

    A word is where it begins and ends in the text, in characters, and what it adds.
    """
    return {
        "ngrams": [
            {"ngram": ngram, "contribution": value}
            for ngram, value in explanation.towards(label)[:_SHOWN_NGRAMS]
        ],
        "words": [
            [start, end, round(value, 4)]
            for start, end, value in explanation.words_towards(label)
            if end <= _SHOWN_CHARACTERS
        ],
    }
