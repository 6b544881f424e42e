"""The DAN and its hybrid Adam against torch's own embedding bag, SparseAdam and AdamW."""

import numpy as np
import pytest
import torch
from helpers.random_bags import bags_of, random_bags
from hypothesis import given
from hypothesis import strategies as st

from sparsedistill.errors import DataError
from sparsedistill.objectives import Hard, Soft
from sparsedistill.students import DAN, DANShape, StudentTraining
from sparsedistill.students import linear as linear_module
from sparsedistill.students.dropout import UnitDropout
from sparsedistill.targets import Targets

ROWS, WIDTH, HIDDEN, CLASSES = 60, 12, 10, 3


def dan(*, activation="relu", seed=0, threads=1, rows=ROWS, layers=1, **training):
    shape = DANShape(rows, WIDTH, HIDDEN, CLASSES, activation, init_scale=0.5, layers=layers)
    return DAN(shape, training=StudentTraining(**training), seed=seed, threads=threads)


class Oracle:
    """The same network out of torch's modules, with the two optimisers that the paper pairs."""

    def __init__(self, student, *, weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8, clip=None):
        weights = {name: torch.tensor(value) for name, value in student.weights().items()}
        self.bag = torch.nn.EmbeddingBag.from_pretrained(
            weights["table"], freeze=False, mode="mean", sparse=True
        )
        shapes = student.shape.linear_layers()
        self.layers = {name: torch.nn.Linear(i, o) for name, (o, i) in shapes.items()}
        with torch.no_grad():
            for name, layer in self.layers.items():
                layer.weight.copy_(weights[f"{name}_weight"])
                layer.bias.copy_(weights[f"{name}_bias"])
        self.act = {"relu": torch.relu, "tanh": torch.tanh}[student.shape.activation]
        self.sparse = torch.optim.SparseAdam(self.bag.parameters(), betas=betas, eps=epsilon)
        layers = self.layers.values()
        groups = [
            {"params": [layer.weight for layer in layers], "weight_decay": weight_decay},
            {"params": [layer.bias for layer in layers], "weight_decay": 0.0},
        ]
        self.clip = clip
        self.adam = torch.optim.AdamW(groups, betas=betas, eps=epsilon)

    def logits(self, bags):
        rows, offsets = torch.tensor(bags.rows), torch.tensor(bags.offsets[:-1], dtype=torch.int32)
        values = self.bag(rows, offsets)
        *hidden, head = self.layers
        for name in hidden:
            values = self.act(self.layers[name](values))
        return self.layers[head](values)

    def step(self, bags, objective, targets, rate):
        for optimiser in (self.sparse, self.adam):
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = rate
        loss = objective(self.logits(bags), targets).mean()
        loss.backward()
        if self.clip is not None:
            self.shorten()
        self.sparse.step()
        self.adam.step()
        return loss.item()

    def shorten(self):
        """What torch's clip_grad_norm_ does, which takes no sparse gradients."""
        table = self.bag.weight.grad.coalesce()
        dense = [p.grad for layer in self.layers.values() for p in layer.parameters()]
        length = torch.stack([table.values().norm(), *(one.norm() for one in dense)]).norm()
        factor = min(1.0, self.clip / float(length))
        self.bag.weight.grad = table * factor
        for one in dense:
            one *= factor


def take_step(student, update, bags, objective, targets, rate):
    batch = student.prepare(bags, np.arange(len(bags)), update=update)
    return student.step(batch, targets, objective, update=update, learning_rate=rate)


def labels_of(rng, count):
    return Targets(labels=rng.integers(0, CLASSES, count))


