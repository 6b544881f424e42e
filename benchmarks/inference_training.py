"""The peers that `inference.py` compares with, trained on the same labelled texts and kept.

Settings are chosen on `dev`. Where `dev` was cut out of `train`, the chosen settings are then used
once more on both together, which our student has no use of: so a peer is not the worse for having
been compared. A model is kept under a name made of all that it depends on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import tempfile
import time
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from inference_peers import PREPARE, vector_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from tasks.dataset import Split

    Settings = dict[str, Any]

SIZES = {"dim": 100, "bucket": 2_000_000}
RATES = (0.1, 0.3, 1.0)
# Of fastText, and at most of model2vec's classifier.
EPOCHS = (5, 20)
# Where there is much to read, fewer settings are tried: those that were best where it is little.
LARGE, LARGE_EPOCHS, LARGE_STRENGTHS = 10_000_000, (4, 10), (8.0, 32.0)
PATTERNS = (r"(?u)\b\w\w+\b", r"(?u)\w+|[^\w\s]")
MIN_COUNTS, STRENGTHS = (1, 2), (2.0, 8.0, 32.0, 128.0)
# Of model2vec's own classifier: hidden layers, learning rate.
HEADS = ((0, 1e-3), (1, 1e-3))


@dataclass(frozen=True, slots=True)
class Task:
    """Labelled texts, and how they are made ready for fastText.

    Attributes:
        name: As in `inference.TASKS`.
        splits: `train`, `dev` and `test`.
        dev_is_cut: `dev` was cut out of `train`.
        prepare: Which of `PREPARE`.
    """

    name: str
    splits: dict[str, Split]
    dev_is_cut: bool
    prepare: str

    @property
    def epochs(self) -> tuple[int, ...]:
        """How often training may go through the texts."""
        return LARGE_EPOCHS if self.large else EPOCHS

    @property
    def large(self) -> bool:
        """Whether there is much to read."""
        return sum(map(len, self.splits["train"].texts)) > LARGE

    @property
    def strengths(self) -> tuple[float, ...]:
        """Inverse regularisation of logistic regression."""
        return LARGE_STRENGTHS if self.large else STRENGTHS

    @property
    def patterns(self) -> tuple[str, ...]:
        """Token patterns of TF-IDF."""
        return PATTERNS[:1] if self.large else PATTERNS

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.splits["train"].label_names)

    def texts(self, split: str) -> list[str]:
        """Return the texts of `train`, `dev`, `test`, or `all` of the first two."""
        if split == "all":
            return self.texts("train") + (self.texts("dev") if self.dev_is_cut else [])
        return list(self.splits[split].texts)

    def truth(self, split: str) -> NDArray[np.int64]:
        """Return the classes, by text."""
        if split == "all":
            parts = ["train", "dev"] if self.dev_is_cut else ["train"]
            return np.concatenate([self.truth(part) for part in parts])
        return np.array(self.splits[split].labels, np.int64)


def kept(cache: Path, name: str, task: Task | None, settings: Settings) -> tuple[Path, bool]:
    """Return where a model with these settings is kept, and whether it is there."""
    digests = [task.splits[split].digest() for split in ("train", "dev")] if task else []
    key = hashlib.sha256(json.dumps([digests, settings]).encode()).hexdigest()[:12]
    directory = cache / f"{task.name + '-' if task else ''}{name}-{key}"
    return directory, (directory / "settings.json").exists()


def keep(directory: Path, about: Settings) -> None:
    """Say that a model is complete, and how it was chosen."""
    (directory / "settings.json").write_text(json.dumps(about, indent=1), "utf-8")


def train_fasttext(task: Task, cache: Path, ngrams: int, threads: int) -> Path:
    """Return the directory of fastText's model of word n-grams up to so many."""
    import fasttext

    grid = {"rates": RATES, "epochs": task.epochs, **SIZES, "wordNgrams": ngrams}
    grid |= {"prepare": task.prepare, "version": version("fasttext-wheel")}
    directory, there = kept(cache, f"fasttext-{ngrams}", task, grid)
    if there:
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    prepare, start = PREPARE[task.prepare], time.perf_counter()
    dev = [prepare(text) + "\n" for text in task.texts("dev")]
    truth = [f"__label__{label}" for label in task.truth("dev")]

    def fit(split: str, rate: float, epochs: int) -> Any:  # noqa: ANN401
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
            rows = zip(task.truth(split), task.texts(split), strict=True)
            file.writelines(f"__label__{label} {prepare(text)}\n" for label, text in rows)
            file.flush()
            how = {"lr": rate, "epoch": epochs, "wordNgrams": ngrams, "thread": threads, **SIZES}
            return fasttext.train_supervised(file.name, verbose=0, **how)

    def score(model: Any) -> float:  # noqa: ANN401
        labels, _ = model.f.multilinePredict(dev, 1, 0.0, "strict")
        return float(np.mean([label[0] == true for label, true in zip(labels, truth, strict=True)]))

    tried = {
        (rate, epochs): score(fit("train", rate, epochs))
        for rate, epochs in itertools.product(RATES, task.epochs)
    }
    rate, epochs = best = max(tried, key=tried.__getitem__)
    fit("all", rate, epochs).save_model(str(directory / "model.bin"))
    chosen = {"lr": rate, "epoch": epochs, "wordNgrams": ngrams, "prepare": task.prepare, **SIZES}
    keep(directory, _about(chosen, tried, best, start))
    return directory


