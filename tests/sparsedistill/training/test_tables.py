"""Tables, in memory and in plain torch, against torch's own optimiser and a dense oracle."""

import numpy as np
import pytest
import torch
from helpers.random_bags import bags_of, random_bags
from hypothesis import given, settings
from hypothesis import strategies as st
from table_cases import (
    TABLES,
    DenseOracle,
    make_table,
    numbers,
    random_update,
)

from sparsedistill.training import torch_table
from sparsedistill.training.grouping import group_by_row
from sparsedistill.training.held import form, on_host, put
from sparsedistill.training.row_types import from_bfloat16, to_bfloat16
from sparsedistill.training.table import CpuTable, TableOptions

ROWS, WIDTH = 50, 7

each_table = pytest.mark.parametrize("kind", TABLES)


@pytest.fixture(params=["as it is", "in small blocks"])
def blocks(request, monkeypatch):
    """Torch's table works in blocks that no test would fill."""
    if request.param == "in small blocks":
        for name, size in (("_ROWS", 5), ("_PIECE", 3), ("_WIDENED", 4)):
            monkeypatch.setattr(torch_table, name, size)


@each_table
@pytest.mark.parametrize(
    ("pooling", "betas", "epsilon"),
    [("mean", (0.9, 0.999), 1e-8), ("sum", (0.9, 0.98), 1e-6)],
)
@pytest.mark.usefixtures("blocks")
def test_hundreds_of_updates_equal_torch_embedding_bag_and_sparse_adam(
    kind, pooling, betas, epsilon
):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    table = make_table(kind, start, pooling=pooling, betas=betas, epsilon=epsilon)
    theirs = torch.nn.EmbeddingBag.from_pretrained(
        torch.tensor(start), freeze=False, mode=pooling, sparse=True, include_last_offset=True
    )
    adam = torch.optim.SparseAdam(theirs.parameters(), betas=betas, eps=epsilon)
    for update in range(1, 301):
        # Small batches at times, so that most rows rest while others move.
        bags = random_bags(rng, int(rng.integers(1, 24)), ROWS)
        wanted = torch.from_numpy(rng.standard_normal((len(bags), WIDTH)).astype(np.float32))
        rate = 0.01 / (1 + update / 100)
        for group in adam.param_groups:
            group["lr"] = rate
        adam.zero_grad()
        pooled = theirs(torch.tensor(bags.rows).long(), torch.tensor(bags.offsets))
        (0.5 * (pooled - wanted).square().sum() / len(bags)).backward()
        ours = table.pool(bags)
        np.testing.assert_allclose(ours, pooled.detach(), atol=1e-4)
        gradient = (ours - wanted) / len(bags)
        table.update(group_by_row(bags), gradient, update=update, learning_rate=rate)
        adam.step()
    np.testing.assert_allclose(numbers(table), theirs.weight.detach(), atol=1e-4)
    state = adam.state[theirs.weight]
    np.testing.assert_allclose(table.first_moment, state["exp_avg"], atol=1e-4)
    np.testing.assert_allclose(table.second_moment, state["exp_avg_sq"], atol=1e-4)


@each_table
@pytest.mark.parametrize("second_moment", ["element", "row"])
@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.usefixtures("blocks")
def test_row_wise_moment_decay_and_clipping_equal_a_dense_oracle(kind, second_moment, pooling):
    rng = np.random.default_rng(1)
    start = rng.standard_normal((ROWS, WIDTH)).astype(np.float32)
    table = make_table(kind, start, second_moment=second_moment, pooling=pooling, decay=0.1)
    oracle = DenseOracle(start, table.options)
    for update in range(1, 201):
        bags = random_bags(rng, 12, ROWS)
        gradient = rng.standard_normal((12, WIDTH)).astype(np.float32)
        squared = table.norm_squared(group_by_row(bags), torch.from_numpy(gradient))
        expected = np.square(oracle.gradient(bags, gradient)).sum()
        assert squared == pytest.approx(expected, rel=1e-5)
        how = {"update": update, "rate": 0.01, "factor": min(1.0, 2 / expected**0.5)}
        random_update(table, bags, gradient, **how)
        oracle.update(bags, gradient, **how)
    np.testing.assert_allclose(numbers(table), oracle.table, atol=1e-4)
    np.testing.assert_allclose(table.second_moment, oracle.second, atol=1e-4)