@pytest.mark.parametrize(
    ("shape", "constants"),
    [
        ({}, {}),
        ({"activation": "tanh"}, {"weight_decay": 0.01, "betas": (0.9, 0.98), "epsilon": 1e-6}),
        ({"layers": 3}, {"clip": 0.05}),
    ],
    ids=["paper", "released code", "three layers, clipped"],
)
def test_hybrid_adam_equals_torch_over_hundreds_of_updates(shape, constants):
    student = dan(**shape, **constants)
    oracle = Oracle(student, **constants)
    rng = np.random.default_rng(1)
    for update in range(1, 301):
        # Small batches at times, so that most rows rest while others move.
        bags = random_bags(rng, int(rng.integers(1, 24)), ROWS)
        objective = Soft(2.0) if update % 2 else Hard()
        targets = (
            Targets(logits=rng.standard_normal((len(bags), CLASSES)).astype(np.float32))
            if update % 2
            else labels_of(rng, len(bags))
        )
        rate = 0.01 / (1 + update / 100)
        loss = take_step(student, update, bags, objective, targets, rate)
        assert loss == pytest.approx(oracle.step(bags, objective, targets, rate), abs=1e-3)
    np.testing.assert_allclose(
        student.weights()["table"], oracle.bag.weight.detach().numpy(), atol=2e-4
    )
    for name, layer in oracle.layers.items():
        weights = student.weights()
        np.testing.assert_allclose(weights[f"{name}_weight"], layer.weight.detach(), atol=2e-4)
        np.testing.assert_allclose(weights[f"{name}_bias"], layer.bias.detach(), atol=2e-4)
    bags = random_bags(rng, 30, ROWS)
    np.testing.assert_allclose(
        student.predict(bags), oracle.logits(bags).detach().numpy(), atol=1e-3
    )


def test_a_wide_network_whose_products_are_onednns_equals_torchs_too():
    shape = DANShape(ROWS, 96, 80, CLASSES, "relu", init_scale=0.5)
    student = DAN(shape)
    oracle = Oracle(student)
    rng = np.random.default_rng(3)
    for update in range(1, 51):
        bags = random_bags(rng, 300, ROWS)
        targets = labels_of(rng, 300)
        loss = take_step(student, update, bags, Hard(), targets, 1e-3)
        assert loss == pytest.approx(oracle.step(bags, Hard(), targets, 1e-3), abs=1e-4)
    for name, layer in oracle.layers.items():
        found = student.weights()[f"{name}_weight"]
        np.testing.assert_allclose(found, layer.weight.detach(), atol=2e-4)