def train_tfidf(task: Task, cache: Path) -> Path:
    """Return the directory of TF-IDF(1,2) and logistic regression, as arrays."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    grid = {"patterns": task.patterns, "min_df": MIN_COUNTS, "C": task.strengths}
    grid |= {"version": version("scikit-learn")}
    directory, there = kept(cache, "tfidf", task, grid)
    if there:
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    start, tried = time.perf_counter(), {}

    def regression(strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=300, tol=1e-3)

    for pattern, least in itertools.product(task.patterns, MIN_COUNTS):
        vectors = TfidfVectorizer(min_df=least, **vector_settings(pattern))
        train = vectors.fit_transform(task.texts("train"))
        dev = vectors.transform(task.texts("dev"))
        for strength in task.strengths:
            model = regression(strength).fit(train, task.truth("train"))
            tried[pattern, least, strength] = float(
                np.mean(model.predict(dev) == task.truth("dev"))
            )
    pattern, least, strength = best = max(tried, key=tried.__getitem__)
    vectors = TfidfVectorizer(min_df=least, **vector_settings(pattern))
    model = regression(strength).fit(vectors.fit_transform(task.texts("all")), task.truth("all"))
    ngrams = {ngram: int(row) for ngram, row in vectors.vocabulary_.items()}
    (directory / "vocabulary.json").write_text(json.dumps(ngrams), "utf-8")
    arrays = {"idf": vectors.idf_, "coef": model.coef_, "intercept": model.intercept_}
    np.savez(directory / "arrays.npz", **arrays)
    chosen = {"pattern": pattern, "min_df": least, "C": strength, "features": len(ngrams)}
    keep(directory, _about(chosen, tried, best, start))
    return directory


def train_model2vec(task: Task, cache: Path, encoder: Path, threads: int) -> Path:
    """Return the directory of model2vec's best pipeline for the task.

    Its heads: logistic regression over the embeddings, and its own classifier, which trains the
    embeddings as well.
    """
    import torch

    grid = {"C": STRENGTHS, "heads": HEADS, "encoder": encoder.name}
    directory, there = kept(cache, "model2vec", task, grid | {"version": version("model2vec")})
    if there:
        return directory
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)
    start = time.perf_counter()
    pipelines: dict[tuple[Any, ...], Callable[[str], Any]] = {
        **{
            ("regression", strength): _regression(task, encoder, strength) for strength in STRENGTHS
        },
        **{("classifier", *head): _classifier(task, encoder, *head) for head in HEADS},
    }
    dev, names = task.texts("dev"), np.array(task.labels, object)[task.truth("dev")]
    tried = {
        key: float(np.mean(fit("train").predict(dev).astype(object) == names))
        for key, fit in pipelines.items()
    }
    best = max(tried, key=tried.__getitem__)
    pipelines[best]("all").save_pretrained(str(directory))
    keep(directory, _about({"head": best}, tried, best, start))
    return directory


def _regression(task: Task, encoder: Path, strength: float) -> Callable[[str], Any]:
    def fit(split: str) -> Any:  # noqa: ANN401
        from model2vec.inference import StaticModelPipeline
        from model2vec.inference.mlp import Activation, Layer, MLPHead
        from model2vec.model import StaticModel
        from sklearn.linear_model import LogisticRegression

        static = StaticModel.from_pretrained(encoder)
        found = LogisticRegression(C=strength, max_iter=2000)
        found.fit(static.encode(task.texts(split)), task.truth(split))
        weight, bias = found.coef_, found.intercept_
        if len(weight) == 1:
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        layer = Layer(weight.astype(np.float32), bias.astype(np.float32))
        return StaticModelPipeline(
            static, MLPHead([layer], Activation.SOFTMAX, np.array(task.labels))
        )

    return fit


def _classifier(task: Task, encoder: Path, layers: int, rate: float) -> Callable[[str], Any]:
    def fit(split: str) -> Any:  # noqa: ANN401
        del split  # it stops where dev says, so dev is never trained on
        from model2vec.train import StaticModelForClassification

        names = np.array(task.labels, object)
        model = StaticModelForClassification.from_pretrained(encoder, n_layers=layers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(
                task.texts("train"),
                names[task.truth("train")].tolist(),
                X_val=task.texts("dev"),
                y_val=names[task.truth("dev")].tolist(),
                learning_rate=rate,
                max_epochs=max(task.epochs),
                early_stopping_patience=2,
                device="cpu",
            )
        return model.to_pipeline()

    return fit


def distil_encoder(cache: Path, encoder: Path, threads: int) -> Path:
    """Return the directory of the static model that model2vec makes of an encoder."""
    import torch
    from model2vec.distill import distill

    directory, there = kept(
        cache, "static", None, {"encoder": encoder.parent.name, "version": version("model2vec")}
    )
    if there:
        return directory
    torch.set_num_threads(threads)
    start = time.perf_counter()
    # float32: float16, the default, is the same accuracy and the slower on a CPU.
    distill(str(encoder), device="cpu", quantize_to="float32").save_pretrained(directory)
    keep(directory, {"seconds": time.perf_counter() - start})
    return directory


def stand_in_teacher(task: Task, cache: Path, encoder: Path) -> Path:
    """Return the directory of the encoder with an untrained head: as fast as a trained teacher."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    directory, there = kept(cache, "teacher", task, {"encoder": encoder.parent.name})
    if there:
        return directory
    names = dict(enumerate(task.labels))
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, id2label=names, label2id={name: index for index, name in names.items()}
    )
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(directory)
    keep(directory, {})
    return directory


def convert_student(model: Path, cache: Path, dtype: str) -> Path:
    """Return the directory of our model with a table of this type."""
    from sparsedistill.classifier import Classifier
    from sparsedistill.model_format import CONFIG_FILE

    digest = hashlib.sha256((model / CONFIG_FILE).read_bytes()).hexdigest()
    directory, there = kept(cache, f"student-{dtype}", None, {"digest": digest})
    if there:
        return directory
    ours = Classifier.load(model)
    Classifier(
        ours.folded.converted(dtype), ngrams=ours.ngrams, training=ours.training
    ).save_pretrained(directory)
    keep(directory, {})
    return directory


def _about(
    chosen: Settings, tried: dict[Any, float], best: tuple[Any, ...], start: float
) -> Settings:
    return {
        **chosen,
        "dev_accuracy": tried[best],
        "tried": [[*key, score] for key, score in tried.items()],
        "seconds": time.perf_counter() - start,
    }
