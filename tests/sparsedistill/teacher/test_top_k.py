"""The best few logits and the rest's weight: the same probabilities where it matters."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sparsedistill.metrics import softmax
from sparsedistill.teacher.top_k import keep_top, spread_rest

LOGITS = st.integers(3, 12).flatmap(
    lambda classes: arrays(
        np.float32, (5, classes), elements=st.floats(-30, 30, width=32, allow_subnormal=False)
    )
)


@settings(deadline=None, max_examples=100)
@given(LOGITS, st.integers(1, 11))
def test_the_best_keep_their_probabilities_and_the_rest_its_sum(logits, k):
    k = min(k, logits.shape[1] - 1)
    classes, best, rest = keep_top(logits, k)
    back = spread_rest(classes, best, rest, count=logits.shape[1])
    before, after = softmax(logits), softmax(back)
    np.testing.assert_allclose(
        np.take_along_axis(after, classes.astype(int), 1),
        np.take_along_axis(before, classes.astype(int), 1),
        atol=1e-5,
    )
    np.testing.assert_allclose(after.sum(axis=1), 1)
    # The others are alike, and none of them passes the best.
    assert (back.max(axis=1) <= best[:, 0] + 1e-5).all()
    assert (np.diff(best, axis=1) <= 0).all()
    np.testing.assert_array_equal(classes[:, 0], logits.argmax(axis=1))


def test_nothing_is_lost_where_one_class_is_the_rest():
    logits = np.array([[1.0, 3.0, -2.0], [0.0, 0.0, 5.0]], np.float32)
    back = spread_rest(*keep_top(logits, 2), count=3)
    np.testing.assert_allclose(back, logits, atol=1e-6)
