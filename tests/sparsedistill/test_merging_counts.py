import re
import tempfile
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill import merging, spill
from sparsedistill.counted import PART, CountedHashes
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.merging import add_up, merge_counted
from sparsedistill.spill import Run

TOP = (1 << 64) - 1
PLENTY = 1 << 28


def counted(order, hashes, counts=None):
    ones = np.ones(len(hashes), np.int64)
    return CountedHashes(order, np.array(hashes, np.uint64), ones if counts is None else counts)


class Source:
    """Counts by order and hash, or parts as they are, handed out a few at a time."""

    def __init__(self, counts, part=3):
        self.counts = counts
        self.part = part

    @property
    def entries(self):
        return Counter(order for order, _ in self.counts)

    def parts(self, order):
        hashes = sorted(ngram for n, ngram in self.counts if n == order)
        for at in range(0, len(hashes), self.part):
            some = hashes[at : at + self.part]
            yield counted(order, some, np.array([self.counts[order, ngram] for ngram in some]))


class Damaged:
    def __init__(self, *parts):
        self.all_parts = [counted(1, hashes) for hashes in parts]
        self.entries = {1: sum(map(len, parts))}

    def parts(self, order):
        return iter(self.all_parts)


def flat(parts):
    return [
        (part.order, ngram, count)
        for part in parts
        for ngram, count in zip(part.hash.tolist(), part.count.tolist(), strict=True)
    ]


def added_up(sources):
    total = Counter()
    for source in sources:
        total.update(source.counts)
    return [(*key, total[key]) for key in sorted(total)]


# The ends of the whole range and of halves and quarters of it; many in one slot of the table, also
# in the last, from which probing goes on at the first; few values, so that sources share them.
hash_values = st.one_of(
    st.integers(0, 9),
    st.integers(TOP - 9, TOP),
    st.sampled_from([n * (1 << 62) + d for n in (1, 2, 3) for d in (-1, 0, 1)]),
    st.integers(0, 20).map(lambda low: (0xABCDEF1234 << 24) + low),
    st.integers(0, 20).map(lambda low: TOP - (low << 20)),
    st.integers(0, TOP),
)
some_sources = st.lists(
    st.builds(
        Source,
        st.dictionaries(
            st.tuples(st.sampled_from([1, 2, 7]), hash_values), st.integers(1, 1 << 40), max_size=30
        ),
        part=st.integers(1, 8),
    ),
    max_size=9,
)


@given(
    sources=some_sources,
    threads=st.integers(1, 2),
    longest_range=st.sampled_from([2, 16, 1 << 19]),
    fan_in=st.sampled_from([2, 3, 100]),
)
@settings(deadline=None, max_examples=150)
def test_merging_adds_up_any_sources_in_any_memory(sources, threads, longest_range, fan_in):
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_RANGE", longest_range)
        patch.setattr(merging, "_LEAST_RANGE", 2)
        patch.setattr(merging, "SOURCE_BYTES", 1000)
        patch.setattr(spill, "PART", 4)
        memory = fan_in * 1000 + merging.least_memory(threads) - 2 * 1000
        merged = merge_counted(sources, memory=memory, spill=Path(directory), threads=threads)
        assert flat(merged) == added_up(sources)
        assert any(Path(directory).iterdir()) == (len(sources) > fan_in)


def random_source(rng, entries, shift=0, part=PART):
    """Hashes of which two sources share some, with so many first bits that are 1."""
    values = np.unique(rng.integers(0, 1 << 20, entries, dtype=np.uint64)) << np.uint64(44)
    values = (values >> np.uint64(shift)) | ~(np.uint64(TOP) >> np.uint64(shift))
    counts = rng.integers(1, 100, len(values)).tolist()
    keys = [(2, ngram) for ngram in values.tolist()]
    return Source(dict(zip(keys, counts, strict=True)), part)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("sources", "entries", "shift"), [(2, 14_000, 0), (3, 60_000, 0), (2, 30_000, 2)]
)
def test_ranges_that_are_cut_add_up_the_same(monkeypatch, sources, entries, shift, threads):
    rng = np.random.default_rng(0)
    several = [random_source(rng, entries, shift) for _ in range(sources)]
    expected = added_up(several)
    for longest_range in (1 << 19, 10_000):
        monkeypatch.setattr(merging, "_RANGE", longest_range)
        found = merge_counted(several, memory=PLENTY, spill=None, threads=threads)
        assert flat(found) == expected


@given(st.lists(st.dictionaries(hash_values, st.integers(1, 99), max_size=40), max_size=6))
@settings(deadline=None, max_examples=200)
def test_adding_up_slices_equals_a_counter(slices):
    total = Counter()
    arrays = []
    for counts in slices:
        total.update(counts)
        hashes = np.array(sorted(counts), np.uint64)
        arrays.append((hashes, np.array([counts[h] for h in hashes.tolist()], np.int64)))
    hashes, counts = add_up(arrays)
    assert hashes.tolist() == sorted(total)
    assert counts.tolist() == [total[ngram] for ngram in sorted(total)]


