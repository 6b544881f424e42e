"""Poolings that are no sum: against NumPy by hand, finite differences, and torch's own parts."""

import numpy as np
import pytest
import torch
from helpers.random_bags import bags_of, random_bags
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.objectives import Hard
from sparsedistill.students import DAN, DANShape, StudentTraining
from sparsedistill.targets import Targets

ROWS, WIDTH, CLASSES = 30, 6, 3
POOLINGS = ["max", "attentive"]


def dan(pooling, *, rows=ROWS, threads=1, seed=0, init_scale=0.5, **training):
    shape = DANShape(rows, WIDTH, 5, CLASSES, "tanh", init_scale, pooling=pooling)
    return DAN(shape, training=StudentTraining(**training), threads=threads, seed=seed)


def softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def pooled(weights, bag, pooling):
    """One text's vector, as one would write it down."""
    embeddings = weights["table"][bag].astype(np.float64)
    if len(bag) == 0:
        return np.zeros(WIDTH)
    if pooling == "max":
        return embeddings.max(axis=0)
    about = weights["attention_mean_weight"] @ embeddings.mean(axis=0)
    inner = [np.tanh(weights["attention_own_weight"] @ one + about) for one in embeddings]
    return softmax(np.array([weights["attention_score_weight"][0] @ one for one in inner])) @ (
        embeddings
    )


def logits(weights, bags, pooling):
    vectors = np.array([pooled(weights, bag, pooling) for bag in bags])
    hidden = np.tanh(vectors @ weights["hidden_weight"].T + weights["hidden_bias"])
    return hidden @ weights["head_weight"].T + weights["head_bias"]


def cross_entropy(weights, bags, pooling, labels):
    rows = logits(weights, bags, pooling)
    chances = [softmax(row)[label] for row, label in zip(rows, labels, strict=True)]
    return -np.mean(np.log(chances))


def take_step(student, bags, labels, *, update=1, rate=0.01):
    batch = student.prepare(bags, np.arange(len(bags)), update=update)
    targets = Targets(labels=np.asarray(labels))
    return student.step(batch, targets, Hard(), update=update, learning_rate=rate)


@pytest.mark.parametrize("pooling", POOLINGS)
@settings(deadline=None, max_examples=40)
@given(lists=st.lists(st.lists(st.integers(0, 9), max_size=60), min_size=1, max_size=6))
def test_any_texts_are_pooled_as_written_down_by_hand(pooling, lists):
    student = dan(pooling, rows=10, init_scale=2.0)
    bags = bags_of(lists)
    expected = logits(student.weights(), bags, pooling)
    np.testing.assert_allclose(student.predict(bags), expected, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_empty_text_has_the_zero_vector(pooling):
    student = dan(pooling)
    zeros = np.zeros((3, WIDTH))
    weights = student.weights()
    hidden = np.tanh(zeros @ weights["hidden_weight"].T + weights["hidden_bias"])
    expected = hidden @ weights["head_weight"].T + weights["head_bias"]
    np.testing.assert_allclose(student.predict(bags_of([[], [], []])), expected, atol=1e-6)
    mixed = student.predict(bags_of([[1, 2], [], [3]]))
    np.testing.assert_allclose(mixed[1], expected[0], atol=1e-6)


def test_an_ngram_that_occurs_twice_weighs_twice_in_attention_and_no_more_in_the_greatest():
    for pooling, same in (("max", True), ("attentive", False)):
        once, twice = dan(pooling, init_scale=2.0).predict(bags_of([[1, 2], [1, 2, 2]]))
        assert np.allclose(once, twice, atol=1e-6) is same


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_equal_finite_differences_of_every_weight(pooling):
    bags = bags_of([[0, 1, 1, 2], [], [1, 3], [4, 4, 4]])
    labels = [0, 1, 2, 0]
    # Without decay of the moments the first one is the gradient itself.
    student = dan(pooling, betas=(0.0, 0.0), epsilon=1.0)
    weights = {name: value.astype(np.float64) for name, value in student.weights().items()}
    take_step(student, bags, labels)
    state = student.optimiser_state()
    assert len(weights) == (8 if pooling == "attentive" else 5)
    for name, value in weights.items():
        expected = np.zeros_like(value)
        for at in np.ndindex(*value.shape):
            there = value[at]
            losses = []
            for moved in (there + 1e-5, there - 1e-5):
                value[at] = moved
                losses.append(cross_entropy(weights, bags, pooling, labels))
            value[at] = there
            expected[at] = (losses[0] - losses[1]) / 2e-5
        found = state["table.first_moment" if name == "table" else f"{name}.exp_avg"]
        np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=name)
    moved = np.flatnonzero(student.changed()["table"])
    assert moved.tolist() == [0, 1, 2, 3, 4]


