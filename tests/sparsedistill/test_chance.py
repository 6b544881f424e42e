"""Bounds and permutation tests against scipy, and against what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, chi2_contingency

from sparsedistill.chance import difference, jensen_shannon, wilson_lower

histograms = st.integers(2, 12).flatmap(
    lambda bins: st.tuples(
        *[st.lists(st.integers(0, 500), min_size=bins, max_size=bins).filter(any)] * 2
    )
)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 500), st.data(), st.floats(0.5, 0.999))
def test_the_bound_is_the_lower_end_of_scipys_wilson_interval(rows, data, confidence):
    hits = data.draw(st.integers(0, rows))
    expected = binomtest(hits, rows).proportion_ci(2 * confidence - 1, method="wilson").low
    assert wilson_lower(hits, rows, confidence=confidence) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(histograms)
def test_the_divergence_is_scipys_and_lies_between_0_and_1(pair):
    found = float(jensen_shannon(*pair))
    assert found == pytest.approx(jensenshannon(*pair, base=2) ** 2, abs=1e-9)
    assert 0 <= found <= 1
    assert found == pytest.approx(float(jensen_shannon(*reversed(pair))))


def test_the_divergence_is_0_for_equal_shares_and_1_where_no_bin_is_shared():
    assert jensen_shannon([1, 2, 0], [10, 20, 0]) == 0
    assert jensen_shannon([3, 0, 0], [0, 1, 4]) == 1


def test_the_p_value_is_that_of_chi_square_where_bins_are_full():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = (
            rng.multinomial(3000, [0.2] * 5),
            rng.multinomial(2000, [0.21, 0.19, *[0.2] * 3]),
        )
        expected = chi2_contingency([one, other], lambda_="log-likelihood").pvalue
        assert difference(one, other, level=0.01).p_value == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("rows", [5, 30, 300])
def test_samples_of_one_population_are_told_apart_no_more_often_than_the_level(rows):
    rng = np.random.default_rng(rows)
    # Most bins all but empty: where the tail of chi-square is wrong.
    shares = np.array([0.5, 0.3, 0.15, 0.04, *[0.002] * 5])
    p_values = [
        difference(rng.multinomial(2000, shares), rng.multinomial(rows, shares), level=0.05).p_value
        for _ in range(200)
    ]
    assert np.mean(np.array(p_values) < 0.05) < 0.1  # 0.05 and four deviations


def test_what_is_detectable_is_what_has_the_p_value_of_the_level():
    one, other = np.array([500, 300, 200]), np.array([50, 30, 20])
    found = difference(one, other, level=0.01)
    assert found.divergence == 0
    assert found.p_value == 1
    assert 0 < found.chance < found.detectable < 0.1
    # A batch that lies just that far apart is as rare as the level says.
    rng = np.random.default_rng(0)
    dealt = [difference(one, rng.multinomial(100, one / 1000), level=0.01) for _ in range(300)]
    assert np.mean([each.divergence > each.detectable for each in dealt]) < 0.03
    nearer = difference(one, other, level=0.02)
    assert nearer.detectable < found.detectable
    # Four times the rows show a quarter of it.
    more = difference(4 * one, 4 * other, level=0.01)
    assert more.detectable == pytest.approx(found.detectable / 4, rel=0.2)


def test_a_bin_that_is_new_counts_also_for_few_rows():
    found = difference(np.array([20_000, 0]), np.array([0, 20]), level=0.001)
    assert found.divergence == 1
    assert found.p_value == 1 / 5000


def test_no_rows_differ_from_nothing():
    assert difference(np.array([3, 4]), np.array([0, 0]), level=0.01).p_value == 1
    assert difference(np.array([0]), np.array([5]), level=0.01).p_value == 1


def test_any_number_of_rows_can_be_compared():
    rows = np.array([6 * 10**11, 4 * 10**11])
    assert difference(rows, np.array([600, 400]), level=0.01).p_value > 0.5
    assert difference(rows, rows[::-1].copy(), level=0.01).p_value < 0.001
