import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.errors import ConfigError
from sparsedistill.training.order import DataOrder, update_generator
from sparsedistill.training.recipe import TrainingRecipe

orders = st.builds(
    DataOrder,
    rows=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    seed=st.integers(0, 2**32),
)


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


def test_epochs_and_seeds_shuffle_differently():
    order, other = DataOrder(100, 10, seed=0), DataOrder(100, 10, seed=1)
    assert (order.permutation(0) != order.permutation(1)).any()
    assert (order.permutation(0) != other.permutation(0)).any()


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
