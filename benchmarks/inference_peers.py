"""What `inference.py` compares: ours and the peers, each to be asked in a process of its own.

A contender takes many texts or one and gives labels, whatever it needs for that (cutting texts into
words, say) inside. `Worker` runs it in a fresh process, so that no contender has another's threads,
memory or imports, and times it there; between its turns it sleeps.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

# Parts per process, where a peer is given two: the first to finish takes the next.
_PARTS = 4
_PUNCTUATION = ".,!?\"'()-;:/<>&*"


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table.

    Attributes:
        name: Of the library and model.
        variant: What tells it from its other rows.
        kind: Which of `OPEN`.
        path: Its model.
        labels: Names of the task's classes.
        threads: At most this many.
        processes: More than one: so many copies share the texts.
        prepare: How texts are made ready for fastText, which knows only white space.
        prepared: That is done before the clock starts.
        texts: The first so many of texts spread over the test set; 0 for all.
        precision: Of the teacher.
    """

    name: str
    variant: str
    kind: str
    path: str
    labels: tuple[str, ...]
    threads: int = 1
    processes: int = 1
    prepare: str = "none"
    prepared: bool = False
    texts: int = 0
    precision: str = "float32"


class Model(Protocol):
    """What every contender can do."""

    def batch(self, texts: list[str]) -> list[str]:
        """Return the label of each text."""

    def single(self, text: str) -> str:
        """Return the label of one text."""


class Student:
    """Our packaged model."""

    def __init__(self, contender: Contender) -> None:
        from sparsedistill.classifier import Classifier

        self._classifier = Classifier.load(contender.path, threads=contender.threads)
        self.batch: Callable[[list[str]], list[str]] = self._classifier.predict
        self.single: Callable[[str], str] = self._classifier.predict


class FastText:
    """By the calls into its C++ code: the Python around them breaks with NumPy 2, and takes longer.

    They hold the GIL, so threads gain nothing: where it gets two cores, it gets two processes.
    """

    def __init__(self, contender: Contender) -> None:
        import fasttext

        path = str(Path(contender.path) / "model.bin")
        self._model = fasttext.FastText._FastText(model_path=path).f
        self._names = {f"__label__{i}": name for i, name in enumerate(contender.labels)}
        self._prepare = PREPARE["none" if contender.prepared else contender.prepare]

    def single(self, text: str) -> str:
        """Return the label of one text."""
        found = self._model.predict(self._prepare(text) + "\n", 1, 0.0, "strict")
        return self._names[found[0][1]]

    def batch(self, texts: list[str]) -> list[str]:
        """Return the label of each text."""
        prepare = self._prepare
        lines = [prepare(text) + "\n" for text in texts]
        labels, _ = self._model.multilinePredict(lines, 1, 0.0, "strict")
        return [self._names[label[0]] for label in labels]


class TfIdf:
    """TF-IDF and logistic regression of scikit-learn, put together again from arrays."""

    def __init__(self, contender: Contender) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        directory = Path(contender.path)
        made = json.loads((directory / "settings.json").read_text("utf-8"))
        arrays = np.load(directory / "arrays.npz")
        ngrams = json.loads((directory / "vocabulary.json").read_text("utf-8"))
        self._vectors = TfidfVectorizer(vocabulary=ngrams, **vector_settings(made["pattern"]))
        self._vectors.idf_ = arrays["idf"]
        self._regression = LogisticRegression()
        self._regression.coef_, self._regression.intercept_ = arrays["coef"], arrays["intercept"]
        self._regression.classes_ = np.arange(len(contender.labels))
        self._names = np.array(contender.labels, object)

    def batch(self, texts: list[str]) -> list[str]:
        """Return the label of each text."""
        labels: list[str] = self._names[
            self._regression.predict(self._vectors.transform(texts))
        ].tolist()
        return labels

    def single(self, text: str) -> str:
        """Return the label of one text."""
        return self.batch([text])[0]


class Model2Vec:
    """A static model of the encoder's tokens, with a head; its own pipeline."""

    def __init__(self, contender: Contender) -> None:
        from model2vec.inference import StaticModelPipeline

        self._pipeline = StaticModelPipeline.from_pretrained(contender.path)
        self._own_threads = contender.threads > 1

    def batch(self, texts: list[str]) -> list[str]:
        """Return the label of each text."""
        labels: list[str] = self._pipeline.predict(
            texts, use_multiprocessing=self._own_threads
        ).tolist()
        return labels

    def single(self, text: str) -> str:
        """Return the label of one text."""
        return self.batch([text])[0]


class TeacherModel:
    """The teacher in batches of like length, as the pipeline asks it."""

    def __init__(self, contender: Contender) -> None:
        from sparsedistill.teacher.labelling import LabellingOptions, Teacher

        options: dict[str, Any] = {"precision": contender.precision, "threads": contender.threads}
        self._labels = contender.labels
        self._teacher = Teacher(
            contender.path,
            labels=contender.labels,
            options=LabellingOptions(max_length=512, device="cpu", **options),
        )

    def batch(self, texts: list[str]) -> list[str]:
        """Return the label of each text."""
        return [self._labels[best] for best in self._teacher.logits(texts).argmax(axis=1)]

    def single(self, text: str) -> str:
        """Return the label of one text."""
        return self.batch([text])[0]


