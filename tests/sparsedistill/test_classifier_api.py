import threading

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from helpers.folded_cases import NGRAMS, TEXTS, small_model, small_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill import Classifier, classifier
from sparsedistill.answers import kept_rows
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.text.buffers import TextBuffer


@pytest.fixture(scope="module")
def student():
    return Classifier.from_folded(small_model(), vocabulary=small_vocabulary())


def test_one_text_gives_one_result_and_many_give_one_each(student):
    label = student.predict(TEXTS[0])
    assert label in student.classes_
    assert student.predict([TEXTS[0]]) == [label]
    assert student.predict_proba(TEXTS[0]).shape == (3,)
    assert student.predict_proba(TEXTS).shape == (6, 3)
    assert student.predict_topk(TEXTS[0], 2)[0][0] == label
    assert [len(top) for top in student.predict_topk(TEXTS, 9)] == [3] * 6


@pytest.mark.parametrize(
    "form",
    [
        tuple,
        iter,
        np.array,
        lambda t: np.array(t, object),
        TextBuffer.from_strings,
        pa.array,
        lambda t: pa.chunked_array([t[:2], t[2:]]),
        pl.Series,
    ],
    ids=["tuple", "iterator", "numpy", "objects", "buffer", "arrow", "chunks", "polars"],
)
def test_texts_may_come_in_any_form(student, form):
    assert student.predict(form(TEXTS)) == student.predict(TEXTS)
    np.testing.assert_array_equal(student.predict_proba(form(TEXTS)), student.predict_proba(TEXTS))
    assert list(student.stream(form(TEXTS))) == list(student.answers(TEXTS))


@pytest.mark.parametrize("threads", [1, 3])
def test_many_texts_are_read_in_pieces(student, threads, monkeypatch):
    monkeypatch.setattr(classifier, "PIECE", 4)
    monkeypatch.setattr(classifier, "_LEAST", 1)
    many = Classifier.from_folded(student.folded, threads=threads)
    assert many.predict(text for text in TEXTS * 3) == student.predict(TEXTS) * 3
    assert many.predict(TEXTS * 3) == student.predict(TEXTS) * 3
    assert many.predict([]) == []
    assert many.predict_proba(iter([])).shape == (0, 3)
    assert many.predict_topk([], 1) == []


def test_a_stream_is_answered_while_it_comes(student, monkeypatch):
    monkeypatch.setattr(classifier, "PIECE", 2)
    taken = []
    answers = student.stream(taken.append(text) or text for text in TEXTS)
    assert taken == []
    first = next(answers)
    assert taken == TEXTS[:2]
    assert [first, *answers] == list(student.answers(TEXTS))


def test_answers_say_in_one_pass_what_the_methods_say_one_by_one(student):
    answers = student.answers(TEXTS)
    assert len(answers) == len(TEXTS)
    assert answers.labels == student.predict(TEXTS)
    np.testing.assert_array_equal(answers.probabilities, student.predict_proba(TEXTS))
    np.testing.assert_array_equal(answers.coverage, student.coverage(TEXTS))
    for answer, row in zip(answers, answers.probabilities, strict=True):
        assert answer.probability == row.max()
        assert answer.label == student.classes_[row.argmax()]


def test_labels_of_logits_that_are_nearly_equal_are_the_same_by_every_way():
    head = np.tile(np.random.default_rng(0).standard_normal(37), (3, 1))
    head += 1e-6 * np.random.default_rng(1).standard_normal((3, 37))
    model = small_model(head_weight=head, head_bias=np.zeros(3), temperature=20.0)
    student = Classifier.from_folded(model)
    texts = [f"{a} {b} {c}" for a in NGRAMS for b in NGRAMS for c in NGRAMS]
    labels = student.predict(texts)
    assert len(set(labels)) > 1
    assert student.answers(texts).labels == labels
    assert [top[0][0] for top in student.predict_topk(texts, 1)] == labels


def test_coverage_is_the_share_of_ngrams_that_are_known(student):
    # "the", "film", "the film" of the six n-grams; all of one; none.
    assert student.coverage(["the film unheard", "good", "???"]).tolist() == [0.5, 1.0, 0.0]


def test_below_the_threshold_there_is_no_answer(student):
    top = student.predict_proba(TEXTS).max(axis=1)
    labels, limit = student.predict(TEXTS), float(np.median(top))
    expected = [label if p >= limit else None for label, p in zip(labels, top, strict=True)]
    assert None in expected
    assert student.predict(TEXTS, abstain_below=limit) == expected
    assert [student.predict(text, abstain_below=limit) for text in TEXTS] == expected
    assert student.predict(TEXTS, abstain_below=0) == labels


def test_just_below_the_threshold_is_below():
    classes, shares = ("a", "b"), np.array([[0.9, 0.1]], np.float32)
    best = np.array([0])
    assert float(shares[0, 0]) < 0.9
    assert kept_rows(classes, shares, best, 0.9).tolist() == [False]
    assert kept_rows(classes, shares, best, float(shares[0, 0])).tolist() == [True]


