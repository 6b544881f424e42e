"""Folding the first layer into the table is exact."""

import numpy as np
import pytest
from compression_cases import LABELS, WORDS, counted_vocabulary, texts

from sparsedistill.compression.folding import fold
from sparsedistill.compression.steps import check_texts
from sparsedistill.errors import DataError
from sparsedistill.students import DAN, DANShape
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary


def student_and_fold(activation, *, max_ngrams=2048):
    vocabulary = counted_vocabulary()
    shape = DANShape(len(vocabulary), 24, 16, len(LABELS), activation, init_scale=1.0)
    student = DAN(shape, seed=1)
    student.weights()["hidden_bias"][:] = np.linspace(-1, 1, 16)
    student.weights()["head_bias"][:] = (0.5, -0.5, 0.1)
    folded = fold(
        student.weights(), vocabulary, labels=LABELS, activation=activation, max_ngrams=max_ngrams
    )
    return student, folded, vocabulary


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("max_ngrams", [2048, 5])
def test_the_folded_model_says_what_the_student_says(activation, max_ngrams):
    student, folded, vocabulary = student_and_fold(activation, max_ngrams=max_ngrams)
    checked = check_texts(texts())
    expected = student.predict(vocabulary.bags(checked, max_ngrams=max_ngrams))
    np.testing.assert_allclose(folded.logits(checked), expected, atol=1e-5)


def test_a_large_table_is_folded_block_by_block(monkeypatch):
    whole = student_and_fold("relu")[1].table
    monkeypatch.setattr("sparsedistill.compression.folding._BLOCK_ROWS", 3)
    np.testing.assert_allclose(student_and_fold("relu")[1].table, whole, atol=1e-6)


def test_further_training_does_not_change_a_folded_model():
    student, folded, _ = student_and_fold("relu")
    before = folded.logits(texts())
    for value in student.weights().values():
        value += 1
    np.testing.assert_array_equal(folded.logits(texts()), before)


def test_a_vocabulary_of_another_size_is_refused():
    student, _, vocabulary = student_and_fold("relu")
    with pytest.raises(DataError, match=rf"table of {len(vocabulary)} rows for 60 n-grams"):
        fold(
            student.weights(), Vocabulary.from_ngrams(NgramSpec(), WORDS),
            labels=LABELS, activation="relu", max_ngrams=9,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"layers": 2}, "hidden_2_bias, hidden_2_weight"),
        ({"pooling": "sum"}, "the sum of its n-grams"),
        ({"pooling": "max"}, "the max of its n-grams"),
    ],
)
def test_what_is_no_single_layer_over_the_mean_is_refused(changes, what):
    vocabulary = counted_vocabulary()
    shape = DANShape(len(vocabulary), 4, 4, len(LABELS), "relu", 1.0, **changes)
    with pytest.raises(DataError, match=f"{what} cannot be folded"):
        fold(
            DAN(shape).weights(),
            vocabulary,
            labels=LABELS,
            activation="relu",
            pooling=shape.pooling,
            max_ngrams=5,
        )