OPEN: dict[str, Callable[[Contender], Model]] = {
    "student": Student,
    "fasttext": FastText,
    "tfidf": TfIdf,
    "model2vec": Model2Vec,
    "teacher": TeacherModel,
}


class Copies:
    """Some processes, each with the model, that share the texts."""

    def __init__(self, contender: Contender) -> None:
        self._pool = ProcessPoolExecutor(
            contender.processes,
            multiprocessing.get_context("spawn"),
            initializer=_open_copy,
            initargs=(replace(contender, processes=1),),
        )
        self._parts = contender.processes * _PARTS

    def batch(self, texts: list[str]) -> list[str]:
        """Return the label of each text."""
        parts = self._pool.map(_ask_copy, cut(texts, self._parts))
        return [label for part in parts for label in part]

    def single(self, text: str) -> str:
        """Return the label of one text."""
        return self.batch([text])[0]

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()


_copy: list[Model] = []


def _open_copy(contender: Contender) -> None:
    _copy[:] = [OPEN[contender.kind](contender)]


def _ask_copy(texts: list[str]) -> list[str]:
    return _copy[0].batch(texts)


def cut(texts: list[str], parts: int) -> list[list[str]]:
    """Return the texts in so many parts, in order."""
    size = max(1, -(-len(texts) // parts))
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def vector_settings(pattern: str) -> dict[str, Any]:
    """Return what every TF-IDF here is made with."""
    return {
        "token_pattern": pattern,
        "ngram_range": (1, 2),
        "sublinear_tf": True,
        "dtype": np.float32,
    }


def split_punctuation(text: str) -> str:
    """Return the text in lower case, a space on both sides of each ASCII mark.

    Of three ways (a regular expression, `str.translate`) this one is the fastest, by a factor of 4.
    """
    text = text.lower().replace("\n", " ")
    for mark in _PUNCTUATION:
        text = text.replace(mark, f" {mark} ")
    return text


PREPARE: dict[str, Callable[[str], str]] = {
    "none": str,
    "lower": str.lower,
    "split": split_punctuation,
}


# What runs in a process of its own.


def serve(connection: Connection, contender: Contender) -> None:
    """Open a contender and do what is asked, until asked to end."""
    try:
        model = Copies(contender) if contender.processes > 1 else OPEN[contender.kind](contender)
        many: list[str] = []
        few: list[str] = []
        while True:
            command, *given = connection.recv()
            if command == "texts":
                many, few = ([_given(contender, text) for text in texts] for texts in given)
                connection.send(None)
            elif command == "labels":
                connection.send(model.batch([_given(contender, text) for text in given[0]]))
            elif command == "singles":
                connection.send([model.single(_given(contender, text)) for text in given[0]])
            elif command == "many":
                connection.send(seconds_of_batch(model, many))
            elif command == "few":
                connection.send(seconds_of_singles(model, few))
            else:
                break
        if isinstance(model, Copies):
            model.close()
    except Exception as error:
        connection.send(error)
        raise


def _given(contender: Contender, text: str) -> str:
    return PREPARE[contender.prepare](text) if contender.prepared else text


def seconds_of_batch(model: Model, texts: list[str]) -> float:
    """Return how long one call over all texts takes."""
    start = time.perf_counter()
    model.batch(texts)
    return time.perf_counter() - start


def seconds_of_singles(model: Model, texts: list[str]) -> list[float]:
    """Return how long each of the texts takes, one call after the other."""
    clock, single, seconds = time.perf_counter_ns, model.single, []
    for text in texts:
        start = clock()
        single(text)
        seconds.append(clock() - start)
    return [taken / 1e9 for taken in seconds]


class Worker:
    """A contender in its process."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        with _environment(contender.threads):
            self._process = context.Process(target=serve, args=(other, contender))
            self._process.start()
        other.close()

    def ask(self, command: str, *given: Any) -> Any:  # noqa: ANN401
        """Have something done, and return what comes of it."""
        self._connection.send((command, *given))
        try:
            answer = self._connection.recv()
        except EOFError:
            answer = RuntimeError("its process ended")
        if isinstance(answer, Exception):
            name = f"{self.contender.name}, {self.contender.variant}"
            raise SystemExit(f"{name}: {type(answer).__name__}: {answer}")
        return answer

    def close(self) -> None:
        """End the process."""
        self._connection.send(("end",))
        self._process.join()


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Have processes that start now keep their libraries to so many threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    change = dict.fromkeys(names, str(threads))
    change["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    before = {name: os.environ.get(name) for name in change}
    os.environ.update(change)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def spread(texts: Sequence[str], count: int) -> list[int]:
    """Return which of the texts make `count` of them, spread evenly; all for 0."""
    if not count or count >= len(texts):
        return list(range(len(texts)))
    return np.linspace(0, len(texts) - 1, count).astype(int).tolist()
