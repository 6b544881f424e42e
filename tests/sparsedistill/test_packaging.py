"""Folding is exact, pruning keeps what it says it keeps, calibration keeps the labels."""

import numpy as np
import pytest
from folded_cases import NGRAMS, TEXTS, small_model, small_vocabulary

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.packaging import (
    EDGE_TEXTS,
    calibrate,
    check_texts,
    fold,
    largest_difference,
    model_bytes,
    prune,
    useful_rows,
)
from sparsedistill.students import DAN, DANShape
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary

LABELS = ("a", "b", "c")


def student_and_fold(activation, *, max_ngrams=2048):
    vocabulary = small_vocabulary()
    shape = DANShape(len(vocabulary), 24, 16, len(LABELS), activation, init_scale=1.0)
    student = DAN(shape, seed=1)
    student.weights()["hidden_bias"][:] = np.linspace(-1, 1, 16)
    student.weights()["head_bias"][:] = (0.5, -0.5, 0.1)
    folded = fold(
        student.weights(), vocabulary, labels=LABELS, activation=activation, max_ngrams=max_ngrams
    )
    return student, folded, vocabulary


def random_texts(count):
    rng = np.random.default_rng(0)
    words = [*" ".join(NGRAMS).split(), "unknown", "!"]
    return [" ".join(rng.choice(words, rng.integers(0, 40))) for _ in range(count)]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("max_ngrams", [2048, 5])
def test_the_folded_model_says_what_the_student_says(activation, max_ngrams):
    student, folded, vocabulary = student_and_fold(activation, max_ngrams=max_ngrams)
    texts = check_texts(TextBuffer.from_strings([*random_texts(200), *TEXTS]))
    expected = student.predict(vocabulary.bags(texts, max_ngrams=max_ngrams))
    np.testing.assert_allclose(folded.logits(texts), expected, atol=1e-5)


def test_a_large_table_is_folded_block_by_block(monkeypatch):
    whole = student_and_fold("relu")[1].table
    monkeypatch.setattr("sparsedistill.packaging._BLOCK_ROWS", 3)
    np.testing.assert_allclose(student_and_fold("relu")[1].table, whole, atol=1e-6)


def test_further_training_does_not_change_a_folded_model():
    student, folded, _ = student_and_fold("relu")
    before = folded.logits(TextBuffer.from_strings(TEXTS))
    for value in student.weights().values():
        value += 1
    np.testing.assert_array_equal(folded.logits(TextBuffer.from_strings(TEXTS)), before)


def test_a_vocabulary_of_another_size_is_refused():
    student, _, _ = student_and_fold("relu")
    with pytest.raises(DataError, match="table of 11 rows for 10 n-grams"):
        fold(
            student.weights(), small_vocabulary(NGRAMS[:-1]),
            labels=LABELS, activation="relu", max_ngrams=9,
        )  # fmt: skip


def counted_model():
    """Rows by count 9, 8, ... 1; train counts the other way round but for ties; norms by hand."""
    plain = small_vocabulary(NGRAMS[:9])
    counts = np.arange(9, 0, -1)
    train = np.array([0, 0, 2, 2, 4, 5, 5, 5, 8])
    vocabulary = Vocabulary(NgramSpec(), plain.ngrams, plain.hashes, counts, train)
    table = np.zeros((9, 4), np.float32)
    table[:, 0] = (0, 1, 1, 1, 1, 1, 1, 10, 10)
    model = small_model(
        hidden=4, table=table, index=vocabulary.index, hidden_bias=np.zeros(4),
        head_weight=np.ones((3, 4)),
    )  # fmt: skip
    return model, vocabulary


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("count", [0, 1, 2, 3]),
        ("train_count", [5, 6, 7, 8]),
        ("contribution", [1, 2, 7, 8]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_each_rule_keeps_the_rows_it_is_named_for(rule, expected, dtype, monkeypatch):
    monkeypatch.setattr("sparsedistill.packaging._BLOCK_ROWS", 4)
    model, vocabulary = counted_model()
    rows = useful_rows(model.converted(dtype), vocabulary, 4, rule)
    assert rows.tolist() == expected


def test_of_equally_useful_rows_the_more_frequent_stay():
    model, vocabulary = counted_model()
    assert useful_rows(model, vocabulary, 6, "train_count").tolist() == [2, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("keep", [0, 10])
def test_keeping_no_row_or_more_than_there_are_is_refused(keep):
    model, vocabulary = counted_model()
    with pytest.raises(ConfigError, match=f"keep {keep} of 9"):
        useful_rows(model, vocabulary, keep, "count")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_texts_of_kept_rows_alone_get_the_same_logits_after_pruning(dtype):
    vocabulary, model = small_vocabulary(), small_model().converted(dtype)
    rows = np.array([1, 4, 6, 9])  # film bad not "not good"
    pruned, kept = prune(model, vocabulary, rows)
    assert [kept[row] for row in range(4)] == [vocabulary[int(row)] for row in rows]
    texts = TextBuffer.from_strings(["film bad not", "bad bad film", "", "unknown film", "not bad"])
    np.testing.assert_array_equal(pruned.logits(texts), model.logits(texts))


def test_all_rows_kept_is_the_same_model():
    vocabulary, model = small_vocabulary(), small_model()
    pruned, _ = prune(model, vocabulary, np.arange(len(vocabulary)))
    texts = TextBuffer.from_strings(TEXTS)
    np.testing.assert_array_equal(pruned.logits(texts), model.logits(texts))


def test_a_longer_ngram_is_still_found_when_its_parts_are_pruned():
    vocabulary, model = small_vocabulary(), small_model()
    row = NGRAMS.index("very bad film")
    pruned, kept = prune(model, vocabulary, np.array([row]))
    assert kept.bags(TextBuffer.from_strings(["a very bad film"]))[0].tolist() == [0]
    np.testing.assert_array_equal(pruned.table[0], model.table[row])


def test_calibration_changes_the_temperature_and_nothing_else():
    model = small_model()
    logits = model.logits(TextBuffer.from_strings(random_texts(60)))
    calibrated = calibrate(model, logits, logits.argmax(axis=1) ^ (np.arange(60) % 4 == 0))
    assert calibrated.temperature != model.temperature
    assert calibrated.table is model.table or np.shares_memory(calibrated.table, model.table)


def test_size_is_that_of_the_arrays_and_shrinks_with_dtype_and_rows():
    vocabulary, model = small_vocabulary(), small_model()
    layers = 4 * (37 + 3 * 37 + 3)
    index = 8 * len(vocabulary) + sum(map(len, NGRAMS))
    assert model_bytes(model, vocabulary) == 4 * 37 * 11 + layers + index
    assert model_bytes(model.converted("int8"), vocabulary) == (37 + 4) * 11 + layers + index
    pruned = prune(model, vocabulary, np.arange(5))
    assert model_bytes(*pruned) < model_bytes(model, vocabulary)


def test_differences_are_the_largest_and_nan_does_not_hide():
    zero = np.zeros((3, 2), np.float32)
    assert largest_difference(zero, zero[:, ::-1]) == 0
    assert largest_difference(zero, np.float32([[0, 1], [-4, 0], [2, 0]])) == 4
    assert np.isnan(largest_difference(zero, np.full((3, 2), np.nan, np.float32)))
    assert largest_difference(zero[:0], zero[:0]) == 0


def test_checked_texts_end_with_the_edge_cases():
    texts = list(check_texts(TextBuffer.from_strings(["one"])))
    assert texts == ["one", *EDGE_TEXTS]
    assert "" in texts
    assert max(map(len, texts)) > 10_000
