"""Thresholds: what they promise on the rows they were fitted on, and what on new ones."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparsedistill.answers import kept_rows
from sparsedistill.chance import wilson_lower
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.metrics import softmax
from sparsedistill.thresholds import NEVER, abstention_curve, fit_thresholds, render_curve

CLASSES = ("one", "two", "three")


def drawn(rows, seed, *, spread=2.0, digits=7):
    """Probabilities that are right: labels are drawn by them."""
    rng = np.random.default_rng(seed)
    probabilities = softmax(rng.normal(0, spread, (rows, len(CLASSES)))).astype(np.float32)
    truth = (probabilities.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return truth.astype(np.int64), probabilities.round(digits)


cases = st.builds(
    drawn,
    st.integers(0, 300),
    st.integers(0, 10**6),
    spread=st.sampled_from([0.5, 2.0, 6.0]),
    # With two digits many rows have one probability.
    digits=st.sampled_from([2, 7]),
)
precisions = st.floats(0.05, 1.0)
confidences = st.sampled_from([0.5, 0.8, 0.95])


def answered(probabilities, thresholds):
    best = probabilities.argmax(axis=1)
    return best, kept_rows(CLASSES, probabilities, best, thresholds)


@settings(deadline=None, max_examples=100)
@given(cases, precisions, confidences)
def test_on_the_rows_themselves_the_precision_holds(case, precision, confidence):
    truth, probabilities = case
    thresholds = fit_thresholds(
        truth, probabilities, CLASSES, precision=precision, confidence=confidence
    )
    best, kept = answered(probabilities, thresholds)
    for c, name in enumerate(CLASSES):
        rows = kept & (best == c)
        if thresholds[name] < NEVER and rows.any():
            hits = int((truth[rows] == c).sum())
            assert hits / rows.sum() >= precision - 1e-12
            assert wilson_lower(hits, int(rows.sum()), confidence=confidence) >= precision - 1e-12


@settings(deadline=None, max_examples=100)
@given(cases, precisions, confidences)
def test_no_lower_threshold_would_do(case, precision, confidence):
    truth, probabilities = case
    thresholds = fit_thresholds(
        truth, probabilities, CLASSES, precision=precision, confidence=confidence
    )
    best, top = probabilities.argmax(axis=1), probabilities.max(axis=1)
    for c, name in enumerate(CLASSES):
        for lower in np.unique(top[(best == c) & (top < thresholds[name])]):
            rows = (best == c) & (top >= lower)
            hits = int((truth[rows] == c).sum())
            assert wilson_lower(hits, int(rows.sum()), confidence=confidence) < precision


@settings(deadline=None, max_examples=100)
@given(cases, precisions, precisions, confidences)
def test_more_precision_takes_higher_thresholds_and_answers_fewer(case, one, other, confidence):
    low, high = sorted((one, other))
    truth, probabilities = case
    easy, hard = (
        fit_thresholds(truth, probabilities, CLASSES, precision=each, confidence=confidence)
        for each in (low, high)
    )
    assert all(easy[name] <= hard[name] for name in CLASSES)
    assert answered(probabilities, hard)[1].sum() <= answered(probabilities, easy)[1].sum()


@settings(deadline=None, max_examples=60)
@given(cases, precisions)
def test_more_confidence_takes_higher_thresholds(case, precision):
    found = [
        fit_thresholds(*case, CLASSES, precision=precision, confidence=confidence)
        for confidence in (0.5, 0.8, 0.95)
    ]
    for lower, higher in itertools.pairwise(found):
        assert all(lower[name] <= higher[name] for name in CLASSES)


@settings(deadline=None, max_examples=60)
@given(cases, precisions)
def test_thresholds_survive_json_and_are_taken_by_the_classifier(case, precision):
    truth, probabilities = case
    thresholds = fit_thresholds(truth, probabilities, CLASSES, precision=precision)
    assert list(thresholds) == list(CLASSES)
    again = json.loads(json.dumps(thresholds))
    assert (
        answered(probabilities, again)[1].tolist()
        == answered(probabilities, thresholds)[1].tolist()
    )


def test_a_threshold_lies_half_way_to_the_next_row():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], np.float32)
    truth = np.array([0, 0, 1])
    found = fit_thresholds(truth, probabilities, ("a", "b"), precision=1.0, confidence=0.5)
    assert found == {"a": pytest.approx(0.7), "b": NEVER}


def test_a_class_all_of_whose_answers_are_good_enough_never_abstains():
    truth, probabilities = drawn(3000, 0, spread=3.0)
    thresholds = fit_thresholds(truth, probabilities, CLASSES, precision=0.3)
    assert set(thresholds.values()) == {0.0}
    assert answered(probabilities, thresholds)[1].all()


def test_few_rows_prove_little_however_right_they_are():
    truth, probabilities = np.zeros(20, np.int64), np.tile(np.float32([0.9, 0.05, 0.05]), (20, 1))
    assert fit_thresholds(truth, probabilities, CLASSES, precision=0.9)["one"] == NEVER
    assert fit_thresholds(truth, probabilities, CLASSES, precision=0.9, confidence=0.5)["one"] == 0
    truth, probabilities = np.repeat(truth, 2), np.repeat(probabilities, 2, axis=0)
    assert fit_thresholds(truth, probabilities, CLASSES, precision=0.9)["one"] == 0


def test_on_new_rows_the_precision_holds_as_often_as_the_confidence_says():
    rng = np.random.default_rng(1)
    confidence_of = rng.uniform(0.5, 1.0, 200_000)  # of calibrated rows, all of one class

    def below(precision, confidence):
        missed = 0
        for _ in range(200):
            top = rng.uniform(0.5, 1.0, 500).astype(np.float32)
            truth = (rng.random(500) > top).astype(np.int64)
            found = fit_thresholds(
                truth,
                np.stack([top, 1 - top], 1),
                ("a", "b"),
                precision=precision,
                confidence=confidence,
            )["a"]
            missed += confidence_of[confidence_of >= found].mean() < precision
        return missed / 200

    assert below(0.85, 0.95) < 0.12  # 0.05, and what choosing among thresholds adds
    assert below(0.85, 0.5) > 0.4  # which is why 0.5 is not the default


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"precision": 0}, ConfigError, "precision is a share above 0"),
        ({"precision": 1.2}, ConfigError, "precision is a share above 0"),
        ({"precision": float("nan")}, ConfigError, "precision is a share above 0"),
        ({"confidence": 1.0}, ConfigError, "confidence is at least 0.5"),
        ({"classes": ("a",)}, DataError, r"probabilities must be \[30, 1\]"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, error, message):
    truth, probabilities = drawn(30, 0)
    options = {"classes": CLASSES, "precision": 0.9, **change}
    with pytest.raises(error, match=message):
        fit_thresholds(truth, probabilities, **options)


@settings(deadline=None, max_examples=60)
@given(cases, st.integers(1, 40))
def test_each_point_of_the_curve_is_what_its_threshold_gives(case, points):
    truth, probabilities = case
    assume(len(truth))
    curve = abstention_curve(truth, probabilities, points=points)
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    assert 1 <= len(curve) <= points
    assert curve[0].answered == 1
    for point in curve:
        kept = top >= np.float32(point.threshold)
        assert point.answered == pytest.approx(kept.mean())
        assert point.accuracy == pytest.approx(right[kept].mean())
    shares = [point.answered for point in curve]
    assert shares == sorted(set(shares), reverse=True)


def test_the_curve_of_no_rows_is_empty_and_a_curve_has_a_point():
    assert abstention_curve(*drawn(0, 0)) == ()
    assert render_curve(()).count("\n") == 1
    with pytest.raises(ConfigError, match="points"):
        abstention_curve(*drawn(5, 0), points=0)


def test_the_curve_as_text_has_a_line_a_point_and_the_longest_bar_where_all_is_right():
    truth, probabilities = np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    said = render_curve(abstention_curve(truth, probabilities.astype(np.float32), points=3))
    assert said.splitlines()[1:] == [
        "  100.0%     66.7%  0.6000",
        f"   66.7%    100.0%  0.8000  {'█' * 40}",
        f"   33.3%    100.0%  0.9000  {'█' * 40}",
    ]
