import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngram_cases import corpora, specs

from sparsedistill.counted import CountedHashes
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.selection import UnprovedError, finish, pool_bytes, select_top
from sparsedistill.text import oracle
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.counting import count_ngrams
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text.recovery import recover

CORPUS = [
    "the film was good the film was very good",
    "ähnlich gut war the film was bad",
    "b2 a1 b2 a1 the aa ab ac ad",
    "averyveryverylongword averyveryverylongwore averyvery",
    "",
]


def counted_strings(counts):
    """`{ngram: count}` as `CountedHashes`, one for each order."""
    by_order = {}
    for ngram, count in counts.items():
        by_order.setdefault(ngram.count(" ") + 1, {})[oracle.ngram_hash(ngram)] = count
    return [
        CountedHashes(
            order,
            np.array(sorted(entries), np.uint64),
            np.array([entries[ngram] for ngram in sorted(entries)], np.int64),
        )
        for order, entries in sorted(by_order.items())
    ]


def in_pieces(parts, pieces, rng):
    """The same counts, cut into ranges of hashes that come in any order."""
    cut = [
        CountedHashes(part.order, part.hash[at], part.count[at])
        for part in parts
        for at in np.array_split(np.arange(len(part)), pieces)
    ]
    return [cut[i] for i in rng.permutation(len(cut))]


def total(corpus, spec):
    return Counter(ngram for text in corpus for ngram in oracle.ngrams(text, spec))


def ranked(counts, size, min_count=1):
    """The oracle: all n-grams, sorted as the design says."""
    every = sorted(counts, key=lambda g: (-counts[g], g.count(" "), g.encode()))
    return [g for g in every if counts[g] >= min_count][:size]


def listed(chosen):
    assert chosen.hashes.tolist() == [oracle.ngram_hash(ngram) for ngram in chosen.strings]
    return list(chosen.strings), chosen.counts.tolist()


@given(
    st.one_of(st.just(CORPUS), corpora),
    specs,
    st.integers(1, 120),
    st.integers(1, 3),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=200)
def test_the_rows_are_the_first_of_the_sorted_ngrams_however_counts_come(
    corpus, spec, size, min_count, pieces, random
):
    texts = TextBuffer.from_strings(corpus)
    counts = total(corpus, spec)
    rng = np.random.default_rng(random.randrange(1 << 30))
    parts = in_pieces(counted_strings(counts), pieces, rng)
    selection = select_top(iter(parts), size=size, min_count=min_count)
    entries, strings = recover([texts], spec, selection.hash)
    # Strings may come in any order.
    order = rng.permutation(len(entries))
    chosen = finish(selection, entries[order], strings.take(order))
    expected = ranked(counts, size, min_count)
    assert listed(chosen) == (expected, [counts[ngram] for ngram in expected])
    assert selection.rows == len(expected)
    statistics = selection.statistics()
    by_order = Counter(ngram.count(" ") + 1 for ngram in counts)
    assert statistics["asked"] == size
    assert statistics["candidates"] == len(selection) >= selection.rows
    assert statistics["distinct"] == len(counts)
    assert statistics["distinct_by_order"] == [by_order[n] for n in range(1, 8)]
    assert statistics["occurrences"] == sum(counts.values())
    assert sum(statistics["occurrences_by_order"]) == sum(counts.values())
    assert statistics["eligible"] == sum(count >= min_count for count in counts.values())
    assert statistics["lowest_count"] == (counts[expected[-1]] if expected else 0)


def test_candidates_are_by_count_and_then_by_length_and_are_no_more_than_can_tie():
    counts = {"aa": 3, "bb": 3, "aa bb": 3, "cc": 2, "dd": 2, "ee": 2, "cc dd": 2, "ff": 1}
    selection = select_top(counted_strings(counts), size=5)
    assert selection.count.tolist() == [3, 3, 3, 2, 2, 2]
    assert selection.order.tolist() == [1, 1, 2, 1, 1, 1]
    assert selection.rows == 5


def test_more_rows_than_ngrams_gives_all_and_says_so():
    counts = total(CORPUS, NgramSpec())
    selection = select_top(counted_strings(counts), size=10**6)
    assert selection.rows == len(selection) == selection.statistics()["distinct"] == len(counts)
    assert selection.statistics()["asked"] == 10**6


def ranges_of(counts, each):
    for begin in range(0, len(counts), each):
        some = counts[begin : begin + each]
        hashes = np.arange(begin, begin + len(some), dtype=np.uint64) << np.uint64(40)
        yield CountedHashes(1, hashes, some)


def test_what_cannot_be_chosen_is_forgotten_on_the_way():
    # 64 ranges of 1,000 n-grams with counts of their own: never more than one and a half are held.
    counts = np.random.default_rng(0).permutation(64_000) + 1
    selection = select_top(ranges_of(counts, 1000), size=100, memory=1500 * 32)
    assert selection.count.tolist() == list(range(64_000, 63_900, -1))
    np.testing.assert_array_equal(
        counts[selection.hash.astype(np.int64) >> 40], np.arange(64_000, 63_900, -1)
    )


