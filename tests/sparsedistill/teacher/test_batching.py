"""Batches hold every row once, within the budget, longest first."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.teacher.batching import (
    equal_length_batches,
    stretches,
    token_budget_batches,
)

LENGTHS = st.lists(st.integers(0, 50), max_size=60)


def rows_of(batches):
    return [int(row) for batch in batches for row in batch]


@settings(deadline=None, max_examples=100)
@given(LENGTHS, st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    for cut in (token_budget_batches, equal_length_batches):
        batches = cut(np.array(lengths, np.int64), budget)
        rows = rows_of(batches)
        assert sorted(rows) == list(range(len(lengths)))
        assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
        for batch in batches:
            longest = max(lengths[row] for row in batch)
            assert len(batch) == 1 or longest * len(batch) <= budget


@settings(deadline=None, max_examples=100)
@given(LENGTHS, st.integers(1, 200))
def test_no_padded_batch_could_have_taken_the_first_row_of_the_next(lengths, budget):
    batches = token_budget_batches(np.array(lengths, np.int64), budget)
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * max(lengths[batch[0]], 1) > budget
        assert len(following) > 0


@settings(deadline=None, max_examples=100)
@given(LENGTHS, st.integers(1, 200))
def test_equal_batches_hold_one_length_and_are_full_but_for_the_last_of_it(lengths, budget):
    batches = equal_length_batches(np.array(lengths, np.int64), budget)
    for batch in batches:
        assert len({lengths[row] for row in batch}) == 1
    for batch, following in pairwise(batches):
        length = lengths[batch[0]]
        if lengths[following[0]] == length:
            assert (len(batch) + 1) * max(length, 1) > budget


@settings(deadline=None, max_examples=100)
@given(LENGTHS, st.integers(1, 10), st.integers(1, 100))
def test_stretches_follow_one_another_within_their_limits(sizes, rows, size):
    found = stretches(sizes, rows=rows, size=size)
    assert [row for start, stop in found for row in range(start, stop)] == list(range(len(sizes)))
    for start, stop in found:
        assert 0 < stop - start <= rows
        assert stop - start == 1 or sum(sizes[start:stop]) <= size
    for (start, stop), (_, after) in pairwise(found):
        full = stop - start == rows or sum(sizes[start : stop + 1]) > size
        assert full, (start, stop, after)
