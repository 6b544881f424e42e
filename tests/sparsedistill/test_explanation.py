"""Laws of explanations: they add up to what the model says, and are where they say they are."""

from collections import Counter

import numpy as np
import pytest
from helpers.folded_cases import NGRAMS, TEXTS, WORDS, small_model, small_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.explanation import explain
from sparsedistill.text import oracle
from sparsedistill.text.buffers import TextBuffer

texts = st.lists(st.sampled_from([*WORDS, "unknown", "FILM", "a", "İ", "\n"]), max_size=30).map(
    " ".join
)


def explained(model, text):
    return explain(model, TextBuffer.from_strings([text]))


def exact_logits(model, text):
    """The model in float64, by the oracle's n-grams."""
    row_of = {hash_: row for row, hash_ in enumerate(model.index.hashes.tolist())}
    found = [row_of.get(oracle.ngram_hash(one)) for one in oracle.ngrams(text, model.spec)]
    rows = [row for row in found if row is not None][: model.max_ngrams]
    table = model.rows(np.arange(len(model.table))).astype(np.float64)
    hidden = table[rows].sum(axis=0) / max(1, len(rows)) + model.hidden_bias
    active = np.maximum(hidden, 0) if model.activation == "relu" else np.tanh(hidden)
    return model.head_weight.astype(np.float64) @ active + model.head_bias


@given(
    text=texts,
    seed=st.integers(0, 50),
    activation=st.sampled_from(["relu", "tanh"]),
    table_type=st.sampled_from(["float32", "float16", "int8"]),
    max_ngrams=st.sampled_from([1, 3, 2048]),
)
@settings(max_examples=150, deadline=None)
def test_contributions_and_bias_are_the_logits(text, seed, activation, table_type, max_ngrams):
    model = small_model(seed=seed, activation=activation, max_ngrams=max_ngrams)
    model = model.converted(table_type)
    found = explained(model, text)
    total = found.bias + sum((one.contributions for one in found.ngrams), np.zeros(3))
    np.testing.assert_allclose(found.logits, total, rtol=0, atol=1e-12)
    np.testing.assert_allclose(total, exact_logits(model, text), rtol=1e-12, atol=1e-12)


@given(text=texts, seed=st.integers(0, 50), max_ngrams=st.sampled_from([2, 2048]))
@settings(max_examples=100, deadline=None)
def test_words_add_up_to_what_ngrams_do(text, seed, max_ngrams):
    found = explained(small_model(seed=seed, max_ngrams=max_ngrams), text)
    by_words = sum((one.contributions for one in found.words), np.zeros(3))
    by_ngrams = sum((one.contributions for one in found.ngrams), np.zeros(3))
    np.testing.assert_allclose(by_words, by_ngrams, rtol=0, atol=1e-12)
    for label in found.labels:
        shares = sum(value for *_, value in found.words_towards(label))
        assert shares == pytest.approx(sum(v for _, v in found.towards(label)), abs=1e-12)


@given(text=texts, max_ngrams=st.sampled_from([2, 2048]))
@settings(max_examples=100, deadline=None)
def test_each_occurrence_is_where_it_stands(text, max_ngrams):
    model = small_model(max_ngrams=max_ngrams)
    found = explained(model, text)
    for one in found.ngrams:
        assert len(one.spans) == one.count
        for start, end in one.spans:
            assert oracle.tokens(text[start:end], model.spec) == one.ngram.split(" ")
    known = [one for one in oracle.ngrams(text, model.spec) if one in NGRAMS][:max_ngrams]
    assert {one.ngram: one.count for one in found.ngrams} == Counter(known)
    assert [text[w.start : w.end].lower() for w in found.words] == oracle.tokens(text, model.spec)


def test_an_ngram_of_a_zero_row_changes_nothing_but_the_share_of_the_others():
    # Always positive, so that no part of the hidden layer switches on or off between the two.
    table = np.abs(small_model().table)
    table[NGRAMS.index("not good")] = 0
    options = {"hidden_bias": np.ones(37)}
    model = small_model(table=table, **options)
    fewer = small_vocabulary([one for one in NGRAMS if one != "not good"])
    rows = [i for i, one in enumerate(NGRAMS) if one != "not good"]
    without = small_model(table=table[rows], index=fewer.index, **options)
    text = "not good at all, the film"
    found, other = explained(model, text), explained(without, text)
    zero = next(one for one in found.ngrams if one.ngram == "not good")
    np.testing.assert_array_equal(zero.contributions, 0)
    np.testing.assert_allclose(found.bias, other.bias)
    n = sum(one.count for one in found.ngrams)
    expected = {one.ngram: one.contributions for one in other.ngrams}
    assert len(expected) == len(found.ngrams) - 1
    for one in found.ngrams:
        if one is not zero:
            scaled = expected[one.ngram] * (n - 1) / n
            np.testing.assert_allclose(one.contributions, scaled, rtol=1e-12)


def test_probabilities_are_those_of_the_classifier():
    model = small_model()
    for text in TEXTS:
        scaled = exact_logits(model, text) / model.temperature
        shares = np.exp(scaled - scaled.max())
        np.testing.assert_allclose(explained(model, text).probabilities, shares / shares.sum())


def test_a_text_that_is_not_read_to_its_end_says_so():
    model = small_model(max_ngrams=3)
    assert explained(model, "good good good").complete
    found = explained(model, "good bad good film")
    assert not found.complete
    assert [one.known for one in found.words] == [True, True, True, False]
    assert found.words_towards("label 0")[-1][:2] == (9, 13)


def test_as_json_it_is_the_same_numbers_by_label():
    found = explained(small_model(), "The film was NOT good")
    data = found.to_json()
    assert data["text"] == "The film was NOT good"
    for c, label in enumerate(found.labels):
        total = sum(one["contributions"][label] for one in data["ngrams"])
        assert data["bias"][label] + total == pytest.approx(data["logits"][label], abs=1e-12)
        assert data["logits"][label] == found.logits[c]
    assert sum(data["probabilities"].values()) == pytest.approx(1)
    spans = {one["ngram"]: one["spans"] for one in data["ngrams"]}
    assert spans["not good"] == [[13, 21]]
    assert data["words"][0]["start"] == 0
    assert data["complete"]