class Oracle:
    """The same student out of torch's own parts, each text by itself, updated by SparseAdam."""

    def __init__(self, student):
        self.pooling = student.shape.pooling
        values = {n: torch.tensor(v, requires_grad=True) for n, v in student.weights().items()}
        self.table, self.weights = values.pop("table"), values
        self.sparse = torch.optim.SparseAdam([self.table], lr=0.01)
        self.adam = torch.optim.Adam(values.values(), lr=0.01)

    def vector(self, embeddings):
        if len(embeddings) == 0:
            return torch.zeros(WIDTH)
        if self.pooling == "max":
            return embeddings.max(dim=0).values
        own, mean, score = (
            self.weights[f"attention_{name}_weight"] for name in ("own", "mean", "score")
        )
        inner = torch.tanh(embeddings @ own.T + embeddings.mean(dim=0) @ mean.T)
        return torch.softmax(inner @ score[0], dim=0) @ embeddings

    def step(self, bags, labels):
        rows = torch.tensor(bags.rows).long()
        leaves = torch.nn.functional.embedding(rows, self.table, sparse=True)
        spans = zip(bags.offsets, bags.offsets[1:], strict=False)
        vectors = torch.stack([self.vector(leaves[a:b]) for a, b in spans])
        w = self.weights
        hidden = torch.tanh(vectors @ w["hidden_weight"].T + w["hidden_bias"])
        found = hidden @ w["head_weight"].T + w["head_bias"]
        loss = torch.nn.functional.cross_entropy(found, torch.tensor(labels))
        for optimiser in (self.sparse, self.adam):
            optimiser.zero_grad()
        loss.backward()
        for optimiser in (self.sparse, self.adam):
            optimiser.step()
        return loss.item()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_training_equals_torch_over_many_updates(pooling):
    student = dan(pooling)
    oracle = Oracle(student)
    rng = np.random.default_rng(1)
    for update in range(1, 121):
        # From two on: a single text is an empty one, for which torch would not count an update.
        bags = random_bags(rng, int(rng.integers(2, 24)), ROWS)
        labels = rng.integers(0, CLASSES, len(bags))
        loss = take_step(student, bags, labels, update=update)
        assert loss == pytest.approx(oracle.step(bags, labels), abs=1e-3)
    weights = student.weights()
    np.testing.assert_allclose(weights["table"], oracle.table.detach(), atol=1e-3)
    for name, value in oracle.weights.items():
        np.testing.assert_allclose(weights[name], value.detach(), atol=1e-3, err_msg=name)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_batch_of_empty_texts_moves_no_row(pooling):
    student = dan(pooling)
    before = student.weights()["table"].copy()
    take_step(student, bags_of([[], []]), [0, 1])
    np.testing.assert_array_equal(student.weights()["table"], before)


def trained(pooling, threads):
    student = dan(pooling, rows=5000, threads=threads, feature_dropout=0.2, dropout=0.2, clip=0.1)
    rng = np.random.default_rng(2)
    for update, size in enumerate((700, 300, 5), start=1):
        bags = random_bags(rng, size, 5000, longest=20)
        take_step(student, bags, rng.integers(0, CLASSES, size), update=update)
    found = {**student.weights(), **student.optimiser_state()}
    found["logits"] = student.predict(random_bags(rng, 1100, 5000))
    return {name: value.tobytes() for name, value in found.items()}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_number_of_threads_changes_no_byte(pooling):
    assert trained(pooling, 1) == trained(pooling, 2) == trained(pooling, 3)


@pytest.mark.parametrize("pooling", ["mean", "sum", *POOLINGS])
def test_a_student_is_what_its_weights_say_whatever_its_pooling(pooling):
    """Only attention has weights of its own; they are saved and loaded as all others."""
    first, second = dan(pooling), dan(pooling, seed=1)
    rng = np.random.default_rng(3)
    bags = random_bags(rng, 40, ROWS)
    take_step(first, bags, rng.integers(0, CLASSES, 40))
    arrays = {**first.weights(), **first.optimiser_state()}
    assert set(first.weights()) == set(first.shape.weights())
    assert ("attention_score_weight" in arrays) is (pooling == "attentive")
    second.load(arrays)
    third = DAN(first.shape, weights={n: v.copy() for n, v in first.weights().items()})
    for other in (second, third):
        np.testing.assert_array_equal(other.predict(bags), first.predict(bags))
    for student in (first, second):
        take_step(student, bags, np.zeros(40, np.int64), update=2)
    np.testing.assert_array_equal(first.predict(bags), second.predict(bags))


def test_attention_learns_which_ngram_matters_where_a_mean_hardly_can():
    """One n-gram of thirty says the label, the others say nothing."""
    rng = np.random.default_rng(4)
    losses = {}
    for pooling in ("mean", "attentive"):
        student = dan(pooling, rows=200, init_scale=0.3)
        for update in range(1, 61):
            labels = rng.integers(0, CLASSES, 64)
            noise = rng.integers(CLASSES, 200, (64, 30))
            bags = bags_of([[label, *row] for label, row in zip(labels, noise, strict=True)])
            losses[pooling] = take_step(student, bags, labels, update=update, rate=0.03)
    assert losses["attentive"] < 0.5 * losses["mean"]
