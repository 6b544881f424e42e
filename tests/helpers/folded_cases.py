"""A small model that the tests of the run-time classifier share."""

import numpy as np

from sparsedistill.folded import FoldedModel
from sparsedistill.text import oracle
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary

WORDS = ["the", "film", "was", "good", "bad", "very", "not", "of"]
NGRAMS = [*WORDS, "the film", "not good", "very bad film"]
TEXTS = [
    "The film was good",
    "not good, not good at all: a VERY bad film!",
    "",
    "nothing known here",
    "good " * 3000,
    "ΟΔΟΣ film 🙂",
]


def small_vocabulary(ngrams=NGRAMS):
    return Vocabulary.from_ngrams(NgramSpec(), ngrams)


def small_model(*, hidden=37, classes=3, activation="relu", seed=0, **changes):
    rng = np.random.default_rng(seed)
    vocabulary = small_vocabulary()
    options = {
        "labels": tuple(f"label {c}" for c in range(classes)),
        "spec": vocabulary.spec,
        "index": vocabulary.index,
        "max_ngrams": 2048,
        "table": rng.standard_normal((len(vocabulary), hidden)).astype(np.float32),
        "hidden_bias": rng.standard_normal(hidden) * 0.1,
        "head_weight": rng.standard_normal((classes, hidden)) / hidden,
        "head_bias": rng.standard_normal(classes),
        "activation": activation,
        "temperature": 1.5,
    }
    return FoldedModel(**{**options, **changes})


def formula(model, texts):
    """The model in numpy, in float64, from the strings on."""
    rows = model.rows(np.arange(len(NGRAMS))).astype(np.float64)
    hidden = []
    for text in texts:
        known = [NGRAMS.index(g) for g in oracle.ngrams(text, model.spec) if g in NGRAMS]
        known = known[: model.max_ngrams]
        hidden.append((rows[known].mean(axis=0) if known else 0) + model.hidden_bias)
    active = np.maximum(hidden, 0) if model.activation == "relu" else np.tanh(hidden)
    return active @ model.head_weight.T.astype(np.float64) + model.head_bias
