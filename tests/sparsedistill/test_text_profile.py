"""Profiles: what is counted, how parts add up, and what a text knows without itself."""

import json
from collections import Counter

import numpy as np
import pytest
from helpers.folded_cases import NGRAMS, TEXTS, small_model, small_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill import Classifier
from sparsedistill.bags import Bags
from sparsedistill.drift import measure_reference
from sparsedistill.errors import ConfigError
from sparsedistill.scripts import SCRIPTS
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.oracle import ngrams
from sparsedistill.text_profile import (
    CONFIDENCE,
    COVERAGE,
    LABELS,
    QUANTITIES,
    SCRIPT,
    UNKNOWN,
    Counted,
    Profile,
    scores,
)
from sparsedistill.text_profile import NGRAMS as LENGTH


@pytest.fixture(scope="module")
def student():
    return Classifier.from_folded(small_model(), vocabulary=small_vocabulary())


def bin_of(quantity, value):
    """Which bin a number belongs to, in plain words."""
    return sum(value > edge for edge in quantity.edges)


def test_a_profile_counts_every_text_once_in_every_quantity(student):
    profile = measure_reference(student, TEXTS)
    answers = student.answers(TEXTS)
    known = [[one for one in ngrams(text, student.folded.spec) if one in NGRAMS] for text in TEXTS]
    every = [ngrams(text, student.folded.spec) for text in TEXTS]
    expected = {
        UNKNOWN.name: Counter(int(not one) for one in known),
        LABELS.name: Counter(answers.best.tolist()),
        CONFIDENCE.name: Counter(
            bin_of(CONFIDENCE, p) for p in answers.probabilities.max(axis=1).tolist()
        ),
        SCRIPT.name: {SCRIPTS.index("latin"): 5, SCRIPTS.index("none"): 1},
    }
    # Of the text of 3,000 words only what comes before the 2,048th known one is looked at.
    short = [i for i, one in enumerate(every) if len(one) < 2048]
    few = measure_reference(student, [TEXTS[i] for i in short])
    for quantity, values in (
        (COVERAGE, [len(known[i]) / max(1, len(every[i])) for i in short]),
        (LENGTH, [len(every[i]) for i in short]),
    ):
        counts = Counter(bin_of(quantity, value) for value in values)
        assert {b: n for b, n in enumerate(few.counts[quantity.name].tolist()) if n} == counts
        assert few.mean(quantity) == pytest.approx(np.mean(values))
    for name, counts in expected.items():
        assert {b: n for b, n in enumerate(profile.counts[name].tolist()) if n} == counts
    assert profile.rows == len(TEXTS)
    assert all(sum(profile.shares(quantity)) == pytest.approx(1) for quantity in QUANTITIES)
    assert profile.mean(CONFIDENCE) == pytest.approx(answers.probabilities.max(axis=1).mean())
    assert profile.mean(LABELS) is None


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(TEXTS), max_size=20), st.integers(0, 20))
def test_profiles_of_parts_add_up_to_that_of_the_whole(texts, cut):
    student = Classifier.from_folded(small_model())
    whole = measure_reference(student, texts)
    parts = measure_reference(student, texts[:cut]) + measure_reference(student, texts[cut:])
    assert parts.to_json()["counts"] == whole.to_json()["counts"]
    assert parts.sums == pytest.approx(whole.sums)


def test_a_profile_survives_json_in_a_few_kilobytes(student):
    profile = measure_reference(student, TEXTS * 3000)
    written = json.dumps(profile.to_json())
    assert len(written) < 2000
    again = Profile.from_json(json.loads(written), student.classes_)
    assert again.to_json() == profile.to_json()
    assert again.rows == 3000 * len(TEXTS)


def broken(profile, **changes):
    value = profile.to_json()
    for name, change in changes.items():
        place = value["counts"] if name in value["counts"] else value
        place[name] = change
    return value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "has the format 2, not 1"),
        ({"counts": {}}, "malformed"),
        ({"counts": None}, "malformed"),
        ({"sums": []}, "malformed"),
        ({"labels": [1, 2]}, "has 2 bins of labels, not 3"),
        ({"scripts": "many"}, "malformed"),
        ({"scripts": [-1] * 13}, "malformed"),
        ({"scripts": [True] * 13}, "malformed"),
        ({"scripts": [10**30] * 13}, "malformed"),
        # Their sums turn over in int64, to what may even agree.
        ({"scripts": [2**60] * 16}, "malformed: .*more texts than there are"),
        ({"labels": [10**15, 1, 0]}, "malformed: .*more texts than there are"),
        ({"labels": [1, 2, 4]}, "malformed: its counts contradict"),
        ({"sums": {"coverage": 1, "ngrams": 2, "confidence": float("nan")}}, "malformed"),
        ({"sums": {"coverage": 1, "ngrams": 2, "confidence": "much"}}, "malformed"),
    ],
)
def test_a_reference_that_is_none_is_refused(student, changes, message):
    with pytest.raises(ConfigError, match=message):
        Profile.from_json(broken(measure_reference(student, TEXTS), **changes), student.classes_)


def test_without_a_reference_it_is_said_how_to_get_one(student):
    with pytest.raises(ConfigError, match="no reference to compare with: measure one"):
        Profile.from_json({}, student.classes_)


corpora = st.lists(
    st.lists(st.sampled_from(["a", "bb", "cc", "dd"]), max_size=6).map(" ".join),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(corpora, st.integers(1, 3), st.integers(1, 3))
def test_with_counts_each_text_is_seen_as_if_the_vocabulary_had_been_made_without_it(
    texts, least, weight
):
    """The slow way: make the vocabulary anew without each text, and look the text up in it."""
    spec = small_model().spec
    counts = Counter(weight * [one for text in texts for one in ngrams(text, spec)])
    rows = sorted(one for one, count in counts.items() if count >= least) or ["never seen"]
    vocabulary = small_vocabulary(rows)
    student = Classifier.from_folded(
        small_model(index=vocabulary.index, table=np.ones((len(rows), 37), np.float32)),
        vocabulary=vocabulary,
    )
    counted = Counted(np.array([counts[one] for one in rows]), least, weight)
    buffer = TextBuffer.from_strings(texts)
    found = scores(student, buffer, counted)
    for i, text in enumerate(texts):
        others = counts - Counter(weight * ngrams(text, spec))
        known = [one for one in ngrams(text, spec) if others[one] >= least]
        assert found.known[i] == len(known)
        assert found.total[i] == len(ngrams(text, spec))
        bags = vocabulary.bags(TextBuffer.from_strings([text]))
        kept = bags.take([0]).rows[[rows[row] in known for row in bags[0]]]
        alone = Bags(kept, np.array([0, len(kept)]))
        folded = student.folded
        expected = folded.head(folded.hidden_vectors(alone))[0]
        np.testing.assert_allclose(found.logits[i], expected, rtol=1e-5)


def test_counts_of_another_model_are_refused(student):
    with pytest.raises(ConfigError, match="3 counts for a model of 11 rows"):
        measure_reference(student, TEXTS, counted=Counted(np.ones(3, np.int64), 1))
