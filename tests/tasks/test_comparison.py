"""What the report is told: texts on which student and teacher differ, and texts a second."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.small_classifier import LABELS, small_classifier

from tasks import comparison
from tasks.comparison import disagreements_of, speed_of

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


@pytest.mark.parametrize(
    ("seconds", "calls"),
    [
        # Cold, then a pass of one, and of as many as half a second takes.
        ([5.0, 0.02], 1 + 1 + 25 + 25),
        ([5.0, 2.0], 1 + 1 + 1 + 1),
    ],
)
def test_a_pass_is_long_enough_to_be_timed_however_slow_the_first_answer_was(
    seconds: list[float], calls: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(comparison, "LEAST_SECONDS", 0.5)
    now, answered = [0.0], []

    def answer(texts: list[str]) -> None:
        now[0] += seconds[min(len(answered), 1)]
        answered.append(texts)

    monkeypatch.setattr(comparison, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert speed_of(answer, TEXTS) == pytest.approx(len(TEXTS) / seconds[1])
    assert len(answered) == calls