def test_without_onednn_torchs_own_product_gives_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    values, weight, bias = (
        torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).requires_grad_()
        for shape in ((70, 90), (80, 90), (80,))
    )
    found = []
    for there in (True, False):
        monkeypatch.setattr(linear_module, "has_onednn", lambda _, there=there: there)
        out = linear_module.linear(values, weight, bias)
        found.append([out, *torch.autograd.grad(out.square().sum(), [values, weight, bias])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_a_batch_of_empty_bags_moves_no_row_of_the_table():
    student = dan()
    before = student.weights()["table"].copy()
    take_step(student, 1, bags_of([[], []]), Hard(), Targets(labels=np.array([0, 1])), 0.1)
    np.testing.assert_array_equal(student.weights()["table"], before)


def test_a_row_that_is_not_in_the_batch_does_not_move_though_it_has_moments():
    student, one = dan(), Targets(labels=np.array([0]))
    take_step(student, 1, bags_of([[1, 2]]), Hard(), one, 0.1)
    before = student.weights()["table"].copy()
    take_step(student, 2, bags_of([[2, 3]]), Hard(), one, 0.1)
    moved = np.flatnonzero((student.weights()["table"] != before).any(axis=1))
    assert moved.tolist() == [2, 3]
    assert student.changed()["table"][:5].tolist() == [0, 1, 2, 2, 0]


def test_a_loss_that_is_not_finite_names_its_update_and_changes_nothing():
    student = dan()
    before = {name: value.tobytes() for name, value in student.weights().items()}
    student.weights()["table"][3] = np.inf
    with pytest.raises(DataError, match=r"loss at update 7 is .*; a lower learning rate"):
        take_step(student, 7, bags_of([[3], [2]]), Hard(), Targets(labels=np.array([0, 1])), 0.1)
    student.weights()["table"][3] = np.frombuffer(before["table"], np.float32).reshape(ROWS, -1)[3]
    assert {name: value.tobytes() for name, value in student.weights().items()} == before


def trained(*, threads, torch_threads=1, dropout=0.2):
    torch.set_num_threads(torch_threads)
    student = dan(rows=20_000, threads=threads, feature_dropout=dropout, dropout=dropout)
    rng = np.random.default_rng(2)
    for update, size in enumerate((1100, 600, 5), start=1):
        bags = random_bags(rng, size, 20_000, longest=20)
        take_step(student, update, bags, Hard(), labels_of(rng, size), 0.01)
    torch.set_num_threads(1)
    return {
        name: a.tobytes() for name, a in (student.weights() | student.optimiser_state()).items()
    }


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_byte(threads):
    assert trained(threads=threads, torch_threads=2) == trained(threads=1)


def test_slices_have_one_torch_thread_and_the_callers_number_is_left_alone(monkeypatch):
    student, bags = dan(threads=2), bags_of([[1], [2]])
    seen = []
    network = DAN._network
    monkeypatch.setattr(
        DAN, "_network",
        lambda *given: (seen.append(torch.get_num_threads()), network(*given))[1],
    )  # fmt: skip
    torch.set_num_threads(3)
    try:
        take_step(student, 1, bags, Hard(), Targets(labels=np.array([0, 1])), 0.1)
        student.predict(bags)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    # What slices are worked out with: another number could round otherwise.
    assert seen == [1, 1]


@pytest.mark.parametrize("row", [ROWS, -1, 2**31 - 1])
def test_a_row_that_the_table_does_not_have_is_refused_before_memory_is_touched(row):
    bags = bags_of([[0], [row, 1]])
    with pytest.raises(DataError, match=f"row {row}, but the table has 60"):
        dan().predict(bags)
    with pytest.raises(DataError, match="another vocabulary"):
        take_step(dan(), 1, bags, Hard(), Targets(labels=np.array([0, 1])), 0.1)


def losses(student, bags, update):
    targets = Targets(labels=np.zeros(len(bags), np.int64))
    return take_step(student, update, bags, Hard(), targets, 0.0)


def test_dropout_is_a_function_of_seed_and_update():
    bags = random_bags(np.random.default_rng(3), 20, ROWS)
    dropping = {"feature_dropout": 0.3, "dropout": 0.3}
    student = dan(**dropping)
    torch.manual_seed(0)
    first = losses(student, bags, 7)
    torch.manual_seed(1)
    assert first == losses(dan(**dropping), bags, 7)
    assert first != losses(student, bags, 8)
    assert first != losses(DAN(student.shape, training=student.training, seed=1,
                               weights=student.weights()), bags, 7)  # fmt: skip


def test_predict_drops_nothing():
    bags = random_bags(np.random.default_rng(3), 20, ROWS)
    plain, dropping = dan(), dan(feature_dropout=0.5, dropout=0.5)
    np.testing.assert_array_equal(plain.predict(bags), dropping.predict(bags))
    assert plain.predict(bags_of([])).shape == (0, CLASSES)


def test_feature_dropout_leaves_out_about_its_share():
    student = dan(feature_dropout=0.25)
    bags = bags_of([list(range(ROWS))] * 200)
    batch = student.prepare(bags, np.arange(200), update=1)
    assert 0.72 < len(batch.bags.rows) / len(bags.rows) < 0.78


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.9])
def test_unit_dropout_drops_its_share_and_keeps_the_expected_value(rate):
    dropped = UnitDropout(rate, seed=0, update=3)(torch.ones(300, 301), layer=0, first=0)
    assert abs((dropped == 0).float().mean().item() - rate) < 0.01
    assert abs(dropped.mean().item() - 1) < 0.05


