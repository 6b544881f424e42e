"""Class weights against scikit-learn's, and their mean over the rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from sparsedistill.class_weights import class_weights, label_weights
from sparsedistill.errors import ConfigError, DataError


@st.composite
def labelled_rows(draw):
    """Labels in which each of the classes occurs, and some rows without one."""
    classes = draw(st.integers(2, 5))
    more = draw(st.lists(st.integers(-1, classes - 1), max_size=60))
    return np.array([*range(classes), *more]), classes


@given(labelled_rows())
def test_balanced_is_what_scikit_learn_means_by_it(rows):
    labels, classes = rows
    expected = compute_class_weight("balanced", classes=np.arange(classes), y=labels[labels >= 0])
    np.testing.assert_allclose(class_weights(labels, "balanced", classes=classes), expected)


@given(labelled_rows(), st.data())
def test_the_mean_weight_over_the_labelled_rows_is_one_and_given_ratios_stay(rows, data):
    labels, classes = rows
    numbers = st.lists(st.floats(0.01, 100), min_size=classes, max_size=classes)
    how = data.draw(numbers)
    found = np.array(class_weights(labels, how, classes=classes))
    assert found[labels[labels >= 0]].mean() == pytest.approx(1)
    np.testing.assert_allclose(found / found[0], np.array(how) / how[0])


def test_each_of_several_labels_is_balanced_by_itself():
    labels = np.array([[1, 0], [0, 0], [0, 1], [0, 1], [-1, -1]])
    (no, yes), even = label_weights(labels, "balanced")
    assert (no, yes) == (pytest.approx(4 / 6), pytest.approx(4 / 2))
    assert even == (pytest.approx(1), pytest.approx(1))


def test_numbers_for_several_labels_are_the_weight_of_a_yes_over_a_no():
    labels = np.array([[1, 0], [0, 0], [0, 1], [0, 1]])
    for (no, yes), ratio, column in zip(
        label_weights(labels, (9.0, 1.0)), (9.0, 1.0), labels.T, strict=True
    ):
        assert yes / no == pytest.approx(ratio)
        assert np.where(column == 1, yes, no).mean() == pytest.approx(1)


@pytest.mark.parametrize("how", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, float("nan"))])
def test_numbers_that_cannot_be_weights_are_refused(how):
    with pytest.raises(ConfigError, match='"balanced" or 2 positive numbers'):
        class_weights(np.array([0, 1]), how, classes=2)
    with pytest.raises(ConfigError, match='"balanced" or 2 positive numbers'):
        label_weights(np.array([[0, 1], [1, 0]]), how)


def test_a_class_without_rows_cannot_be_balanced_but_may_have_a_number():
    labels = np.array([0, 0, 2])
    with pytest.raises(DataError, match=r"no row has label 1.*give their weights as numbers"):
        class_weights(labels, "balanced", classes=3)
    assert class_weights(labels, (1, 1, 1), classes=3) == (1, 1, 1)
    with pytest.raises(DataError, match=r"label 1 of 2, yes or no: no row has label 0"):
        label_weights(np.array([[0, 1], [1, 1]]), "balanced")


def test_rows_without_labels_cannot_be_weighted():
    with pytest.raises(DataError, match="need rows with labels"):
        class_weights(np.array([-1, -1]), "balanced", classes=2)