@each_table
@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_gradient_equals_finite_differences_in_float64(kind, pooling):
    rng = np.random.default_rng(0)
    start, direction = rng.standard_normal((4, 3)), rng.standard_normal((3, 3))
    bags = bags_of([[0, 1, 1], [], [1, 3]])
    options = TableOptions(pooling=pooling)

    def loss(values):
        return float(np.sum(np.tanh(DenseOracle(values, options).pool(bags)) * direction))

    expected = np.zeros_like(start)
    for at in np.ndindex(*start.shape):
        step = np.zeros_like(start)
        step[at] = 1e-6
        expected[at] = (loss(start + step) - loss(start - step)) / 2e-6
    # Without decay of the moments the first is the gradient itself.
    table = make_table(
        kind, start.astype(np.float32), pooling=pooling, betas=(0.0, 0.0), epsilon=1.0
    )
    pooled = table.pool(bags).numpy().astype(np.float64)
    random_update(table, bags, (1 - np.tanh(pooled) ** 2) * direction)
    np.testing.assert_allclose(table.first_moment, expected, atol=1e-6)


@each_table
@settings(deadline=None, max_examples=40)
@given(
    lists=st.lists(st.lists(st.integers(0, 9), max_size=300), max_size=6),
    pooling=st.sampled_from(["mean", "sum"]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_pooling_equals_the_oracle_for_any_bags(kind, lists, pooling, dtype):
    start = np.random.default_rng(2).standard_normal((10, 3)).astype(np.float32)
    table = make_table(kind, start, pooling=pooling, dtype=dtype)
    expected = DenseOracle(numbers(table), table.options).pool(bags_of(lists))
    np.testing.assert_allclose(table.pool(bags_of(lists)), expected, atol=1e-3)


@each_table
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("second_moment", ["element", "row"])
def test_a_row_that_is_not_in_the_batch_does_not_move_though_it_has_moments(
    kind, dtype, second_moment
):
    start = np.ones((6, WIDTH), np.float32)
    table = make_table(kind, start, decay=0.5, dtype=dtype, second_moment=second_moment)
    gradient = np.ones((2, WIDTH))
    random_update(table, bags_of([[1, 2], []]), gradient, update=1, rate=0.1)
    arrays = (table.weights, table.first_moment, table.second_moment)
    before = [on_host(array).copy() for array in arrays]
    random_update(table, bags_of([[2, 3], [5]]), gradient, update=2, rate=0.1)
    for array, old in zip(arrays, before, strict=True):
        moved = (on_host(array) != old).reshape(len(old), -1).any(axis=1)
        assert np.flatnonzero(moved).tolist() == [2, 3, 5]
    assert table.changed.tolist() == [0, 1, 2, 2, 0, 2]


@each_table
def test_a_batch_of_empty_bags_changes_nothing(kind):
    start = np.ones((4, WIDTH), np.float32)
    table = make_table(kind, start, decay=0.5)
    bags = bags_of([[], []])
    gradient = np.ones((2, WIDTH), np.float32)
    assert table.norm_squared(group_by_row(bags), torch.from_numpy(gradient)) == 0
    random_update(table, bags, gradient)
    np.testing.assert_array_equal(numbers(table), start)
    assert table.pool(bags).tolist() == np.zeros((2, WIDTH)).tolist()


@each_table
def test_bfloat16_is_rounded_to_a_neighbour_and_on_the_average_to_nothing(kind):
    rows, width = 64, 512
    # One step of Adam without memory goes by the learning rate: 1 + 2**-10 is an eighth of the way
    # from 1 to the next number that bfloat16 has.
    table = make_table(
        kind, np.ones((rows, width), np.float32), dtype="bfloat16", betas=(0.0, 0.0), epsilon=1e-12
    )
    bags = bags_of([[row] for row in range(rows)])
    random_update(table, bags, -np.ones((rows, width)), rate=2**-10)
    stored = numbers(table)
    assert set(np.unique(stored)) == {1.0, 1 + 2**-7}
    assert abs(stored.mean() - (1 + 2**-10)) < 4 * 2**-7 * np.sqrt(0.125 / stored.size)
    by_row, by_column = stored.mean(axis=1), stored.mean(axis=0)
    assert len(np.unique(by_row)) > 8
    assert by_column.max() < 1 + 2**-8


@each_table
def test_small_steps_add_up_in_bfloat16_where_the_nearest_would_stand_still(kind):
    table = make_table(kind, np.ones((1, 2000), np.float32), dtype="bfloat16")
    bags = bags_of([[0]])
    for update in range(1, 201):
        random_update(table, bags, -np.ones((1, 2000)), update=update, rate=2**-10)
    assert numbers(table).mean() == pytest.approx(1 + 200 * 2**-10, abs=1e-3)


def test_both_tables_round_by_the_same_chances():
    rng = np.random.default_rng(3)
    start = rng.standard_normal((20, 40)).astype(np.float32)
    gradient, bags = rng.standard_normal((9, 40)), random_bags(rng, 9, 20)
    tables = [make_table(kind, start, dtype="bfloat16") for kind in TABLES]
    for table in tables:
        for update in (1, 2, 3):
            random_update(table, bags, gradient, update=update)
    stored = [on_host(table.weights) for table in tables]
    # Sums in another order differ in a last bit, and by it, once in thousands, a rounding.
    assert np.mean(stored[0] != stored[1]) < 0.01


@each_table
def test_a_bfloat16_table_learns_what_a_float32_one_does(kind):
    rng = np.random.default_rng(4)
    start = rng.standard_normal((ROWS, 64)).astype(np.float32)
    wide, narrow = (make_table(kind, start, dtype=dtype) for dtype in ("float32", "bfloat16"))
    wanted = rng.standard_normal((20, 64)).astype(np.float32)
    bags = random_bags(rng, 20, ROWS)
    losses = []
    for table in (wide, narrow):
        for update in range(1, 201):
            gradient = (table.pool(bags).numpy() - wanted) / 20
            random_update(table, bags, gradient, update=update)
        losses.append(float(np.square(table.pool(bags).numpy() - wanted).mean()))
    first = np.square(make_table(kind, start).pool(bags).numpy() - wanted).mean()
    assert losses[0] < 0.3 * first
    assert losses[1] < 1.1 * losses[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("second_moment", ["element", "row"])
def test_the_number_of_threads_changes_no_byte(dtype, second_moment):
    seen = []
    for threads in (1, 2, 3):
        rng = np.random.default_rng(5)
        options = TableOptions(dtype=dtype, second_moment=second_moment, decay=0.1)
        table = CpuTable(5000, 128, options, threads=threads)
        table.fill(0, rng.standard_normal((5000, 128)).astype(np.float32))
        arrays = []
        for update in (1, 2):
            bags = random_bags(rng, 400, 5000, longest=30)
            gradient = rng.standard_normal((400, 128)).astype(np.float32)
            arrays.append(table.pool(bags).numpy())
            squared = table.norm_squared(group_by_row(bags), torch.from_numpy(gradient))
            arrays.append(np.array(squared))
            random_update(table, bags, gradient, update=update)
        arrays += [table.weights, table.first_moment, table.second_moment]
        seen.append([array.tobytes() for array in arrays])
    assert seen[0] == seen[1] == seen[2]


@each_table
def test_a_table_starts_with_the_weights_it_is_given(kind):
    start = np.random.default_rng(6).standard_normal((5, 3)).astype(np.float32)
    for dtype, stored in (("float32", start), ("bfloat16", to_bfloat16(start))):
        stored.setflags(write=False)
        table = TABLES[kind](5, 3, TableOptions(dtype=dtype), weights=stored)
        np.testing.assert_array_equal(on_host(table.weights), stored)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_numbers_on_a_device_are_read_and_written_as_numpy_has_them(dtype):
    values = np.random.default_rng(7).standard_normal((5, 3)).astype(np.float32)
    stored = values if dtype == "float32" else to_bfloat16(values)
    tensor = torch.zeros((5, 3), dtype=getattr(torch, dtype))
    put(tensor, stored)
    np.testing.assert_array_equal(on_host(tensor), stored)
    expected = values if dtype == "float32" else from_bfloat16(stored)
    np.testing.assert_array_equal(tensor.float(), expected)
    assert form(tensor) == form(stored)
    assert np.shares_memory(on_host(tensor), on_host(tensor))
    step = torch.zeros(())
    put(step, np.array(3, np.float32))
    assert (step.item(), form(step)) == (3, "float32 []")
