"""The bounded counter against one that forgets nothing."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.errors import ConfigError
from sparsedistill.frequent import FrequentHashes

batches = st.lists(
    st.dictionaries(st.integers(0, 30), st.integers(1, 50), max_size=20), max_size=12
)


def add(counter, batch):
    return counter.add(np.array(list(batch), np.uint64), np.array(list(batch.values()), np.int64))


@settings(deadline=None, max_examples=150)
@given(batches, st.integers(1, 12))
def test_a_count_is_too_small_by_no_more_than_the_error_and_that_is_bounded(batches, capacity):
    counter, truth = FrequentHashes(capacity), Counter()
    for batch in batches:
        before = set(counter.hashes.tolist())
        new = add(counter, batch)
        truth.update(batch)
        held = dict(zip(counter.hashes.tolist(), counter.counts.tolist(), strict=True))
        assert set(new.tolist()) == set(held) - before
        assert len(held) <= capacity
        assert all(count > 0 for count in held.values())
        for one, count in truth.items():
            assert held.get(one, 0) <= count <= held.get(one, 0) + counter.error
    assert counter.error <= truth.total() / (capacity + 1)


def test_what_is_frequent_enough_is_held_whatever_comes_between():
    counter = FrequentHashes(10)
    for start in range(100, 5100, 50):
        rare = dict.fromkeys(range(start, start + 50), 1)
        add(counter, {7: 6, **rare})
    assert 7 in counter.hashes


def test_while_all_fit_counts_are_exact():
    counter = FrequentHashes(3)
    add(counter, {5: 1, 3: 2})
    add(counter, {3: 2, 9: 4})
    assert counter.hashes.tolist() == [3, 5, 9]
    assert counter.counts.tolist() == [4, 1, 4]
    assert counter.error == 0


def test_a_counter_holds_something():
    with pytest.raises(ConfigError, match="capacity"):
        FrequentHashes(0)
