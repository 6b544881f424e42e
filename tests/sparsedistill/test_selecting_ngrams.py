from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.merging import CountedHashes, merge_counted
from sparsedistill.selection import finish, select_top
from sparsedistill.text import oracle
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.counting import count_ngrams, ngram_strings
from sparsedistill.text.ngram_spec import NgramSpec


def counted(counts, origin=0):
    """`{hash: (count, order)}` as `CountedHashes`, origins from `origin` on."""
    hashes = sorted(counts)
    return CountedHashes(
        np.array(hashes, np.uint64),
        np.array([counts[h][0] for h in hashes], np.int64),
        np.array([counts[h][1] for h in hashes], np.uint8),
        np.arange(origin, origin + len(hashes)),
    )


parts = st.lists(
    st.dictionaries(st.integers(0, 40), st.integers(0, 5), max_size=20).map(
        lambda counts: {h * 2**58: (c, h % 7 + 1) for h, c in counts.items()}
    ),
    max_size=9,
)


@given(parts)
@settings(deadline=None)
def test_merging_adds_counts_and_keeps_the_first_origin(several):
    expected, origins = Counter(), {}
    arrays = []
    for number, part in enumerate(several):
        arrays.append(counted(part, origin=100 * number))
        for entry, ngram in enumerate(arrays[-1].hash.tolist()):
            expected[ngram] += part[ngram][0]
            origins.setdefault(ngram, 100 * number + entry)
    merged = merge_counted(iter(arrays))
    assert merged.hash.tolist() == sorted(expected)
    assert merged.count.tolist() == [expected[h] for h in sorted(expected)]
    assert merged.origin.tolist() == [origins[h] for h in sorted(expected)]
    assert merged.order.tolist() == [h // 2**58 % 7 + 1 for h in sorted(expected)]


def test_one_hash_of_two_lengths_is_refused():
    with pytest.raises(DataError, match="0x0000000000000007"):
        merge_counted([counted({3: (1, 1), 7: (1, 1)}), counted({7: (1, 2)})])


@pytest.mark.parametrize("hashes", [[2, 1], [1, 1]])
def test_hashes_that_do_not_ascend_are_refused(hashes):
    with pytest.raises(DataError, match="entry 1"):
        CountedHashes(np.array(hashes, np.uint64), np.ones(2), np.ones(2), np.zeros(2))


CORPUS = [
    "the film was good the film was very good",
    "ähnlich gut war the film was bad",
    "b2 a1 b2 a1 the aa ab ac ad",
    "averyveryverylongword averyveryverylongwore averyvery",
    "",
]


def ranked(spec, size, min_count):
    """The oracle: all n-grams, sorted as the design says."""
    counts = Counter(g for text in CORPUS for g in oracle.ngrams(text, spec))
    every = sorted(counts, key=lambda g: (-counts[g], g.count(" "), g.encode()))
    return [g for g in every if counts[g] >= min_count][:size], counts


def chosen(spec, size, min_count, pieces):
    texts = TextBuffer.from_strings(CORPUS)
    counts = count_ngrams(texts, spec)
    origin = np.arange(len(counts))
    ranges = [
        CountedHashes(counts.hash[p], counts.count[p], counts.order[p], origin[p])
        for p in np.array_split(origin, pieces)
    ]
    selection = select_top(iter(ranges), size=size, min_count=min_count)
    at = selection.origin
    strings = ngram_strings(
        texts,
        spec,
        rows=counts.row[at],
        positions=counts.position[at],
        orders=counts.order[at],
    )
    return selection, strings


@given(
    st.sampled_from([NgramSpec(), NgramSpec("character", 1, 3), NgramSpec("word", 2, 2)]),
    st.integers(1, 120),
    st.integers(1, 3),
    st.sampled_from([1, 2, 7, 64]),
)
@settings(deadline=None, max_examples=200)
def test_the_rows_are_the_first_of_the_sorted_ngrams(spec, size, min_count, pieces):
    selection, strings = chosen(spec, size, min_count, pieces)
    rows = finish(selection, strings)
    expected, counts = ranked(spec, size, min_count)
    assert [strings[i] for i in rows] == expected
    assert selection.count[rows].tolist() == [counts[g] for g in expected]
    assert selection.rows == len(expected)
    statistics = selection.statistics()
    assert statistics["distinct"] == len(counts)
    assert statistics["occurrences"] == sum(counts.values())
    assert statistics["eligible"] == sum(c >= min_count for c in counts.values())
    assert statistics["lowest_count"] == (counts[expected[-1]] if expected else 0)
    by_order = Counter(g.count(" ") for g in counts)
    assert statistics["distinct_by_order"] == [by_order[n] for n in range(7)]


def test_more_rows_than_ngrams_gives_all_and_says_so():
    selection, strings = chosen(NgramSpec(), 10**6, 1, 3)
    assert len(finish(selection, strings)) == selection.rows == selection.statistics()["distinct"]
    assert selection.statistics()["asked"] == 10**6


def test_what_cannot_be_chosen_is_forgotten_on_the_way():
    # 64 ranges of 1,000 n-grams with counts of their own: never more than a few sizes are held.
    counts = np.random.default_rng(0).permutation(64_000) + 1
    ranges = (
        CountedHashes(
            np.arange(1000, dtype=np.uint64) + np.uint64(r << 58),
            counts[r * 1000 :][:1000],
            np.ones(1000),
            np.arange(1000),
        )
        for r in range(64)
    )
    selection = select_top(ranges, size=100)
    assert selection.count.tolist() == list(range(64_000, 63_900, -1))


def test_strings_of_other_texts_are_refused_by_name():
    selection, strings = chosen(NgramSpec(), 5, 1, 1)
    other = TextBuffer.from_strings([*list(strings)[:-1], "other"])
    with pytest.raises(DataError, match=r"candidate \d+: 'other' does not have the hash"):
        finish(selection, other)
    with pytest.raises(DataError, match="strings for"):
        finish(selection, strings.slice(0, 1))


def test_an_ngram_in_two_ranges_is_refused():
    word = oracle.ngram_hash("word")
    selection = select_top([counted({word: (2, 1)}), counted({word: (2, 1)})], size=5)
    with pytest.raises(DataError, match="two ranges"):
        finish(selection, TextBuffer.from_strings(["word", "word"]))


def test_strings_that_begin_alike_are_sorted_by_bytes_to_their_end():
    strings = ["a" * 16, "a" * 8, "a" * 8 + "\x00", "a" * 17, "a" * 15 + "b", "ä", "z", "a" * 24]
    spec = NgramSpec("whitespace", 1, 1)
    texts = TextBuffer.from_strings([" ".join(strings)])
    counts = count_ngrams(texts, spec)
    selection = select_top(
        [CountedHashes(counts.hash, counts.count, counts.order, counts.position)], size=8
    )
    packed = texts.from_strings([strings[i] for i in selection.origin])
    rows = finish(selection, packed)
    assert [packed[i] for i in rows] == sorted(strings, key=str.encode)


@pytest.mark.parametrize(("size", "min_count"), [(0, 1), (1, 0)])
def test_sizes_that_cannot_work_are_refused(size, min_count):
    with pytest.raises(ConfigError):
        select_top([], size=size, min_count=min_count)


@pytest.mark.parametrize("entry", [(-1, 1), (2**61, 1), (1, 0), (1, 8)])
def test_counts_and_orders_out_of_range_are_refused(entry):
    with pytest.raises(DataError):
        select_top([counted({5: entry})], size=1)


def test_no_ngrams_at_all_is_an_empty_vocabulary():
    selection = select_top([counted({})], size=3)
    assert (selection.rows, len(finish(selection, TextBuffer.from_strings([])))) == (0, 0)
