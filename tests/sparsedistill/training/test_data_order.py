import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.errors import ConfigError
from sparsedistill.training import order as order_module
from sparsedistill.training.order import DataOrder, update_generator
from sparsedistill.training.recipe import TrainingRecipe

SIZES = {name: getattr(order_module, name) for name in ("BLOCK_ROWS", "GROUP_BLOCKS")}
orders = st.builds(
    DataOrder,
    rows=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 2**32),
)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Blocks of 4 rows in groups of 3, so that 60 rows are 5 groups."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "BLOCK_ROWS", 4)
        patch.setattr(order_module, "GROUP_BLOCKS", 3)
        yield


def whole_epoch(order, epoch):
    """The definition: blocks of neighbours shuffled, then each group of them."""
    blocks = [list(range(i, min(i + 4, order.rows))) for i in range(0, order.rows, 4)]
    blocks = [
        blocks[i] for i in np.random.default_rng([order.seed, epoch]).permutation(len(blocks))
    ]
    rows = []
    for number, first in enumerate(range(0, len(blocks), 3), 1):
        group = [row for block in blocks[first : first + 3] for row in block]
        np.random.default_rng([order.seed, epoch, 0, number]).shuffle(group)
        rows += group
    return rows


def rows_of(order, epoch):
    first = epoch * order.updates_per_epoch
    batches = order.batches(first, first + order.updates_per_epoch)
    return np.concatenate([rows for _, rows in batches]).tolist()


@settings(deadline=None, max_examples=200)
@given(orders, st.integers(0, 3))
def test_an_epoch_is_a_shuffle_of_blocks_and_then_of_groups_of_them(order, epoch):
    assert rows_of(order, epoch) == whole_epoch(order, epoch)


@settings(deadline=None, max_examples=60)
@given(orders, st.integers(0, 3))
def test_every_row_comes_once_an_epoch(order, epoch):
    first = epoch * order.updates_per_epoch
    batches = [rows for _, rows in order.batches(first, first + order.updates_per_epoch)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(order.rows))
    assert all(len(batch) == order.batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= order.batch_size


@settings(deadline=None, max_examples=60)
@given(orders, st.data())
def test_batches_begun_anywhere_are_those_of_a_whole_run(order, data):
    last = data.draw(st.integers(0, 4 * order.updates_per_epoch))
    first = data.draw(st.integers(0, last))
    whole = [(update, rows.tolist()) for update, rows in order.batches(0, last)]
    part = [(update, rows.tolist()) for update, rows in order.batches(first, last)]
    assert part == whole[first:]


def test_epochs_and_seeds_shuffle_differently_with_one_group_as_with_many():
    for rows in (12, 60):
        order, other = DataOrder(rows, 10, seed=0), DataOrder(rows, 10, seed=1)
        assert rows_of(order, 0) != rows_of(order, 1)
        assert rows_of(order, 0) != rows_of(other, 0)


def test_data_of_one_group_come_in_any_order_of_all_rows():
    firsts = np.array([rows_of(DataOrder(12, 12, seed), 0) for seed in range(3000)])
    # Each row is at each place about as often: five standard deviations of a binomial.
    for place in range(12):
        counts = np.bincount(firsts[:, place], minlength=12)
        assert counts == pytest.approx(np.full(12, 250), abs=5 * (250 * 11 / 12) ** 0.5)
    # Neighbours of a block do not stay together more often than others.
    beside = np.abs(firsts.argsort(axis=1)[:, 0] - firsts.argsort(axis=1)[:, 1]) == 1
    assert beside.mean() == pytest.approx(1 / 6, abs=5 * (5 / 36 / 3000) ** 0.5)


def test_a_corpus_of_hundreds_of_millions_is_shuffled_in_little_memory(monkeypatch):
    for name, size in SIZES.items():
        monkeypatch.setattr(order_module, name, size)
    order = DataOrder(418_000_000, 2048, seed=0)
    tracemalloc.start()
    try:
        batches = [rows for _, rows in order.batches(500_127, 500_256)]
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    rows = np.concatenate(batches)
    assert len(np.unique(rows)) == len(rows) == 129 * 2048
    assert rows.max() < order.rows
    # One batch more than a group has: of blocks of two groups, all over the corpus.
    assert len(np.unique(rows // 1024)) == 2 * 256


def test_purposes_do_not_share_their_random_numbers_with_each_other_or_the_order():
    draws = [update_generator(0, 3, purpose).integers(2**62) for purpose in range(4)]
    assert len(set(draws)) == 4


def test_the_rate_climbs_then_stays_or_falls_and_never_is_zero():
    def rates(**options):
        recipe = TrainingRecipe(batch_size=1, learning_rate=1.0, updates=10, **options)
        return [round(recipe.rate(update, 10), 3) for update in range(1, 11)]

    assert rates() == [1.0] * 10
    assert rates(warmup=0.2) == [0.5] + [1.0] * 9
    assert rates(warmup=0.2, decay="linear") == [
        0.5,
        1,
        1,
        0.875,
        0.75,
        0.625,
        0.5,
        0.375,
        0.25,
        0.125,
    ]
    assert rates(decay="linear")[-1] > 0


@pytest.mark.parametrize("length", [{}, {"epochs": 1, "updates": 1}, {"epochs": 0}])
def test_a_run_of_no_clear_length_is_refused_when_it_is_described(length):
    with pytest.raises(ConfigError):
        TrainingRecipe(batch_size=1, learning_rate=1.0, **length)


def test_the_length_is_in_updates_or_in_epochs():
    assert TrainingRecipe(batch_size=2, learning_rate=1.0, epochs=3).total_updates(5) == 15
    assert TrainingRecipe(batch_size=2, learning_rate=1.0, updates=7).total_updates(5) == 7