@pytest.mark.parametrize("each", [1, 17, 5000])
def test_common_and_rare_counts_are_cut_off_alike(each):
    rng = np.random.default_rng(1)
    for low, high in ((1, 4), (4000, 4200), (1, 10**9)):
        counts = rng.integers(low, high, 5000)
        for size in (1, 100, 4999):
            selection = select_top(ranges_of(counts, each), size=size)
            expected = np.sort(counts)[::-1]
            expected = expected[expected >= expected[size - 1]]
            assert selection.count.tolist() == expected.tolist()


def test_too_many_ties_for_the_memory_say_what_is_enough():
    counts = np.ones(10_000, np.int64)
    memory = 10**6
    with pytest.raises(ConfigError, match="10,000 n-grams can be among the first 10, ") as caught:
        select_top(ranges_of(counts, 10_000), size=10, memory=memory)
    enough = int(re.search(r"take (\d+)MB", str(caught.value))[1]) * 10**6
    assert len(select_top(ranges_of(counts, 10_000), size=10, memory=enough)) == 10_000
    assert len(select_top(ranges_of(counts, 10_000), size=10, min_count=2, memory=0)) == 0


def test_too_many_ties_are_noticed_before_all_counts_have_come():
    def parts():
        yield from ranges_of(np.ones(10_000, np.int64), 1000)
        pytest.fail("all were read")

    with pytest.raises(
        ConfigError, match=r"at least \d,000 n-grams can be among .* or raise min_count"
    ):
        select_top(parts(), size=10, memory=64_000)


def test_what_the_pool_takes_grows_with_the_size_alone():
    assert pool_bytes(2_000_000) == 2 * pool_bytes(1_000_000) > 32 * 10**6


def changed(strings, entries):
    return TextBuffer.from_strings([*list(strings)[:-1], "other"]), entries


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed, r"candidate \d+: 'other' does not have the hash"),
        (lambda strings, entries: (strings, entries[::-1]), "does not have the hash"),
        (lambda strings, entries: (strings.slice(0, 1), entries), "1 strings for"),
        (lambda strings, entries: (strings, entries[:-1]), "strings for"),
        (lambda strings, entries: (strings.take([0, 0, 0]), entries[[0, 0, 0]]), "there twice"),
    ],
)
def test_strings_that_are_not_those_of_the_candidates_are_refused(change, message):
    selection = select_top(counted_strings({"aa": 3, "bb": 2, "aa bb": 1}), size=5)
    texts = TextBuffer.from_strings(["aa bb"])
    entries, strings = recover([texts], NgramSpec(), selection.hash)
    strings, entries = change(strings, entries)
    with pytest.raises(DataError, match=message):
        finish(selection, entries, strings)


def test_a_hash_counted_with_another_length_is_refused():
    part = CountedHashes(2, np.array([oracle.ngram_hash("word")], np.uint64), np.ones(1, np.int64))
    selection = select_top([part], size=1)
    with pytest.raises(DataError, match="'word' does not have"):
        finish(selection, np.zeros(1, np.int64), TextBuffer.from_strings(["word"]))


def test_an_ngram_that_comes_twice_is_refused():
    once = counted_strings({"word": 2})
    selection = select_top([*once, *once], size=5)
    with pytest.raises(DataError, match="not added up"):
        finish(selection, np.arange(2), TextBuffer.from_strings(["word", "word"]))


def choose_from(text, size):
    spec = NgramSpec("whitespace", 1, 1)
    texts = TextBuffer.from_strings([text])
    counts = count_ngrams(texts, spec)
    selection = select_top([CountedHashes(1, counts.hash, counts.count)], size=size)
    return list(finish(selection, *recover([texts], spec, selection.hash)).strings)


def test_strings_that_begin_alike_are_sorted_by_bytes_to_their_end():
    strings = ["a" * 16, "a" * 8, "a" * 8 + "\x00", "a" * 17, "a" * 15 + "b", "ä", "z", "a" * 24]
    assert choose_from(" ".join(strings), 8) == sorted(strings, key=str.encode)


def test_strings_that_differ_in_nuls_at_their_end_alone_are_sorted_by_length():
    strings = [start + "\x00" * n for start in ("", "a", "a" * 7) for n in range(1, 30)]
    assert choose_from(" ".join(strings), 1000) == sorted(strings)
    assert choose_from(" ".join(strings), 40) == sorted(strings)[:40]


