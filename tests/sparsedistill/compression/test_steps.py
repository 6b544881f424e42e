"""Steps are measured on held-out texts and on those that go wrong first."""

import numpy as np
import pytest
from compression_cases import counted_vocabulary, labelled, model_of, texts

from sparsedistill.compression.calibration import calibrate
from sparsedistill.compression.pruning import prune
from sparsedistill.compression.steps import EDGE_TEXTS, StepLog, check_texts, largest_difference
from sparsedistill.text.buffers import TextBuffer


def test_every_step_has_its_accuracy_agreement_difference_size_and_speed():
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary)
    found, truth = labelled(model)
    log = StepLog(found, truth)
    given = log.measure("given", model, vocabulary)
    assert (given.accuracy, given.agreement, given.max_logit_difference) == (0.8, 1, None)
    pruned, kept = prune(model, vocabulary, np.arange(len(vocabulary)), 30)
    step = log.measure("prune", pruned, kept)
    before, after = model.logits(check_texts(found)), pruned.logits(check_texts(found))
    assert step.max_logit_difference == pytest.approx(np.abs(before - after).max())
    answers = after[: len(found)].argmax(axis=1)
    assert step.accuracy == np.mean(answers == truth)
    assert step.agreement == np.mean(answers == before[: len(found)].argmax(axis=1))
    assert step.rows == 30
    assert 0 < step.bytes < given.bytes
    assert step.texts_per_second > 0
    assert log.steps == [given, step]
    np.testing.assert_array_equal(log.logits, after[: len(found)])


def test_a_log_that_is_started_compares_the_first_step_with_what_was_before():
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary)
    found, truth = labelled(model)
    log = StepLog(found, truth)
    log.start(model.logits(check_texts(found)) + np.float32([0, 0.25, 0]))
    assert log.measure("fold", model, vocabulary).max_logit_difference == pytest.approx(0.25)


def test_without_texts_only_sizes_are_noted():
    vocabulary = counted_vocabulary()
    step = StepLog().measure("given", model_of(vocabulary), vocabulary).to_json()
    assert (step["rows"], step["bytes"] > 0) == (len(vocabulary), True)
    unmeasured = ("accuracy", "agreement", "max_logit_difference", "texts_per_second")
    assert [step[name] for name in unmeasured] == [None] * 4


def test_differences_are_the_largest_and_nan_does_not_hide():
    zero = np.zeros((3, 2), np.float32)
    assert largest_difference(zero, zero[:, ::-1]) == 0
    assert largest_difference(zero, np.float32([[0, 1], [-4, 0], [2, 0]])) == 4
    assert np.isnan(largest_difference(zero, np.full((3, 2), np.nan, np.float32)))
    assert largest_difference(zero[:0], zero[:0]) == 0


def test_checked_texts_end_with_the_edge_cases():
    found = list(check_texts(TextBuffer.from_strings(["one"])))
    assert found == ["one", *EDGE_TEXTS]
    assert "" in found
    assert max(map(len, found)) > 10_000


def test_calibration_changes_the_temperature_and_nothing_else():
    model = model_of(counted_vocabulary())
    found, truth = labelled(model)
    calibrated = calibrate(model, model.logits(found), truth)
    assert calibrated.temperature != model.temperature
    assert np.shares_memory(calibrated.table, model.table)
    np.testing.assert_array_equal(calibrated.logits(texts()), model.logits(texts()))
