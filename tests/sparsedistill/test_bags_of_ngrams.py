from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ngram_cases import corpora, specs, vectorizer

from sparsedistill import ngram_index
from sparsedistill.bags import Bags
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.ngram_index import BRIDGE, UNKNOWN, NgramIndex
from sparsedistill.text import oracle
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary


@st.composite
def corpus_and_vocabulary(draw):
    """Texts, and any n-grams: most of the texts', prefixes left out at random, and a stranger."""
    spec, corpus = draw(specs), draw(corpora)
    all_ngrams = sorted({g for text in corpus for g in oracle.ngrams(text, spec)})
    known = draw(st.lists(st.sampled_from(all_ngrams), unique=True)) if all_ngrams else []
    return spec, corpus, [*known, "never seen anywhere"]


@given(corpus_and_vocabulary())
@settings(deadline=None, max_examples=300)
def test_bags_are_the_multisets_of_count_vectorizer_for_any_vocabulary(case):
    spec, corpus, ngrams = case
    bags = Vocabulary.from_ngrams(spec, ngrams).bags(TextBuffer.from_strings(corpus))
    assert len(bags) == len(corpus)
    if corpus:
        matrix = vectorizer(spec, vocabulary=ngrams).transform(corpus)
        for i, bag in enumerate(bags):
            row = matrix[[i]].tocoo()
            assert Counter(bag.tolist()) == dict(
                zip(row.col.tolist(), row.data.tolist(), strict=True)
            )


@given(corpus_and_vocabulary(), st.integers(1, 12))
@settings(deadline=None, max_examples=200)
def test_a_bag_is_in_the_order_of_the_text_and_keeps_the_first_known_ones(case, limit):
    spec, corpus, ngrams = case
    vocabulary = Vocabulary.from_ngrams(spec, ngrams)
    bags = vocabulary.bags(TextBuffer.from_strings(corpus), max_ngrams=limit)
    for text, bag in zip(corpus, bags, strict=True):
        known = [ngrams.index(g) for g in oracle.ngrams(text, spec) if g in ngrams]
        assert bag.tolist() == known[:limit]


def test_threads_and_blocks_do_not_show_in_the_result(monkeypatch):
    corpus = [f"word{i % 7} film{i % 3} was" for i in range(100)] + [""]
    vocabulary = Vocabulary.from_ngrams(NgramSpec(), ["was", "film1", "film1 was", "word3 film1"])
    texts = TextBuffer.from_strings(corpus)
    expected = vocabulary.bags(texts)
    monkeypatch.setattr(ngram_index, "BLOCK", 7)
    for threads in (1, 3):
        bags = vocabulary.bags(texts, threads=threads)
        np.testing.assert_array_equal(bags.rows, expected.rows)
        np.testing.assert_array_equal(bags.offsets, expected.offsets)


def test_what_only_begins_a_known_ngram_is_a_bridge_and_has_no_row():
    vocabulary = Vocabulary.from_ngrams(NgramSpec(), ["not very good"])
    wanted = ["not", "not very", "not very good", "very good"]
    hashes = np.array([oracle.ngram_hash(g) for g in wanted], np.uint64)
    assert vocabulary.index.find(hashes).tolist() == [BRIDGE, BRIDGE, 0, UNKNOWN]
    bags = vocabulary.bags(TextBuffer.from_strings(["it was not very good", "not very bad"]))
    assert [bag.tolist() for bag in bags] == [[0], []]


def test_a_vocabulary_of_the_most_frequent_needs_no_bridges():
    vocabulary = Vocabulary.from_ngrams(NgramSpec(), ["not", "very", "not very"])
    assert vocabulary.index.bridges == 0


def test_an_index_of_small_hashes_finds_them_and_nothing_else():
    # 0 is what empty slots hold; all the others but 1 begin at the same slot.
    hashes = np.array([0, 1, 16, 32, 48, 2**63], np.uint64)
    index = NgramIndex.build(hashes, np.zeros(0, np.uint64))
    assert index.find(hashes).tolist() == list(range(6))
    assert index.find(np.array([2, 3, 64, 2**64 - 1], np.uint64)).tolist() == [UNKNOWN] * 4


def test_one_hash_twice_is_refused_by_row():
    with pytest.raises(DataError, match="entries 1 and 3"):
        NgramIndex.build(np.array([5, 7, 9, 7], np.uint64), np.zeros(0, np.uint64))


def test_no_room_for_any_ngram_is_refused():
    with pytest.raises(ConfigError, match="max_ngrams"):
        Vocabulary.from_ngrams(NgramSpec(), ["ab"]).bags(
            TextBuffer.from_strings(["ab"]), max_ngrams=0
        )


def test_bags_can_be_taken_put_together_and_read():
    bags = Bags(np.array([3, 1, 4, 1, 5]), np.array([0, 2, 2, 5]))
    assert [bag.tolist() for bag in bags] == [[3, 1], [], [4, 1, 5]]
    assert bags[-1].tolist() == [4, 1, 5]
    assert [bag.tolist() for bag in bags.take([2, 0, 2])] == [[4, 1, 5], [3, 1], [4, 1, 5]]
    assert len(bags.take([])) == 0
    both = Bags.concat([bags, bags.take([1]), bags])
    assert [bag.tolist() for bag in both] == [[3, 1], [], [4, 1, 5], [], [3, 1], [], [4, 1, 5]]
    assert len(Bags.concat([])) == 0
    with pytest.raises(IndexError):
        bags[3]


@pytest.mark.parametrize("offsets", [[], [0, 4], [1, 5], [0, 3, 2, 5]])
def test_offsets_that_do_not_fit_the_rows_are_refused(offsets):
    with pytest.raises(DataError):
        Bags(np.zeros(5, np.int32), np.array(offsets, np.int64))