@given(
    st.lists(st.text("ab\x00z", min_size=1, max_size=40), unique=True, max_size=60),
    st.integers(0, 20),
    st.integers(1, 40),
)
@settings(deadline=None, max_examples=150)
def test_ties_at_the_cut_off_go_to_the_first_by_bytes(strings, common, size):
    strings = ["a" * common + string for string in strings]
    # Some come twice: they are before all others.
    twice = set(strings[::3])
    text = " ".join([*strings, *strings[::3]])
    expected = sorted(strings, key=lambda s: (s not in twice, s.encode()))
    assert choose_from(text, size) == expected[:size]


@given(
    shards=st.lists(
        st.tuples(st.lists(st.sampled_from("abcdefgh"), max_size=60), st.integers(0, 3)),
        min_size=1,
        max_size=4,
    ),
    size=st.integers(1, 30),
    min_count=st.integers(1, 8),
    pieces=st.integers(1, 3),
)
@settings(deadline=None, max_examples=400)
def test_with_rare_ngrams_dropped_the_rows_are_exact_or_said_to_be_unproved(
    shards, size, min_count, pieces
):
    spec = NgramSpec("whitespace", 1, 2)
    corpus = [" ".join(letters) for letters, _ in shards]
    kept = Counter()
    for text, (_, dropped) in zip(corpus, shards, strict=True):
        kept.update({g: n for g, n in total([text], spec).items() if n > dropped})
    bound = sum(dropped for _, dropped in shards)
    parts = in_pieces(counted_strings(kept), pieces, np.random.default_rng(0))
    exact = total(corpus, spec)
    unproved = None
    try:
        selection = select_top(parts, size=size, min_count=min_count, bound=bound)
    except UnprovedError as error:
        unproved = error
    if unproved is not None:
        assert bound > 0
        assert unproved.bound == bound >= unproved.lowest
        size = unproved.provable
        if size == 0:
            return
        selection = select_top(parts, size=size, min_count=min_count, bound=bound)
    texts = TextBuffer.from_strings(corpus)
    entries, strings = recover([texts], spec, selection.hash)
    recounted = np.array([exact[ngram] for ngram in strings], np.int64)
    chosen = finish(selection, entries, strings, recounted)
    expected = ranked(exact, size, min_count)
    assert listed(chosen) == (expected, [exact[ngram] for ngram in expected])


def test_a_clear_lead_over_what_was_dropped_is_proof():
    counts = {"aa": 100, "bb": 90, "aa bb": 50, "cc": 49, "dd": 48, "ee": 7}
    selection = select_top(counted_strings(counts), size=3, bound=2)
    assert selection.count.tolist() == [100, 90, 50, 49, 48]
    strings = TextBuffer.from_strings(["aa", "bb", "aa bb", "cc", "dd"])
    hashes = [oracle.ngram_hash(ngram) for ngram in strings]
    entries = np.array([selection.hash.tolist().index(ngram) for ngram in hashes])
    chosen = finish(selection, entries, strings, np.array([100, 90, 51, 51, 50]))
    assert listed(chosen) == (["aa", "bb", "cc"], [100, 90, 51])


def test_what_was_dropped_as_often_as_the_last_row_is_no_proof():
    counts = {"aa": 9, "bb": 5, "cc": 4, "dd": 3}
    assert select_top(counted_strings(counts), size=3, bound=3).rows == 3
    with pytest.raises(UnprovedError, match="may occur 4 times, and the last row's only 4") as e:
        select_top(counted_strings(counts), size=3, bound=4)
    assert (e.value.bound, e.value.lowest, e.value.provable) == (4, 4, 2)
    with pytest.raises(UnprovedError):
        select_top(counted_strings(counts), size=10, bound=1)
    assert select_top(counted_strings(counts), size=10, min_count=4, bound=3).rows >= 3


@pytest.mark.parametrize(("size", "min_count"), [(0, 1), (1, 0)])
def test_sizes_that_cannot_work_are_refused(size, min_count):
    with pytest.raises(ConfigError):
        select_top([], size=size, min_count=min_count)


@pytest.mark.parametrize(("count", "order"), [(2**60, 1), (2**61, 1), (1, 0), (1, 8)])
def test_counts_and_orders_out_of_range_are_refused(count, order):
    part = CountedHashes(order, np.array([5], np.uint64), np.array([count]))
    with pytest.raises(DataError):
        select_top([part], size=1)


def test_the_largest_count_is_no_less_than_others():
    part = CountedHashes(1, np.arange(3, dtype=np.uint64), np.array([1, 2**60 - 1, 2**59]))
    assert select_top([part], size=2).count.tolist() == [2**60 - 1, 2**59]


def test_no_ngrams_at_all_is_an_empty_vocabulary():
    empty = CountedHashes(1, np.zeros(0, np.uint64), np.zeros(0, np.int64))
    for parts in ([], [empty]):
        selection = select_top(parts, size=3)
        chosen = finish(selection, np.zeros(0, np.int64), TextBuffer.from_strings([]))
        assert (selection.rows, len(chosen.strings), len(chosen.counts)) == (0, 0, 0)
        assert selection.statistics()["lowest_count"] == 0
