from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from ngram_cases import corpora, specs, vectorizer

from sparsedistill.errors import DataError
from sparsedistill.text import counting, oracle
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.counting import NgramCounts, count_ngrams, ngram_strings
from sparsedistill.text.ngram_spec import NgramSpec


def recovered(texts, spec, counts):
    return ngram_strings(
        texts, spec, rows=counts.row, positions=counts.position, orders=counts.order
    )


@given(corpora, specs)
@settings(deadline=None, max_examples=300)
def test_counts_and_strings_are_those_of_count_vectorizer(corpus, spec):
    texts = TextBuffer.from_strings(corpus)
    counts = count_ngrams(texts, spec)
    strings = recovered(texts, spec, counts)
    found = dict(zip(strings, counts.count.tolist(), strict=True))
    judge = vectorizer(spec)
    if not any(map(judge.build_analyzer(), corpus)):
        assert found == {}
        return
    sums = np.asarray(judge.fit_transform(corpus).sum(axis=0)).ravel()
    assert found == dict(zip(judge.get_feature_names_out(), sums.tolist(), strict=True))


@given(corpora, specs)
@settings(deadline=None, max_examples=200)
def test_entries_are_sorted_by_hash_and_tell_where_each_ngram_first_is(corpus, spec):
    texts = TextBuffer.from_strings(corpus)
    counts = count_ngrams(texts, spec)
    assert (counts.hash[1:] > counts.hash[:-1]).all()
    first = {}
    for row, text in enumerate(corpus):
        tokens = oracle.tokens(text, spec)
        for position in range(len(tokens)):
            for n in range(spec.min_n, min(spec.max_n, len(tokens) - position) + 1):
                ngram = " ".join(tokens[position : position + n])
                first.setdefault(oracle.ngram_hash(ngram), (row, position, n))
    places = zip(counts.row.tolist(), counts.position.tolist(), counts.order.tolist(), strict=True)
    assert dict(zip(counts.hash.tolist(), places, strict=True)) == first


def long_corpus(rows):
    rng = np.random.default_rng(1)
    words = np.array([f"w{i}" for i in range(5000)])
    return [" ".join(words[rng.zipf(1.3, 60) % len(words)]) for _ in range(rows)]


def test_growing_the_table_in_ranges_and_in_threads_counts_the_same(monkeypatch):
    corpus = long_corpus(1500)
    texts, spec = TextBuffer.from_strings(corpus), NgramSpec()
    expected = Counter(g for text in corpus for g in oracle.ngrams(text, spec))
    results = []
    for many, threads in ((1 << 30, 1), (0, 1), (0, 3), (1 << 30, 2)):
        monkeypatch.setattr(counting, "_MANY", many)
        results.append(count_ngrams(texts, spec, threads=threads))
    for result in results[1:]:
        for name in NgramCounts.__slots__:
            np.testing.assert_array_equal(getattr(result, name), getattr(results[0], name))
    assert len(results[0]) == len(expected)
    assert results[0].count.sum() == sum(expected.values())
    strings = recovered(texts, spec, results[0])
    assert dict(zip(strings, results[0].count.tolist(), strict=True)) == expected


def test_a_row_longer_than_the_table_is_counted():
    text = " ".join(f"t{i}" for i in range(20_000))
    counts = count_ngrams(TextBuffer.from_strings([text, "t1 t2"]), NgramSpec("word", 1, 2))
    assert len(counts) == 20_000 + 19_999
    assert counts.count.max() == 2


@pytest.mark.parametrize("corpus", [[], [""], ["", "a ! ?"]])
def test_texts_without_ngrams_give_no_counts(corpus):
    texts = TextBuffer.from_strings(corpus)
    counts = count_ngrams(texts, NgramSpec(), threads=2)
    assert len(counts) == 0
    assert list(recovered(texts, NgramSpec(), counts)) == []


def test_more_tokens_than_places_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(counting, "_PLACES", 20)
    with pytest.raises(DataError, match="use fewer rows"):
        count_ngrams(TextBuffer.from_strings(["aa bb cc dd ee"]), NgramSpec())


def test_strings_of_places_that_the_texts_do_not_have_are_refused():
    texts = TextBuffer.from_strings(["aa bb"])
    for row, position, order, message in (
        (1, 0, 1, "there are 1 rows"),
        (0, 1, 2, "row 0 has no n-gram of 2 tokens at position 1"),
        (0, 0, 0, "no n-gram of 0 tokens"),
    ):
        with pytest.raises(DataError, match=message):
            ngram_strings(
                texts,
                NgramSpec(),
                rows=np.array([row], np.uint32),
                positions=np.array([position], np.uint32),
                orders=np.array([order], np.uint8),
            )


def test_strings_much_longer_than_foreseen_are_recovered():
    words = ["x" * 500, "Ⱥ" * 300, "yy"]
    texts = TextBuffer.from_strings(["aa bb", " ".join(words)])
    spec = NgramSpec("word", 1, 3)
    counts = count_ngrams(texts, spec)
    expected = set(oracle.ngrams("aa bb", spec)) | set(oracle.ngrams(texts[1], spec))
    assert set(recovered(texts, spec, counts)) == expected
