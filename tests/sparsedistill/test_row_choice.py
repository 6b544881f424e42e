"""Choosing labelled rows: against a loop over rows, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.errors import DataError
from sparsedistill.row_choice import RowChoice, choose, margins

CLASSES = 3


@st.composite
def corpora(draw):
    """Distinct ids and logits of as many rows."""
    rows = draw(st.integers(1, 40))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(1000, dtype=np.uint64))[:rows] * np.uint64(0x9E3779B97F4A7C15)
    tilt = draw(st.sampled_from([0.0, 1.0, 4.0]))
    logits = rng.normal([tilt, 0, 0], 2, (rows, CLASSES))
    return ids, logits.astype(np.float32)


choices = st.builds(
    RowChoice,
    least_margin=st.sampled_from([0.0, 0.2, 0.6]),
    weights=st.one_of(
        st.none(), st.tuples(*[st.integers(0, 5)] * CLASSES).filter(lambda w: sum(w) > 0)
    ),
    seed=st.integers(0, 3),
)


def chosen_ids(ids, logits, choice):
    return set(ids[choose([(ids, logits)], choice).masks[0]].tolist())


def possible(ids, logits, choice) -> bool:
    """Whether a row is left at all."""
    try:
        choose([(ids, logits)], choice)
    except DataError:
        return False
    return True


def slow_margin(row) -> float:
    powers = [math.exp(float(value) - float(max(row))) for value in row]
    second, first = sorted(p / sum(powers) for p in powers)[-2:]
    return first - second


@given(corpora())
def test_a_margin_is_the_distance_of_the_two_best_probabilities(corpus):
    _, logits = corpus
    np.testing.assert_allclose(margins(logits), [slow_margin(row) for row in logits], atol=1e-12)


@given(corpora(), st.floats(-50, 50, width=32))
def test_margins_do_not_change_when_all_logits_of_a_row_are_moved(corpus, shift):
    _, logits = corpus
    np.testing.assert_allclose(margins(logits + np.float32(shift)), margins(logits), atol=1e-4)


@settings(max_examples=200)
@given(corpora(), choices)
def test_rows_are_left_out_for_their_margin_or_because_their_class_has_its_share(corpus, choice):
    ids, logits = corpus
    if not possible(ids, logits, choice):
        return
    found = choose([corpus], choice)
    says = logits.argmax(axis=1)
    sure = margins(logits) >= choice.least_margin
    for label in range(CLASSES):
        mine = says == label
        most = int(sure.sum())
        if choice.weights is not None:
            most = math.ceil(choice.weights[label] * most / sum(choice.weights))
        wanted = min(int((mine & sure).sum()), most)
        assert (found.masks[0] & mine).sum() == wanted
        assert found.to_json()["kept"][label] == wanted
        assert found.labelled[label] == mine.sum()
        assert found.small_margin[label] == (mine & ~sure).sum()
    assert not (found.masks[0] & ~sure).any()


@settings(max_examples=200)
@given(corpora(), choices, st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_the_cuts_between_shards_matter(corpus, choice, random):
    ids, logits = corpus
    if not possible(ids, logits, choice):
        return
    order = list(range(len(ids)))
    random.shuffle(order)
    cuts = sorted(random.choices(range(len(ids) + 1), k=3))
    shards = [(part, logits[part]) for part in np.split(np.array(order), cuts)]
    found = choose([(ids[part], values) for part, values in shards], choice)
    kept = {
        one
        for (part, _), mask in zip(shards, found.masks, strict=True)
        for one in ids[part][mask].tolist()
    }
    assert kept == chosen_ids(ids, logits, choice)
    assert found.to_json() == choose([corpus], choice).to_json()


@given(corpora(), st.integers(0, 3))
def test_nothing_asked_for_leaves_nothing_out(corpus, seed):
    assert choose([corpus], RowChoice(seed=seed)).masks[0].all()


@given(corpora(), st.sampled_from([0.1, 0.5]), st.sampled_from([0.0, 0.05]))
def test_a_larger_margin_keeps_no_row_that_a_smaller_one_does_not(corpus, larger, smaller):
    ids, logits = corpus
    if possible(ids, logits, RowChoice(larger)):
        wide = chosen_ids(ids, logits, RowChoice(smaller))
        assert chosen_ids(ids, logits, RowChoice(larger)) <= wide


def test_another_seed_draws_other_rows_of_a_class_that_has_too_many():
    ids = np.arange(1000, dtype=np.uint64)
    logits = np.zeros((1000, 2), np.float32)
    logits[:900, 0], logits[900:, 1] = 3, 3
    drawn = [
        choose([(ids, logits)], RowChoice(weights=(1, 1), seed=seed)).masks[0] for seed in (0, 1)
    ]
    for mask in drawn:
        assert (mask[:900].sum(), mask[900:].sum()) == (500, 100)
        # A fair draw: of the first half about as many as of the second.
        assert abs(int(mask[:450].sum()) - 250) < 60
    assert (drawn[0] != drawn[1]).any()


def test_a_choice_that_leaves_nothing_says_what_to_change():
    ids, logits = np.arange(4, dtype=np.uint64), np.zeros((4, 2), np.float32)
    with pytest.raises(DataError, match=r"none of the 4 labelled rows .* smaller .* least_margin"):
        choose([(ids, logits)], RowChoice(least_margin=0.3))
