"""Targets: logits and labels of the same rows, or a clear word about what is wrong with them."""

import numpy as np
import pytest

from sparsedistill.errors import DataError
from sparsedistill.targets import Targets

LOGITS = np.arange(12, dtype=np.float16).reshape(4, 3)
LABELS = np.array([2, -1, 0, 1])


def test_rows_are_taken_in_the_order_asked_for_and_copied():
    taken = Targets(LOGITS, LABELS).take(np.array([3, 0, 3]))
    assert len(taken) == 3
    assert taken.logits.tolist() == LOGITS[[3, 0, 3]].tolist()
    assert taken.labels.tolist() == [1, 2, 1]
    assert not np.shares_memory(taken.logits, LOGITS)


def test_either_half_may_be_missing_but_not_both():
    assert len(Targets(LOGITS)) == len(Targets(labels=LABELS)) == 4
    assert Targets(LOGITS).take(np.array([1])).labels is None
    assert Targets(labels=LABELS).take(np.array([1])).logits is None
    with pytest.raises(DataError, match="logits, labels or both"):
        Targets()


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (LOGITS, LABELS[:3], "logits of 4 rows but labels of 3"),
        (LOGITS, np.zeros((4, 2), np.int8), "logits of 3 classes but labels of 2"),
        (LOGITS[0], None, r"floats \[rows, classes\], not float16 \[3\]"),
        (LOGITS.astype(np.int64), None, r"not int64 \[4, 3\]"),
        (None, LABELS.astype(np.float32), r"integers \[rows\].*not float32 \[4\]"),
        (None, np.zeros((2, 2, 2), np.int64), r"not int64 \[2, 2, 2\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(logits, labels, message):
    with pytest.raises(DataError, match=message):
        Targets(logits, labels)


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
def test_the_first_row_that_is_not_finite_is_named_wherever_it_is(strange):
    rows = 70_000  # more than are looked at together
    logits = np.zeros((rows, 2), np.float32)
    Targets(logits).check_finite()
    logits[[66_000, 66_001], [1, 0]] = strange
    with pytest.raises(DataError, match=r"targets of row 66000 are not finite: \["):
        Targets(logits, np.zeros(rows, np.int64)).check_finite()


def test_labels_alone_are_finite():
    Targets(labels=LABELS).check_finite()
