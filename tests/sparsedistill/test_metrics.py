"""Figures of merit against scikit-learn, or against a slow and readable oracle."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from sparsedistill.metrics import (
    accuracy,
    best_temperature,
    calibration,
    confusion,
    macro_f1,
    negative_log_likelihood,
    softmax,
)

CLASSES = 4
labels = st.integers(1, 40).flatmap(
    lambda rows: st.tuples(*[arrays(np.int64, rows, elements=st.integers(0, CLASSES - 1))] * 2)
)


@settings(deadline=None, max_examples=60)
@given(labels)
def test_accuracy_confusion_and_f1_are_those_of_scikit_learn(pair):
    truth, predicted = pair
    names = list(range(CLASSES))
    assert accuracy(truth, predicted) == accuracy_score(truth, predicted)
    np.testing.assert_array_equal(
        confusion(truth, predicted, classes=CLASSES),
        confusion_matrix(truth, predicted, labels=names),
    )
    expected = f1_score(truth, predicted, labels=names, average="macro", zero_division=0)
    assert macro_f1(truth, predicted, classes=CLASSES) == pytest.approx(expected)


def drawn(rows=4000, temperature=1.0, seed=0):
    """Labels drawn from the softmax of logits, and these logits times ``temperature``."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, CLASSES)) * 2
    p = softmax(logits)
    truth = (p.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return truth, (logits * temperature).astype(np.float32)


def test_likelihood_is_the_log_loss_of_scikit_learn():
    truth, logits = drawn(500)
    expected = log_loss(truth, softmax(logits, temperature=1.7), labels=list(range(CLASSES)))
    assert negative_log_likelihood(truth, logits, temperature=1.7) == pytest.approx(expected)


def test_likelihood_stays_exact_where_a_probability_is_too_small_for_a_float():
    truth, logits = np.array([1]), np.array([[5000.0, 0.0]])
    assert negative_log_likelihood(truth, logits, temperature=1.0) == 5000.0


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float32, (5, 3), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
    st.floats(0.05, 20),
)
def test_rows_of_the_softmax_sum_to_one(logits, temperature):
    np.testing.assert_allclose(softmax(logits, temperature=temperature).sum(axis=1), 1)


@settings(deadline=None, max_examples=60)
@given(
    # Twelfths and fifteenths lie on the edges of the bins.
    st.lists(
        st.tuples(st.sampled_from([k / 60 for k in range(30, 61)]), st.booleans()), min_size=1
    ),
    st.sampled_from([1, 10, 12, 15]),
)
def test_calibration_bins_hold_the_rows_of_their_range(rows, bins):
    confidence = np.array([value for value, _ in rows])
    right = np.array([hit for _, hit in rows])
    found = calibration(
        np.where(right, 0, 1), np.stack([confidence, 1 - confidence - 1e-9], axis=1), bins=bins
    )
    edges = np.linspace(0, 1, bins + 1)
    expected, error = [], 0.0
    for low, high in pairwise(edges):
        inside = [i for i, value in enumerate(confidence) if low < value <= high]
        if inside:
            mean, hits = confidence[inside].mean(), right[inside].mean()
            expected.append((low, high, mean, hits, len(inside)))
            error += abs(mean - hits) * len(inside) / len(rows)
    got = [(b.low, b.high, b.confidence, b.accuracy, b.count) for b in found.bins]
    np.testing.assert_allclose(got, expected)
    assert found.error == pytest.approx(error)


def test_every_row_is_in_a_bin_also_at_confidence_0_and_1():
    probabilities = np.array([[0.0, 0.0], [1.0, 0.0], [1.0 + 1e-9, 0.0]])
    assert sum(b.count for b in calibration(np.zeros(3, np.int64), probabilities).bins) == 3


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 8.0])
def test_a_known_temperature_is_found_again(temperature):
    truth, logits = drawn(temperature=temperature)
    assert best_temperature(truth, logits) == pytest.approx(temperature, rel=0.06)


def test_no_temperature_of_a_fine_grid_is_better_than_the_one_found():
    truth, logits = drawn(500, temperature=2.0)
    found = best_temperature(truth, logits)
    losses = [
        negative_log_likelihood(truth, logits, temperature=t) for t in np.geomspace(0.05, 20, 500)
    ]
    assert negative_log_likelihood(truth, logits, temperature=found) <= min(losses) + 1e-6


def test_where_every_row_is_right_the_temperature_stays_in_its_bounds():
    logits = np.array([[4.0, 0.0], [0.0, 4.0]])
    assert best_temperature(np.array([0, 1]), logits) == pytest.approx(0.05, rel=1e-2)
    assert best_temperature(np.array([1, 0]), logits) == pytest.approx(20.0, rel=1e-2)
