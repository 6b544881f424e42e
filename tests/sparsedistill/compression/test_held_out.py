"""Trying a form of a model on held-out texts gives what making it would give."""

import numpy as np
import pytest
from compression_cases import HIDDEN, counted_vocabulary, labelled, model_of, texts

from sparsedistill.compression.curve import SHARES, pruning_curve
from sparsedistill.compression.held_out import HeldOut, Shape
from sparsedistill.compression.pruning import Rankings, prune
from sparsedistill.text.buffers import TextBuffer


@pytest.mark.parametrize("rule", ["contribution", "count", "train_count", "order"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("keep", [1, 20, 100, 300])
@pytest.mark.parametrize("max_ngrams", [2048, 3])
def test_a_trial_is_as_really_pruning_and_quantising(rule, dtype, keep, max_ngrams):
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary, max_ngrams=max_ngrams)
    found, truth = labelled(model)
    held_out = HeldOut(model, found, truth)
    ranking = Rankings(model, vocabulary)[rule]
    made = prune(model, vocabulary, ranking, keep)[0].converted(dtype)
    logits = made.logits(found)
    np.testing.assert_allclose(
        held_out.logits(ranking, keep, Shape(HIDDEN, dtype)), logits, atol=1e-5
    )
    score = held_out.score(ranking, keep, Shape(HIDDEN, dtype))
    assert score.accuracy == np.mean(logits.argmax(axis=1) == truth)
    assert score.agreement == np.mean(logits.argmax(axis=1) == model.logits(found).argmax(axis=1))


def test_the_full_model_agrees_with_itself():
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary)
    held_out = HeldOut(model, *labelled(model), threads=2)
    assert held_out.full.agreement == 1
    assert held_out.full.accuracy == 0.8


def test_a_quantised_model_can_be_tried_too():
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary, dtype="int8")
    found, truth = labelled(model)
    logits = HeldOut(model, found, truth).logits(
        np.arange(len(vocabulary)), 60, Shape(HIDDEN, "int8")
    )
    made = prune(model, vocabulary, np.arange(len(vocabulary)), 60)[0]
    np.testing.assert_allclose(logits, made.logits(found), atol=1e-5)


def test_texts_without_any_known_ngram_can_be_tried():
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary)
    unknown = TextBuffer.from_strings(["", "unknown"])
    held_out = HeldOut(model, unknown, np.array([0, 1]))
    logits = held_out.logits(np.arange(len(vocabulary)), 5, Shape(HIDDEN, "int8"))
    np.testing.assert_allclose(logits, model.logits(unknown), atol=1e-6)


def test_the_curve_has_a_point_for_every_rule_and_share_and_begins_at_the_full_model():
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary)
    found, truth = labelled(model)
    rankings = Rankings(model, vocabulary)
    curve = pruning_curve(HeldOut(model, found, truth), rankings)
    assert [(point["rule"], point["share"]) for point in curve] == [
        (rule, share) for rule in rankings.rules for share in SHARES
    ]
    assert {point["accuracy"] for point in curve if point["share"] == 1} == {0.8}
    for point in curve[1::4]:
        made, _ = prune(model, vocabulary, rankings[point["rule"]], point["rows"])
        assert point["accuracy"] == np.mean(made.logits(found).argmax(axis=1) == truth)


def test_a_model_of_which_texts_touch_little_is_tried_on_that_little():
    vocabulary = counted_vocabulary()
    model = model_of(vocabulary)
    held_out = HeldOut(model, texts().slice(0, 1), np.array([0]))
    (small,) = held_out._forms.values()
    assert len(small.table) < len(vocabulary) / 4
