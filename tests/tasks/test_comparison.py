"""What the report is told of texts on which student and teacher differ."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.small_classifier import LABELS, small_classifier

from tasks.comparison import disagreements_of

TEXTS = ["  Not good, not a good film", "bad film", "film " * 300, "qzx"]


def test_examples_say_which_words_moved_the_student():
    classifier = small_classifier()
    own = classifier.predict_proba(TEXTS).argmax(axis=1)
    # A teacher that always says something else.
    taught = (own + 1) % len(LABELS)
    logits = np.where(np.arange(len(LABELS)) == taught[:, None], 3.0, 0.0).astype(np.float32)
    found = disagreements_of(
        classifier, TEXTS, truth=own.astype(np.int64), teacher_logits=logits, examples=9
    )
    assert found["counts"]["only_student"] == len(TEXTS)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    examples = {example["text"]: example for example in found["examples"]}
    assert len(examples) == len(TEXTS)
    first = examples[TEXTS[0]]
    marked = [TEXTS[0][start:end] for start, end, _ in first["words"]]
    assert marked == ["Not", "good", "not", "good", "film"]
    total = sum(value for *_, value in first["words"])
    assert total == pytest.approx(sum(one["contribution"] for one in first["ngrams"]), abs=1e-3)
    assert examples["qzx"]["words"] == []
    # A text that is cut has no word beyond the cut.
    (cut,) = (example for text, example in examples.items() if text.startswith("film film"))
    assert len(cut["words"]) == len(cut["text"]) // 5
    assert max(end for _, end, _ in cut["words"]) <= len(cut["text"])
