"""Drift: small batches do not cry wolf, large ones make nothing of trifles, real drift is seen."""

import json
import random

import numpy as np
import pytest
from helpers.folded_cases import TEXTS, WORDS, small_model, small_vocabulary

from sparsedistill import Classifier
from sparsedistill.drift import DriftMonitor, compare, measure_reference
from sparsedistill.drift_report import render
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text_profile import QUANTITIES
from sparsedistill.vocabulary import Vocabulary

FOREIGN = ["der", "die", "das", "und", "nicht", "mit", "von", "auf", "ist", "ein"]
RARE = [f"rare{i}" for i in range(3000)]


def texts_of(rows, *, seed, foreign=0.0, length=(3, 12)):
    """Texts of known words, of rare ones and, in a share of the texts, of foreign ones."""
    rng = random.Random(seed)
    found = []
    for _ in range(rows):
        words = FOREIGN if rng.random() < foreign else WORDS
        size = rng.randint(*length)
        found.append(
            " ".join(rng.choice(words if rng.random() < 0.9 else RARE) for _ in range(size))
        )
    return found


@pytest.fixture(scope="module")
def student():
    plain = Classifier.from_folded(small_model(), vocabulary=small_vocabulary())
    reference = measure_reference(plain, texts_of(5000, seed=0))
    return Classifier(plain.folded, ngrams=plain.ngrams, reference=reference.to_json())


def shift(report, name):
    return next(one for one in report.shifts if one.quantity.name == name)


@pytest.mark.parametrize("rows", [1, 5, 20, 200])
def test_batches_of_the_same_kind_are_the_same_whatever_their_size(student, rows):
    verdicts = [compare(student, texts_of(rows, seed=seed)).verdict for seed in range(1, 41)]
    assert verdicts.count("same") >= 39


def test_foreign_texts_are_different_even_if_they_are_few(student):
    report = compare(student, texts_of(15, seed=1, foreign=1.0))
    assert report.verdict == shift(report, "coverage").verdict == "different"
    assert shift(report, "ngrams").verdict == "same"
    assert shift(report, "scripts").verdict == "same"


def test_a_trifle_is_no_drift_however_many_texts_show_it(student):
    report = compare(student, texts_of(60_000, seed=1, foreign=0.01))
    assert shift(report, "coverage").p_value < 0.001
    assert 0 < shift(report, "coverage").divergence < 0.02
    assert report.verdict == "same"


def test_the_more_foreign_texts_the_greater_the_divergence(student):
    found = [
        shift(compare(student, texts_of(2000, seed=1, foreign=share)), "coverage")
        for share in (0.0, 0.1, 0.3, 1.0)
    ]
    assert [one.verdict for one in found] == ["same", "shifted", "different", "different"]
    divergences = [one.divergence for one in found]
    assert divergences == sorted(divergences)


def test_only_what_changed_is_called_changed(student):
    longer = compare(student, texts_of(2000, seed=1, length=(30, 60)))
    assert shift(longer, "ngrams").verdict == "different"
    assert shift(longer, "scripts").verdict == "same"
    assert shift(longer, "unknown").verdict == "same"
    other = compare(student, ["ОЧЕНЬ хороший фильм"] * 300)
    assert {one.quantity.name: one.verdict for one in other.shifts}["scripts"] == "different"
    assert shift(other, "unknown").batch == (0.0, 1.0)


def test_few_texts_say_so_and_detect_less(student):
    few, many = (compare(student, texts_of(rows, seed=3)) for rows in (4, 4000))
    for one, other in zip(few.shifts, many.shifts, strict=True):
        assert one.detectable >= other.detectable
    assert "so few texts would not show" in render(few)
    assert "so few texts" not in render(many)


def test_batches_may_come_in_any_pieces_and_any_form(student):
    texts = texts_of(9000, seed=2, foreign=0.2)
    whole = compare(student, texts)
    pieces = DriftMonitor(student)
    pieces.add(texts[0])
    pieces.add(iter(texts[1:700]))
    pieces.add(np.array(texts[700:800]))
    pieces.add([])
    pieces.add(TextBuffer.from_strings(texts[800:]))
    found = pieces.report()
    for one, other in zip(found.shifts, whole.shifts, strict=True):
        assert one.batch == other.batch
        assert one.divergence == other.divergence
        assert one.batch_mean == pytest.approx(other.batch_mean)
    assert found.rows == whole.rows == 9000
    assert found.examples == whole.examples
    assert found.unknown.occurrences == whole.unknown.occurrences
    assert found.unknown.unknown == whole.unknown.unknown


