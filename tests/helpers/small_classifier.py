"""A classifier of a few words, made without any training, and its directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsedistill.classifier import Classifier
from sparsedistill.folded import FoldedModel
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary

NGRAMS = ["good", "bad", "film", "not", "not good", "a good film", "東京", "istanbul"]
LABELS = ("negative", "positive", "so-so, or neither")


def small_classifier(
    labels: tuple[str, ...] = LABELS, *, thresholds: dict[str, float] | None = None
) -> Classifier:
    """A classifier with a clear answer to most texts of these words."""
    random = np.random.default_rng(7)
    vocabulary = Vocabulary.from_ngrams(NgramSpec(), NGRAMS)
    folded = FoldedModel(
        labels=labels,
        spec=vocabulary.spec,
        index=vocabulary.index,
        max_ngrams=2048,
        table=random.standard_normal((len(NGRAMS), 16)).astype(np.float32),
        hidden_bias=random.standard_normal(16).astype(np.float32),
        head_weight=random.standard_normal((len(labels), 16)).astype(np.float32),
        head_bias=np.zeros(len(labels), np.float32),
        temperature=1.5,
    )
    return Classifier(
        folded,
        ngrams=vocabulary.ngrams,
        training={"name": "small", "inputs": {"student": "abc"}},
        thresholds=thresholds,
    )


def save(directory: Path, classifier: Classifier) -> Path:
    """Save it; returns the directory."""
    classifier.save_pretrained(directory)
    return directory
