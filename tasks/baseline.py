"""The baseline everyone knows: TF-IDF over words and bigrams, and logistic regression.

It is trained on the labels of ``train`` alone, with scikit-learn's own tools, its one setting
chosen on ``dev``. What is kept is what it says of ``dev`` and ``test``, and how fast; not the
model.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors.numpy import save_file

from sparsedistill.errors import DataError
from sparsedistill.metrics import accuracy
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.shards import Texts, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

KIND, VERSION = "baseline", 1
FILE = "predictions.safetensors"


class BaselineConfig(Table):
    """``[baseline]``: TF-IDF and logistic regression, to compare with."""

    enabled: bool = True
    max_ngram: int = Field(2, ge=1, le=4)
    strengths: tuple[float, ...] = Field(
        (1.0, 4.0, 16.0), min_length=1, description="C of the logistic regression; the best on dev"
    )


def jobs(config: BaselineConfig, splits: dict[str, Made]) -> list[Job]:
    """Return the one job of the baseline, or none where it is not wanted."""
    if not config.enabled:
        return []
    inputs = {name: (made.as_input(),) for name, made in splits.items()}
    return [Job(Recipe(KIND, VERSION, config.model_dump(mode="json"), inputs), label="tfidf_lr")]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Fit on ``train``, choose on ``dev``, predict both ``dev`` and ``test``."""
    config = BaselineConfig.model_validate(dict(job.recipe.config))
    train, dev, test = (
        read_shard(store, single_input(job.recipe, name)) for name in ("train", "dev", "test")
    )
    best: tuple[float, float, Pipeline] | None = None
    for number, strength in enumerate(config.strengths):
        model = _fit(train, config, strength)
        score = accuracy(_labels(dev), model.predict(list(dev.texts)))
        if best is None or score > best[0]:
            best = (score, strength, model)
        progress((number + 1) / (len(config.strengths) + 1))
    assert best is not None  # noqa: S101 - strengths is never empty
    score, strength, model = best
    predictions = {
        "dev": model.predict(list(dev.texts)).astype(np.int64),
        "test": model.predict(list(test.texts)).astype(np.int64),
    }
    save_file(predictions, writer.path(FILE))
    writer.statistics.update(
        strength=strength,
        dev_accuracy=score,
        bytes=_size(model),
        texts_per_second=_speed(model, list(test.texts)),
    )


STAGE = Stage(KIND, VERSION, build)


def _fit(train: Texts, config: BaselineConfig, strength: float) -> Pipeline:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, config.max_ngram), sublinear_tf=True),
        LogisticRegression(C=strength, max_iter=300),
    )
    with warnings.catch_warnings():
        # A fit cut short at 300 rounds still counts: dev decides.
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return model.fit(list(train.texts), _labels(train))
        except ValueError as error:
            raise DataError(
                f"TF-IDF + LR cannot be fitted on train: {error}; to run without this baseline, "
                "set [baseline] enabled = false"
            ) from error


def _labels(texts: Texts) -> npt.NDArray[np.int64]:
    if texts.labels is None:
        raise DataError("the baseline needs labelled rows")
    return texts.labels


def _size(model: Pipeline) -> int:
    """Return the bytes of what the model must keep: weights, IDF, and the words themselves."""
    vectorizer, regression = model[0], model[-1]
    words = sum(len(word.encode()) for word in vectorizer.vocabulary_)
    return int(regression.coef_.nbytes + vectorizer.idf_.nbytes + words)


def _speed(model: Pipeline, texts: list[str]) -> float:
    """Return texts a second, text to label, in one thread: the best of three passes."""
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        model.predict(texts)
        best = min(best, time.perf_counter() - started)
    return len(texts) / best
