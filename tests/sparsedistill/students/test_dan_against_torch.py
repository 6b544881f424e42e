"""The DAN and its hybrid Adam against torch's own embedding bag, SparseAdam and AdamW."""

import numpy as np
import pytest
import torch
from bag_cases import bags_of, random_bags

from sparsedistill.errors import DataError
from sparsedistill.objectives import Hard, Soft
from sparsedistill.students import DAN, DANRegularisation, DANShape
from sparsedistill.training.sparse_adam import SparseTable

ROWS, WIDTH, HIDDEN, CLASSES = 60, 12, 10, 3


def dan(*, activation="relu", seed=0, threads=1, rows=ROWS, **regularisation):
    shape = DANShape(rows, WIDTH, HIDDEN, CLASSES, activation, init_scale=0.5)
    return DAN(
        shape, regularisation=DANRegularisation(**regularisation), seed=seed, threads=threads
    )


class Oracle:
    """The same network out of torch's modules, with the two optimisers that the paper pairs."""

    def __init__(self, student, *, weight_decay, betas, epsilon):
        weights = {name: torch.tensor(value) for name, value in student.weights().items()}
        self.bag = torch.nn.EmbeddingBag.from_pretrained(
            weights["table"], freeze=False, mode="mean", sparse=True
        )
        self.hidden = torch.nn.Linear(WIDTH, HIDDEN)
        self.head = torch.nn.Linear(HIDDEN, CLASSES)
        with torch.no_grad():
            for layer, name in ((self.hidden, "hidden"), (self.head, "head")):
                layer.weight.copy_(weights[f"{name}_weight"])
                layer.bias.copy_(weights[f"{name}_bias"])
        self.act = {"relu": torch.relu, "tanh": torch.tanh}[student.shape.activation]
        self.sparse = torch.optim.SparseAdam(self.bag.parameters(), betas=betas, eps=epsilon)
        layers = (self.hidden, self.head)
        groups = [
            {"params": [layer.weight for layer in layers], "weight_decay": weight_decay},
            {"params": [layer.bias for layer in layers], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, betas=betas, eps=epsilon)

    def logits(self, bags):
        rows, offsets = torch.tensor(bags.rows), torch.tensor(bags.offsets[:-1], dtype=torch.int32)
        return self.head(self.act(self.hidden(self.bag(rows, offsets))))

    def step(self, bags, objective, targets, rate):
        for optimiser in (self.sparse, self.adam):
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = rate
        objective(self.logits(bags), targets).backward()
        self.sparse.step()
        self.adam.step()


def take_step(student, update, bags, objective, targets, rate):
    objective(student.forward(bags, update=update), targets).backward()
    student.update(update, rate)


@pytest.mark.parametrize(
    ("activation", "weight_decay", "betas", "epsilon"),
    [("relu", 0.0, (0.9, 0.999), 1e-8), ("tanh", 0.01, (0.9, 0.98), 1e-6)],
)
def test_hybrid_adam_equals_torch_over_hundreds_of_updates(
    activation, weight_decay, betas, epsilon
):
    constants = {"weight_decay": weight_decay, "betas": betas, "epsilon": epsilon}
    student = dan(activation=activation, **constants)
    oracle = Oracle(student, **constants)
    rng = np.random.default_rng(1)
    for update in range(1, 301):
        # Small batches at times, so that most rows rest while others move.
        bags = random_bags(rng, int(rng.integers(1, 24)), ROWS)
        objective = Soft(2.0) if update % 2 else Hard()
        targets = torch.from_numpy(
            rng.standard_normal((len(bags), CLASSES)).astype(np.float32)
            if update % 2
            else rng.integers(0, CLASSES, len(bags))
        )
        rate = 0.01 / (1 + update / 100)
        take_step(student, update, bags, objective, targets, rate)
        oracle.step(bags, objective, targets, rate)
    table = oracle.bag.weight.detach().numpy()
    np.testing.assert_allclose(student.weights()["table"], table, atol=2e-4)
    np.testing.assert_allclose(
        student.weights()["hidden_weight"], oracle.hidden.weight.detach().numpy(), atol=2e-4
    )
    np.testing.assert_allclose(
        student.weights()["head_bias"], oracle.head.bias.detach().numpy(), atol=2e-4
    )
    bags = random_bags(rng, 30, ROWS)
    np.testing.assert_allclose(
        student.predict(bags), oracle.logits(bags).detach().numpy(), atol=1e-3
    )


def test_a_batch_of_empty_bags_moves_no_row_of_the_table():
    student = dan()
    before = student.weights()["table"].copy()
    take_step(student, 1, bags_of([[], []]), Hard(), torch.tensor([0, 1]), 0.1)
    np.testing.assert_array_equal(student.weights()["table"], before)


def test_a_row_that_is_not_in_the_batch_does_not_move_though_it_has_moments():
    student = dan()
    take_step(student, 1, bags_of([[1, 2]]), Hard(), torch.tensor([0]), 0.1)
    before = student.weights()["table"].copy()
    take_step(student, 2, bags_of([[2, 3]]), Hard(), torch.tensor([0]), 0.1)
    moved = np.flatnonzero((student.weights()["table"] != before).any(axis=1))
    assert moved.tolist() == [2, 3]


def test_table_gradient_equals_finite_differences_in_float64():
    rng = np.random.default_rng(0)
    table, direction = rng.standard_normal((4, 3)), rng.standard_normal((3, 3))
    bags = bags_of([[0, 1, 1], [], [1, 3]])

    def loss(values):
        means = [values[list(bag)].mean(axis=0) if len(bag) else np.zeros(3) for bag in bags]
        return float(np.sum(np.tanh(means) * direction))

    means = SparseTable(table.astype(np.float32), betas=(0, 0), epsilon=1, threads=1).mean(bags)
    expected = np.zeros_like(table)
    for at in np.ndindex(*table.shape):
        step = np.zeros_like(table)
        step[at] = 1e-6
        expected[at] = (loss(table + step) - loss(table - step)) / 2e-6
    # Without decay the first moment after one update is the gradient itself.
    sparse = SparseTable(table.astype(np.float32), betas=(0.0, 0.0), epsilon=1.0, threads=1)
    gradient = ((1 - np.tanh(means.astype(np.float64)) ** 2) * direction).astype(np.float32)
    sparse.update(bags, gradient, update=1, learning_rate=0.1)
    np.testing.assert_allclose(sparse.first_moment, expected, atol=1e-6)


def trained(*, threads, torch_threads=1, dropout=0.2):
    torch.set_num_threads(torch_threads)
    student = dan(rows=20_000, threads=threads, feature_dropout=dropout, dropout=dropout)
    rng = np.random.default_rng(2)
    for update, size in enumerate((1100, 600, 5), start=1):
        bags = random_bags(rng, size, 20_000, longest=20)
        targets = torch.from_numpy(rng.integers(0, CLASSES, size))
        take_step(student, update, bags, Hard(), targets, 0.01)
    torch.set_num_threads(1)
    return {
        name: a.tobytes() for name, a in (student.weights() | student.optimiser_state()).items()
    }


def test_the_number_of_threads_changes_no_byte():
    assert trained(threads=1) == trained(threads=2)


def test_a_batch_too_small_for_mkl_has_the_same_bytes_with_two_torch_threads():
    # MKL takes another kernel for products of few rows, which rounds otherwise with two threads.
    rng = np.random.default_rng(0)
    bags = random_bags(rng, 5, ROWS)
    seen = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        student = DAN(DANShape(ROWS, 128, 128, 2, "relu", 1.0))
        take_step(student, 1, bags, Hard(), torch.tensor([0, 1, 0, 1, 0]), 0.1)
        seen.append({name: a.tobytes() for name, a in student.weights().items()})
    torch.set_num_threads(1)
    assert seen[0] == seen[1]


def test_dropout_is_a_function_of_seed_and_update():
    bags = random_bags(np.random.default_rng(3), 20, ROWS)
    student, twin = dan(feature_dropout=0.3, dropout=0.3), dan(feature_dropout=0.3, dropout=0.3)
    torch.manual_seed(0)
    first = student.forward(bags, update=7)
    torch.manual_seed(1)
    assert torch.equal(first, twin.forward(bags, update=7))
    assert not torch.equal(first, student.forward(bags, update=8))
    other = dan(seed=1, feature_dropout=0.3, dropout=0.3)
    other.load(student.weights())
    assert not torch.equal(first, other.forward(bags, update=7))


def test_predict_drops_nothing():
    bags = random_bags(np.random.default_rng(3), 20, ROWS)
    plain, dropping = dan(), dan(feature_dropout=0.5, dropout=0.5)
    np.testing.assert_array_equal(plain.predict(bags), dropping.predict(bags))
    assert plain.predict(bags_of([])).shape == (0, CLASSES)


def test_feature_dropout_leaves_out_about_its_share_and_keeps_the_mean_a_mean():
    student = dan(feature_dropout=0.25)
    student.weights()["table"][:] = 1.0
    bags = bags_of([list(range(ROWS))] * 200)
    student.forward(bags, update=1)
    assert 0.72 < len(student._bags.rows) / len(bags.rows) < 0.78
    np.testing.assert_allclose(student._mean.detach().numpy(), 1.0, rtol=1e-6)


def test_dropout_keeps_the_expected_value():
    student = dan(dropout=0.4)
    dropped = student._dropped(torch.ones(300, 300), np.random.default_rng(0))
    assert abs(dropped.mean().item() - 1) < 0.01


def test_weights_and_moments_survive_load_and_are_views():
    student, twin = dan(seed=1), dan(seed=2)
    bags = random_bags(np.random.default_rng(0), 9, ROWS)
    labels = torch.zeros(9, dtype=torch.int64)
    take_step(student, 1, bags, Hard(), labels, 0.01)
    twin.load({**student.weights(), **student.optimiser_state()})
    for model in (student, twin):
        take_step(model, 2, bags, Hard(), labels, 0.01)
    for name, value in student.weights().items():
        np.testing.assert_array_equal(value, twin.weights()[name], err_msg=name)
    assert np.shares_memory(student.weights()["table"], student.sparse.table)
    student.weights()["head_bias"][:] = 5
    assert student.dense["head_bias"].tolist() == [5.0] * CLASSES


def test_loading_says_what_is_missing_or_of_another_shape():
    weights = dan().weights()
    with pytest.raises(DataError, match="lacks head_bias"):
        dan().load({name: value for name, value in weights.items() if name != "head_bias"})
    with pytest.raises(DataError, match=r"hidden_bias is \(3,\), expected \(10,\)"):
        dan().load({**weights, "hidden_bias": np.zeros(3, np.float32)})
    with pytest.raises(DataError, match="expected nothing of that name"):
        dan().load({**weights, "extra": np.zeros(3, np.float32)})


def test_an_update_without_a_gradient_is_refused():
    with pytest.raises(RuntimeError, match="forward"):
        dan().update(1, 0.1)
