"""Bags out of many parts, and what feature dropout leaves of them."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.bag_source import BagPart, FeatureDrop, MappedBags
from sparsedistill.bags import Bags
from sparsedistill.errors import ConfigError, DataError
from sparsedistill.text.oracle import COMBINE, LENGTH, MASK, finalise

ROWS = 50
bag_lists = st.lists(st.lists(st.integers(0, ROWS - 1), max_size=9), max_size=7)
drops = st.builds(
    FeatureDrop,
    rate=st.floats(0, 1, exclude_max=True),
    seed=st.integers(-(2**70), 2**70),
    update=st.integers(0, 2**40),
)


def is_kept(drop, number, occurrence):
    """The definition, with Python's numbers."""
    update = finalise((finalise(drop.seed & MASK) * COMBINE + drop.update) & MASK)
    example = finalise((update * COMBINE + number) & MASK)
    return finalise((example + (occurrence + 1) * LENGTH) & MASK) >= drop.rate * 2**64


def expected_of(content, numbers, drop):
    return [
        [row for i, row in enumerate(content[number]) if drop is None or is_kept(drop, number, i)]
        for number in numbers
    ]


def bags_of(content):
    return Bags(
        np.array([row for bag in content for row in bag], np.int32),
        np.cumsum([0, *map(len, content)]),
    )


def lists_of(bags):
    return [bag.tolist() for bag in bags]


@st.composite
def sources(draw):
    """A source of one or many parts, some of which are choices of their bags; and its content."""
    if draw(st.booleans()):
        content = draw(bag_lists)
        return SimpleNamespace(source=bags_of(content), content=content)
    parts, content = [], []
    for whole in draw(st.lists(bag_lists, max_size=4)):
        chosen = None
        if whole and draw(st.booleans()):
            chosen = draw(st.lists(st.integers(0, len(whole) - 1), max_size=6))
        parts.append(BagPart(bags_of(whole), None if chosen is None else np.array(chosen, int)))
        content += whole if chosen is None else [whole[bag] for bag in chosen]
    return SimpleNamespace(source=MappedBags(parts, vocabulary_rows=ROWS), content=content)


def numbers_in(data, content, **sizes):
    if not content:
        return []
    return data.draw(st.lists(st.integers(0, len(content) - 1), **sizes))


@settings(deadline=None, max_examples=200)
@given(sources(), st.none() | drops, st.data())
def test_what_is_taken_is_what_the_definition_keeps(case, drop, data):
    assert len(case.source) == len(case.content)
    numbers = numbers_in(data, case.content, max_size=12)
    taken = case.source.take(np.array(numbers, np.int64), drop)
    assert lists_of(taken) == expected_of(case.content, numbers, drop)


@settings(deadline=None, max_examples=100)
@given(sources(), st.none() | drops, st.data())
def test_a_bag_does_not_depend_on_what_else_is_in_the_batch(case, drop, data):
    numbers = np.array(numbers_in(data, case.content, max_size=6), np.int64)
    alone = [case.source.take(numbers[i : i + 1], drop) for i in range(len(numbers))]
    together = case.source.take(numbers, drop)
    assert lists_of(together) == lists_of(Bags.concat(alone))


def test_about_the_share_that_is_asked_for_is_left_out_of_every_place():
    bags = bags_of([[1] * 40] * 3000)
    everything = np.arange(len(bags))
    for rate in (0.1, 0.5, 0.9):
        taken = bags.take(everything, FeatureDrop(rate, seed=3, update=7))
        kept = np.diff(taken.offsets)
        # Five standard deviations, of all and of what bags differ by.
        assert len(taken.rows) / len(bags.rows) == pytest.approx(
            1 - rate, abs=5 * (rate * (1 - rate) / len(bags.rows)) ** 0.5
        )
        assert kept.std() == pytest.approx((40 * rate * (1 - rate)) ** 0.5, rel=0.07)
    places = bags_of([list(range(40))] * 3000).take(everything, FeatureDrop(0.5, 3, 7)).rows
    assert np.bincount(places) == pytest.approx(np.full(40, 1500), abs=5 * 750**0.5)


def test_a_rate_of_0_leaves_nothing_out_and_seeds_updates_and_examples_differ_at_others():
    content = [list(range(ROWS))] * 4
    bags = bags_of(content)
    assert lists_of(bags.take(range(4), FeatureDrop(0.0, 1, 1))) == content
    drops = [FeatureDrop(0.5, seed, update) for seed in (0, 1) for update in (1, 2)]
    seen = {str(lists_of(bags.take(range(4), drop))) for drop in drops}
    assert len(seen) == 4
    first, second, *_ = lists_of(bags.take(range(4), drops[0]))
    assert first != second


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0, float("nan")])
def test_a_rate_that_is_no_share_or_leaves_nothing_is_refused(rate):
    with pytest.raises(ConfigError, match="feature dropout must be from 0 to below 1"):
        FeatureDrop(rate, 0, 0)


@pytest.mark.parametrize("number", [-1, 3])
def test_bags_that_are_not_there_are_refused(number):
    bags = bags_of([[1], [2], []])
    for source in (bags, MappedBags([BagPart(bags)], vocabulary_rows=ROWS)):
        with pytest.raises(IndexError, match=f"bag {number} of 3"):
            source.take(np.array([0, number]))
    with pytest.raises(IndexError, match=f"bag {number} of 3"):
        BagPart(bags, np.array([number]))


@pytest.mark.parametrize("row", [-1, ROWS, 2**31 - 1])
def test_damaged_features_are_refused_before_a_kernel_reads_beyond_its_table(row):
    bags = bags_of([[1], [], [4, row], [5]])
    part = BagPart(bags, np.array([0, 3, 2]))
    source = MappedBags([BagPart(bags_of([[0]])), part], vocabulary_rows=ROWS)
    assert lists_of(source.take(np.array([2, 1]))) == [[5], [1]]
    with pytest.raises(DataError, match=rf"example 3 name row {row} of a vocabulary of 50.*verify"):
        source.take(np.array([1, 3]))


def test_parts_live_as_long_as_their_source():
    source = MappedBags(
        [BagPart(bags_of([[i, i + 1]] * 3), np.array([2, 0])) for i in range(40)],
        vocabulary_rows=ROWS,
    )
    taken = source.take(np.arange(80))
    assert lists_of(taken) == [[i // 2, i // 2 + 1] for i in range(80)]