def test_a_threshold_may_be_for_one_label_only(student):
    labels = student.predict(TEXTS)
    found = student.predict(TEXTS, abstain_below={labels[0]: 1.0})
    assert found == [None if label == labels[0] else label for label in labels]


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (1.5, "between 0 and 1, not 1.5"),
        (float("nan"), "between 0 and 1, not nan"),
        (True, "between 0 and 1, not True"),
        ("0.5", "between 0 and 1, not 0.5"),
        ({"sports": 0.5}, "'sports', which is no label of the model: its labels are label 0"),
    ],
)
def test_a_threshold_that_cannot_be_meant_is_refused(student, limit, message):
    with pytest.raises(ConfigError, match=message):
        student.predict(TEXTS, abstain_below=limit)


def test_probabilities_are_the_softmax_at_the_temperature(student):
    logits = student.folded.logits(TextBuffer.from_strings(TEXTS)).astype(np.float64)
    powers = np.exp(logits / 1.5)
    expected = powers / powers.sum(axis=1, keepdims=True)
    found = student.predict_proba(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=2, max_size=50),
    st.floats(0.01, 100),
)
@settings(deadline=None)
def test_probability_rows_sum_to_one_whatever_the_logits(logits, temperature):
    row = classifier.softmax(np.array([logits], np.float32), temperature)[0]
    assert row.astype(np.float64).sum() == pytest.approx(1, abs=1e-6)
    assert np.isfinite(row).all()


def test_the_best_labels_come_first_with_their_probabilities(student):
    for text, top in zip(TEXTS, student.predict_topk(TEXTS, 3), strict=True):
        probabilities = student.predict_proba(text)
        assert [p for _, p in top] == sorted(probabilities.tolist(), reverse=True)
        assert all(probabilities[student.classes_.index(label)] == p for label, p in top)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("table_type", ["float32", "float16", "int8"])
def test_contributions_and_bias_add_up_to_the_logits(activation, table_type):
    model = small_model(activation=activation).converted(table_type)
    student = Classifier.from_folded(model)
    for text in TEXTS:
        found = student.explain(text)
        total = found.bias + sum((c.contributions for c in found.ngrams), np.zeros(3))
        logits = model.logits(TextBuffer.from_strings([text]))[0]
        np.testing.assert_allclose(total, logits, atol=1e-5)
        np.testing.assert_allclose(found.logits, total)
        assert found.label == student.predict(text)


def test_an_explanation_counts_each_known_ngram_by_name(student):
    found = student.explain("Not good? NOT good at all, and the film unknown")
    assert {(c.ngram, c.count) for c in found.ngrams} == {
        ("not", 2),
        ("good", 2),
        ("not good", 2),
        ("the", 1),
        ("film", 1),
        ("the film", 1),
    }
    best = student.classes_.index(found.label)
    weights = [abs(c.contributions[best] - c.contributions.mean()) for c in found.ngrams]
    assert weights == sorted(weights, reverse=True)
    first = found.ngrams[0]
    assert (type(first.ngram), type(first.count)) == (str, int)
    assert first.contributions.shape == (3,)


def test_tanh_at_zero_has_the_slope_one():
    model = small_model(activation="tanh", hidden_bias=np.zeros(37))
    found = Classifier.from_folded(model).explain("nothing known")
    np.testing.assert_allclose(found.logits, model.head_bias, atol=1e-6)


def test_the_ngrams_by_row_are_at_hand(student):
    assert list(student.ngrams) == NGRAMS
    assert Classifier.from_folded(small_model()).ngrams is None


def test_threads_give_the_same_results_and_a_classifier_may_be_shared(student):
    texts = TEXTS * 200
    expected = student.predict_proba(texts)
    many = Classifier.from_folded(student.folded, threads=3)
    np.testing.assert_array_equal(many.predict_proba(texts), expected)
    results = [None] * 4

    def work(i):
        results[i] = many.predict_proba(texts)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], "row 1 is a NoneType"),
        (iter(["fine"] * 4097 + ["\ud83d"]), "row 4097 has the lone surrogate"),
        (b"bytes", "expected a text or many, got bytes"),
        ({"a", "b"}, "texts in an order, got a set"),
        (pa.table({"a": ["b"]}), "got a Table: choose one column"),
        (pl.DataFrame({"a": ["b"]}), "got a DataFrame: choose one column"),
        (pa.array(["a", None]), "row 1 is null"),
        (pa.array([1]), "column of strings, got int64"),
        ("\ud83d", "row 0 has the lone surrogate"),
        (7, "expected a text or many, got int"),
        (np.array([["a"]]), "one dimension"),
    ],
)
def test_what_is_no_text_is_refused_by_row(student, texts, message):
    with pytest.raises(DataError, match=message):
        student.predict(texts)


def test_settings_that_cannot_work_are_refused(student):
    with pytest.raises(ConfigError, match="threads"):
        Classifier.from_folded(student.folded, threads=0)
    with pytest.raises(ConfigError, match="k must"):
        student.predict_topk("a", 0)
