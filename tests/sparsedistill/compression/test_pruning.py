"""Each rule keeps what it says, and pruning takes away rows and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from compression_cases import counted_vocabulary, model_of, texts, without_counts
from hypothesis import given
from hypothesis import strategies as st

from sparsedistill.compression.pruning import Rankings, places, prune, row_use, rows_of_share
from sparsedistill.errors import ConfigError
from sparsedistill.folded import FoldedModel
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary

RULES = ("contribution", "count", "train_count", "order")


def by_hand():
    """Nine words by count 9, 8, ... 1; counts in train the other way round but for ties.

    Rows are 1 from the average row, but for row 0, which is the average, and 7 and 8, far from it.
    """
    words = [f"w{i}" for i in range(7)] + ["w0 w1", "w7"]
    plain = Vocabulary.from_ngrams(NgramSpec(), words)
    counts = np.arange(9, 0, -1)
    train = np.array([0, 0, 2, 2, 4, 5, 5, 5, 8])
    vocabulary = Vocabulary(plain.spec, plain.ngrams, plain.hashes, counts, train)
    table = np.zeros((9, 4), np.float32)
    use = row_use(vocabulary)
    for row, distance in enumerate((0, 1, 1, 1, 1, 1, 1, 10, 10)):
        table[row, 0] = distance
    # The average is at 5 for a second number that all rows share, so plain norms would mislead.
    table[:, 0] -= use @ table[:, 0]
    table[0] = 0
    table[:, 0] -= use @ table[:, 0]
    table[:, 1] = 5
    model = FoldedModel(
        labels=("a", "b"), spec=vocabulary.spec, index=vocabulary.index, max_ngrams=9, table=table,
        hidden_bias=np.zeros(4), head_weight=np.ones((2, 4)), head_bias=np.zeros(2),
    )  # fmt: skip
    return model, vocabulary


def kept(model, vocabulary, rule, keep):
    return np.flatnonzero(places(model, vocabulary, rule) < keep).tolist()


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize(
    ("rule", "expected"),
    [("count", [0, 1, 2, 3]), ("train_count", [5, 6, 7, 8]), ("order", [0, 1, 2, 3])],
)
def test_each_rule_keeps_the_rows_it_is_named_for(rule, expected, dtype):
    model, vocabulary = by_hand()
    assert kept(model.converted(dtype), vocabulary, rule, 4) == expected


def test_pairs_go_before_any_single_word_by_order():
    model, vocabulary = by_hand()
    assert kept(model, vocabulary, "order", 8) == [0, 1, 2, 3, 4, 5, 6, 8]


def test_of_equally_useful_rows_the_more_frequent_stay():
    model, vocabulary = by_hand()
    assert kept(model, vocabulary, "train_count", 6) == [2, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_contribution_is_distance_from_the_average_row_times_the_root_of_use(dtype, monkeypatch):
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary, dtype=dtype)
    whole = places(model, vocabulary, "contribution")
    use = row_use(vocabulary)
    table = model.rows(np.arange(len(vocabulary))).astype(np.float64)
    lost = use * ((table - use @ table) ** 2).sum(axis=1)
    assert whole[np.argsort(-lost, kind="stable")].tolist() == list(range(len(vocabulary)))
    monkeypatch.setattr("sparsedistill.compression.pruning._BLOCK_ROWS", 7)
    np.testing.assert_array_equal(places(model, vocabulary, "contribution"), whole)


def test_what_all_rows_share_is_no_contribution():
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary)
    shifted = replace(model, table=model.table + 64)
    np.testing.assert_array_equal(
        places(shifted, vocabulary, "contribution"), places(model, vocabulary, "contribution")
    )


def test_use_is_the_mean_of_the_shares_in_everything_and_in_train():
    vocabulary = counted_vocabulary()
    counts, train = vocabulary.counts, vocabulary.train_counts
    expected = counts / counts.sum() / 2 + train / train.sum() / 2
    np.testing.assert_allclose(row_use(vocabulary), expected)
    assert row_use(vocabulary).sum() == pytest.approx(1)


def test_without_counts_use_falls_with_the_row_as_zipf_has_it():
    use = row_use(without_counts(counted_vocabulary()))
    np.testing.assert_allclose(use / use[0], 1 / np.arange(1, len(use) + 1))


def test_without_counts_in_train_that_rule_is_refused_and_not_offered():
    vocabulary = counted_vocabulary()
    model, plain = model_of(vocabulary), without_counts(vocabulary)
    assert set(Rankings(model, plain).rules) == set(RULES) - {"train_count"}
    assert set(Rankings(model, vocabulary).rules) == set(RULES)
    with pytest.raises(ConfigError, match="give the run's vocabulary too, or prune by contr"):
        Rankings(model, plain)["train_count"]


@pytest.mark.parametrize("rule", RULES)
def test_a_ranking_has_every_place_once_so_that_fewer_rows_are_part_of_more(rule):
    vocabulary = counted_vocabulary()
    ranking = places(model_of(vocabulary), vocabulary, rule)
    assert sorted(ranking) == list(range(len(vocabulary)))


@pytest.mark.parametrize("keep", [0, 10])
def test_keeping_no_row_or_more_than_there_are_is_refused(keep):
    model, vocabulary = by_hand()
    with pytest.raises(ConfigError, match=f"keep {keep} of 9"):
        prune(model, vocabulary, np.arange(9), keep)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_all_rows_kept_is_the_same_model(dtype):
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary, dtype=dtype)
    ranking = places(model, vocabulary, "contribution")
    pruned, same = prune(model, vocabulary, ranking, len(vocabulary))
    assert same is vocabulary
    np.testing.assert_array_equal(pruned.logits(texts()), model.logits(texts()))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_kept_rows_stay_as_they_are_and_in_their_order(dtype):
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary, dtype=dtype)
    ranking = places(model, vocabulary, "contribution")
    rows = np.flatnonzero(ranking < 40)
    pruned, kept = prune(model, vocabulary, ranking, 40)
    assert list(kept.ngrams) == [vocabulary[row] for row in rows.tolist()]
    np.testing.assert_array_equal(pruned.rows(np.arange(40)), model.rows(rows))
    np.testing.assert_array_equal(kept.counts, vocabulary.counts[rows])


def test_texts_of_kept_ngrams_alone_get_the_same_logits_after_pruning():
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary)
    ranking = places(model, vocabulary, "order")
    single = [ngram for ngram in vocabulary.ngrams if " " not in ngram]
    pruned, _ = prune(model, vocabulary, ranking, len(single))
    # One word a text, so that no pair was known before either.
    words = TextBuffer.from_strings([*single, "", "unknown"])
    np.testing.assert_array_equal(pruned.logits(words), model.logits(words))


def test_a_longer_ngram_is_still_found_when_its_parts_are_pruned():
    vocabulary = Vocabulary.from_ngrams(NgramSpec(), ["very", "bad", "film", "very bad film"])
    model = model_of(vocabulary)
    pruned, kept = prune(model, vocabulary, np.array([1, 2, 3, 0]), 1)
    assert kept.bags(TextBuffer.from_strings(["a very bad film"]))[0].tolist() == [0]
    np.testing.assert_array_equal(pruned.table[0], model.table[3])


@given(rows=st.integers(1, 10**7), share=st.floats(1e-9, 1))
def test_a_share_of_rows_is_at_least_one_and_at_most_all(rows, share):
    assert 1 <= rows_of_share(rows, share) <= rows