def test_unit_dropout_is_the_same_in_slices_and_differs_by_layer_and_update():
    ones = torch.ones(40, 50)
    dropout = UnitDropout(0.5, seed=1, update=2)
    whole = dropout(ones, layer=0, first=0)
    parts = [dropout(ones[:7], layer=0, first=0), dropout(ones[7:], layer=0, first=7)]
    assert torch.equal(whole, torch.cat(parts))
    others = [
        dropout(ones, layer=1, first=0),
        UnitDropout(0.5, seed=1, update=3)(ones, layer=0, first=0),
        UnitDropout(0.5, seed=2, update=2)(ones, layer=0, first=0),
    ]
    for other in others:
        assert 0.4 < (whole == other).float().mean() < 0.6


@given(
    seed=st.integers(0, 2**40), update=st.integers(1, 10**6), layer=st.integers(0, 5),
    first=st.integers(0, 5000), units=st.integers(1, 9),
    rate=st.sampled_from([0.001, 0.1, 0.5, 0.99]),
)  # fmt: skip
def test_a_device_drops_the_units_that_the_processor_drops(seed, update, layer, first, units, rate):
    dropout = UnitDropout(rate, seed, update)
    ones = torch.ones(3, units)
    kept = dropout._drawn(ones, layer, first) >= round(rate * 65536)
    assert torch.equal(dropout(ones, layer=layer, first=first) > 0, kept)


def test_weights_and_moments_survive_load_and_are_views():
    student, twin = dan(seed=1), dan(seed=2)
    rng = np.random.default_rng(0)
    bags, labels = random_bags(rng, 9, ROWS), labels_of(rng, 9)
    take_step(student, 1, bags, Hard(), labels, 0.01)
    twin.load({**student.weights(), **student.optimiser_state()})
    for model in (student, twin):
        take_step(model, 2, bags, Hard(), labels, 0.01)
    for name, value in student.weights().items():
        np.testing.assert_array_equal(value, twin.weights()[name], err_msg=name)
    assert np.shares_memory(student.weights()["table"], student.table.weights)
    student.weights()["head_bias"][:] = 5
    assert student.dense["head_bias"].tolist() == [5.0] * CLASSES


def test_weights_to_start_from_are_those_it_predicts_with():
    first = dan(seed=1)
    again = DAN(first.shape, seed=2, weights=first.weights())
    assert np.shares_memory(again.weights()["table"], first.weights()["table"])
    bags = random_bags(np.random.default_rng(0), 9, ROWS)
    np.testing.assert_array_equal(first.predict(bags), again.predict(bags))


def test_a_larger_table_starts_with_the_rows_of_a_smaller_one_whatever_the_threads():
    small, large = (
        DAN(DANShape(rows, 4, 4, 2, "relu", 0.1), threads=threads).weights()["table"]
        for rows, threads in ((5000, 1), (9000, 3))
    )
    np.testing.assert_array_equal(small, large[:5000])
    assert large.std() == pytest.approx(0.1, rel=0.02)
    assert len(np.unique(large[:, 0])) > 8990


@pytest.mark.parametrize("bad", ["load", "start"])
def test_loading_says_what_is_missing_or_of_another_shape(bad):
    student = dan()
    weights = student.weights()

    def give(arrays):
        if bad == "load":
            dan().load(arrays)
        else:
            DAN(student.shape, weights=arrays)

    with pytest.raises(DataError, match="lack head_bias"):
        give({name: value for name, value in weights.items() if name != "head_bias"})
    with pytest.raises(DataError, match=r"hidden_bias is float32 \[3\], expected float32 \[10\]"):
        give({**weights, "hidden_bias": np.zeros(3, np.float32)})
    with pytest.raises(DataError, match=r"table is float64 .*expected float32"):
        give({**weights, "table": weights["table"].astype(np.float64)})


def test_a_state_of_no_known_name_is_refused():
    with pytest.raises(DataError, match="expected nothing of that name"):
        dan().load({**dan().weights(), "extra": np.zeros(3, np.float32)})