def test_no_sources_and_sources_without_entries_give_nothing():
    assert list(merge_counted([], memory=PLENTY, spill=None)) == []
    merged = merge_counted([Source({}), Source({})], memory=PLENTY, spill=None)
    assert list(merged) == []


@pytest.mark.parametrize(
    "parts",
    [
        ([2, 1],),
        ([1, 1],),
        ([1, 5], [5, 6]),
        ([1, TOP], [3]),
        ([10, 20], [], [5]),
        ([], [7, 6]),
    ],
    ids=str,
)
@pytest.mark.parametrize("threads", [1, 2])
def test_hashes_that_do_not_ascend_are_refused(parts, threads):
    sources = [Source({(1, 4): 1}), Damaged(*parts)]
    with pytest.raises(DataError, match="not sorted by hash"):
        list(merge_counted(sources, memory=PLENTY, spill=None, threads=threads))


@pytest.mark.parametrize("threads", [1, 2])
def test_too_little_memory_names_what_is_enough(tmp_path, threads):
    sources = [Source({(1, n): n + 1, (1, TOP): 1}) for n in range(7)]

    def merged(memory):
        return flat(merge_counted(sources, memory=memory, spill=tmp_path, threads=threads))

    with pytest.raises(ConfigError, match="1MB of memory are too little to merge") as caught:
        merged(10**6)
    enough = int(re.search(r"(\d+)MB are the least", str(caught.value))[1])
    with pytest.raises(ConfigError, match="are the least"):
        merged((enough - 1) * 10**6)
    assert merged(enough * 10**6) == added_up(sources)


@pytest.mark.parametrize("threads", [1, 2])
def test_merging_keeps_to_the_memory(tmp_path, threads):
    rng = np.random.default_rng(2)
    runs = []
    for _ in range(9):
        hashes = np.unique(rng.integers(0, 1 << 63, 200_000).astype(np.uint64)) << np.uint64(1)
        parts = [CountedHashes(1, hashes, np.ones(len(hashes), np.int64))]
        runs.append(Run.write(tmp_path, parts))
    memory = 9 * 10**6  # of 29 MB
    # Compiles, and imports what threads need.
    list(merge_counted(runs[:2], memory=PLENTY, spill=None, threads=threads))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        merged = merge_counted(runs, memory=memory, spill=tmp_path, threads=threads)
        assert sum(int(part.count.sum()) for part in merged) == sum(run.entries[1] for run in runs)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    left = set(tmp_path.iterdir())
    # Runs that went into larger ones are removed: the disk may be little, too.
    assert not any(run.path in left for run in runs[:8])
    assert left
    # Of ranges that wait, slices are held too: a tenth more has been seen.
    assert peak < 1.25 * memory


def test_more_sources_than_fit_need_a_directory():
    sources = [Source({(1, n): 1}) for n in range(7)]
    with pytest.raises(ConfigError, match="7 sources of counts do not fit 6MB of memory"):
        list(merge_counted(sources, memory=6 * 10**6, spill=None))


def test_a_merge_that_is_given_up_ends_its_threads(monkeypatch):
    monkeypatch.setattr(merging, "_RANGE", 2)
    sources = [Source({(1, n << 58): 1 for n in range(64)}) for _ in range(3)]
    before = set(threading.enumerate())
    merge = merge_counted(sources, memory=PLENTY, spill=None, threads=2)
    next(merge)
    assert set(threading.enumerate()) > before
    merge.close()
    assert set(threading.enumerate()) == before


@given(some_sources, st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_a_run_gives_back_what_was_written(sources, part):
    for source in sources:
        parts = [some for order in sorted(source.entries) for some in source.parts(order)]
        with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
            patch.setattr(spill, "PART", part)
            run = Run.write(Path(directory), iter(parts))
            assert list(Path(directory).iterdir()) == [run.path]
            assert run.entries == source.entries
            read = [some for order in sorted(run.entries) for some in run.parts(order)]
            assert flat(read) == flat(parts)
            assert all(0 < len(some) <= part for some in read)
            assert list(run.parts(5)) == []


def test_a_run_cuts_what_is_longer_than_a_part(tmp_path):
    long = counted(3, range(2 * PART + 1))
    run = Run.write(tmp_path, [counted(1, []), counted(2, [5]), long, counted(3, [1 << 60])])
    assert run.entries == {1: 0, 2: 1, 3: 2 * PART + 2}
    assert [len(part) for part in run.parts(3)] == [PART, PART, 1, 1]
    assert [part.order for part in run.parts(3)] == [3] * 4
    np.testing.assert_array_equal(np.concatenate([p.hash for p in run.parts(3)])[:-1], long.hash)


def test_counts_of_another_length_than_hashes_are_refused():
    with pytest.raises(DataError, match="hashes with"):
        CountedHashes(1, np.zeros(2, np.uint64), np.zeros(3, np.int64))