def test_unknown_words_are_counted_exactly_while_they_fit(student):
    texts = ["The FILM, the Kino", "kino und film", "und und kino"]
    unknown = compare(student, texts).unknown
    assert unknown.ngrams == (("kino", 3), ("und", 3))
    assert (unknown.length, unknown.occurrences, unknown.unknown, unknown.error) == (1, 10, 6, 0)


def test_of_more_unknown_words_than_fit_the_frequent_ones_are_kept(student):
    monitor = DriftMonitor(student, capacity=50, words=5)
    for seed in range(4):
        monitor.add(texts_of(5000, seed=seed, foreign=0.1))
    unknown = monitor.report().unknown
    assert {word for word, _ in unknown.ngrams} <= set(FOREIGN)
    assert 0 < unknown.error <= unknown.unknown / 51
    assert len(monitor._strings) <= 50


def test_a_model_without_single_words_counts_its_shortest_ngrams():
    spec = NgramSpec("word", 2, 3)
    vocabulary = Vocabulary.from_ngrams(spec, ["the film", "not good"])
    model = small_model(spec=spec, index=vocabulary.index, table=np.ones((2, 37), np.float32))
    student = Classifier.from_folded(model)
    report = compare(
        student, ["the film was not good"], reference=measure_reference(student, TEXTS)
    )
    assert report.unknown.length == 2
    assert report.unknown.ngrams == (("film was", 1), ("was not", 1))
    assert "50.0% of 4 n-grams of 2 tokens are unknown" in render(report)


def test_examples_are_the_least_known_texts_each_once_long_before_short(student):
    texts = ["film", "kino", "", "!!", "very good film", "  ein Kino\n und  ein Film "] * 3
    texts += ["eins zwei drei vier fünf", "the film was kino"]
    examples = compare(student, texts).examples
    assert [(one.row, one.text) for one in examples] == [
        (18, "eins zwei drei vier fünf"),
        (5, "ein Kino und ein Film"),
        (1, "kino"),
        (19, "the film was kino"),
        (4, "very good film"),
    ]
    assert examples[0].coverage == 0
    assert examples[0].ngrams == 14
    assert DriftMonitor(student, examples=0, words=0).report().examples == ()


def test_long_texts_are_shown_by_their_beginning(student):
    (example,) = compare(student, ["wort " * 5000]).examples
    assert len(example.text) == 160


def test_a_report_is_plain_json(student):
    report = compare(student, texts_of(500, seed=1, foreign=0.5))
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value["verdict"] == "different"
    assert value["rows"] == 500
    assert [one["quantity"] for one in value["shifts"]] == [one.name for one in QUANTITIES]
    for one in value["shifts"]:
        assert sum(one["batch"]) == pytest.approx(1)
        assert len(one["bins"]) in {len(one["batch"]), len(one["batch"]) - 1}
    assert value["unknown"]["ngrams"][0].keys() == {"ngram", "count"}
    assert value["examples"][0].keys() == {"row", "text", "coverage", "ngrams"}


def test_the_same_texts_give_the_same_report(student):
    texts = texts_of(300, seed=5, foreign=0.3)
    assert compare(student, texts) == compare(student, texts)


def test_threads_change_nothing(student):
    texts = texts_of(6000, seed=5, foreign=0.3)
    many = Classifier(student.folded, reference=student.reference, threads=3)
    assert compare(many, texts) == compare(student, texts)


def test_a_report_as_text_has_a_row_a_quantity_and_no_trailing_space(student):
    said = render(compare(student, texts_of(500, seed=1, foreign=0.5)))
    lines = said.splitlines()
    assert lines[0] == "500 texts against a reference of 5,000: different"
    assert [line for line in lines if line != line.rstrip()] == []
    for quantity in QUANTITIES:
        assert sum(line.startswith(quantity.title) for line in lines) == 1
    assert "most often" in said
    assert "der " in said


def test_a_batch_of_nothing_is_the_same(student):
    report = compare(student, [])
    assert report.rows == 0
    assert report.verdict == "same"
    assert "0 texts" in render(report)


def test_another_reference_may_be_given(student):
    german = texts_of(3000, seed=8, foreign=1.0)
    reference = measure_reference(student, german)
    assert (
        compare(student, texts_of(500, seed=9, foreign=1.0), reference=reference).verdict == "same"
    )
    assert compare(student, texts_of(500, seed=9), reference=reference).verdict == "different"


def test_what_cannot_be_compared_is_refused(student):
    with pytest.raises(ConfigError, match="no reference"):
        compare(Classifier.from_folded(student.folded), TEXTS)
    with pytest.raises(ConfigError, match="alpha is between 0 and 1"):
        compare(student, TEXTS, alpha=1.0)
    with pytest.raises(ConfigError, match="examples and words"):
        DriftMonitor(student, examples=-1)
    with pytest.raises(DataError, match="row 1 is a NoneType"):
        compare(student, ["a", None])
