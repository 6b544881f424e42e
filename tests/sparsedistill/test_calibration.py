"""How far probabilities can be trusted, and how far their own measure can."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from sparsedistill.metrics import best_temperature, brier_score, calibration, softmax


def drawn(rows, *, seed=0, classes=3, overconfident=1.0):
    """Logits, and labels drawn by the probabilities that they stand for."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, classes))
    truth = (softmax(logits).cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return truth, logits * overconfident


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.integers(0, 10**6), st.integers(1, 20), st.booleans())
def test_bins_of_equal_mass_hold_all_rows_and_about_as_many_each(rows, seed, bins, coarse):
    truth, logits = drawn(rows, seed=seed)
    probabilities = softmax(logits)
    if coarse:  # many rows of one confidence, which stay together
        probabilities = probabilities.round(1)
    found = calibration(truth, probabilities, bins=bins, binning="mass")
    assert sum(one.count for one in found.bins) == rows
    assert len(found.bins) <= bins
    confidence = probabilities.max(axis=1)
    for one in found.bins:
        inside = (confidence > one.low) & (confidence <= one.high)
        assert inside.sum() == one.count
        assert one.confidence == pytest.approx(confidence[inside].mean())
    if not coarse:
        assert max(one.count for one in found.bins) <= rows / bins + 1


def test_in_one_bin_the_error_is_that_of_the_mean_whatever_the_binning():
    truth, logits = drawn(300)
    probabilities = softmax(logits)
    expected = abs(
        probabilities.max(axis=1).mean() - (probabilities.argmax(axis=1) == truth).mean()
    )
    for binning in ("width", "mass"):
        found = calibration(truth, probabilities, bins=1, binning=binning)
        assert found.error == pytest.approx(expected)


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("rows", [200, 1821])
def test_the_noise_is_the_error_that_perfect_probabilities_show(rows, binning):
    found = [
        calibration(truth, softmax(logits), binning=binning)
        for truth, logits in (drawn(rows, seed=seed) for seed in range(60))
    ]
    errors = np.mean([one.error for one in found])
    assert np.mean([one.noise for one in found]) == pytest.approx(errors, rel=0.1)


def test_the_noise_falls_with_the_root_of_the_rows():
    few, many = (calibration(truth, softmax(z)).noise for truth, z in (drawn(500), drawn(50_000)))
    assert few / many == pytest.approx(10, rel=0.15)


def test_a_temperature_fitted_on_few_rows_brings_the_error_of_many_near_the_noise():
    truth, logits = drawn(10_000, overconfident=2.5)
    temperature = best_temperature(truth[:800], logits[:800])
    before = calibration(truth[800:], softmax(logits[800:]))
    after = calibration(truth[800:], softmax(logits[800:], temperature=temperature))
    assert before.error > 0.1
    assert after.error < 0.02
    # Scaling all logits alike changes no answer.
    assert (logits / temperature).argmax(axis=1).tolist() == logits.argmax(axis=1).tolist()


def test_the_brier_score_is_that_of_scikit_learn():
    truth, logits = drawn(200)
    expected = brier_score_loss(truth, softmax(logits), labels=[0, 1, 2], scale_by_half=False)
    assert brier_score(truth, softmax(logits)) == pytest.approx(expected)
    assert brier_score(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]])) == 0
    assert brier_score(np.array([1, 0]), np.array([[1.0, 0.0], [0.0, 1.0]])) == 2
