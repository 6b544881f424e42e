"""The deduplicator against a Python set."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.text.deduplication import Deduplicator

# Few values, and halves that are equal while the others are not.
halves = st.sampled_from([0, 1, 2**58, 2**63, 2**64 - 1])
digests = st.tuples(halves, halves)


def decide(directory, batches, held_out):
    with Deduplicator(directory) as rows:
        for batch in batches:
            rows.add(as_digests(batch))
        return rows.decide(as_digests(held_out))


def as_digests(values):
    return np.array(values, np.uint64).reshape(-1, 2)


def slow_mask(rows, held_out):
    seen, mask = set(held_out), []
    for row in rows:
        mask.append(row not in seen)
        seen.add(row)
    return mask


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(digests, max_size=12), max_size=4), st.lists(digests, max_size=4))
def test_the_first_of_equal_rows_stays_and_none_that_is_held_out(
    tmp_path_factory, batches, held_out
):
    rows = [row for batch in batches for row in batch]
    kept = decide(tmp_path_factory.mktemp("rows"), batches, held_out)
    assert kept.mask.tolist() == slow_mask(rows, held_out)
    assert kept.ids.tolist() == [high for high, _ in rows]
    assert kept.held_out == len(set(rows) & set(held_out))
    assert kept.duplicates == len(rows) - len(set(rows))


def test_many_rows_in_many_partitions(tmp_path):
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 2**64, (5000, 2), np.uint64)
    rows, held_out = pool[rng.integers(0, 4000, 20_000)], pool[3900:]
    kept = decide(tmp_path, np.array_split(rows, 7), held_out)
    expected = slow_mask(list(map(tuple, rows.tolist())), set(map(tuple, held_out.tolist())))
    assert kept.mask.tolist() == expected
    assert kept.mask.sum() + kept.duplicates + kept.held_out == 20_000


def test_a_corpus_without_rows(tmp_path):
    kept = decide(tmp_path, [[]], [(1, 2)])
    assert (len(kept.mask), len(kept.ids), kept.duplicates, kept.held_out) == (0, 0, 0, 0)


def test_what_a_killed_scan_left_behind_is_not_counted(tmp_path):
    with Deduplicator(tmp_path) as rows:
        rows.add(as_digests([(1, 1), (2, 2)]))
    kept = decide(tmp_path, [[(2, 2), (3, 3), (2, 2)]], [])
    assert kept.mask.tolist() == [True, True, False]
