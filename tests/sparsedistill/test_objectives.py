"""Objectives against NumPy, their gradients against finite differences, and the laws they obey."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.objectives import (
    Hard,
    HardBinary,
    Logits,
    Mixture,
    Soft,
    SoftBinary,
    objective,
)
from sparsedistill.targets import Targets

ROWS, CLASSES = 7, 4
LABELS = np.array([0, 1, 2, 3, 0, 1, 2])
SOME = np.array([0, -1, 2, -1, -1, 1, 3])
WEIGHTS = (0.5, 2.0, 1.0, 0.25)
YES_WEIGHTS = ((0.5, 3.0), (1.0, 1.0), (0.1, 2.0), (2.0, 0.3))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def soft(student, targets, t=1.0):
    p, q = softmax(targets.logits / t), softmax(student / t)
    return np.sum(p * np.log(p / q), axis=1) * t**2


def soft_binary(student, targets, t=1.0):
    p, q = sigmoid(targets.logits / t), sigmoid(student / t)
    return np.sum(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)), axis=1) * t**2


def squared(student, targets, *, centred=True):
    a, b = student, targets.logits
    if centred:
        a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    return np.mean((a - b) ** 2, axis=1)


def hard(student, targets, weights=(1.0,) * CLASSES):
    p = softmax(student)
    return np.array(
        [-weights[label] * np.log(row[label]) for row, label in zip(p, targets.labels, strict=True)]
    )


def hard_binary(student, targets, weights=((1.0, 1.0),) * CLASSES):
    q = sigmoid(student)
    losses = np.zeros(len(student))
    for row, label in np.ndindex(*student.shape):
        yes = targets.labels[row, label]
        chance = q[row, label] if yes else 1 - q[row, label]
        losses[row] -= weights[label][yes] * np.log(chance)
    return losses


def mixed(student, targets, alpha, teacher, labels):
    losses = []
    for row in range(len(student)):
        one, here = student[[row]], targets.take(np.array([row]))
        loss = teacher(one, here)[0]
        if (here.labels >= 0).all():
            loss = alpha * loss + (1 - alpha) * labels(one, here)[0]
        losses.append(loss)
    return np.array(losses)


def numbers(scale=3.0):
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, ROWS, CLASSES)) * scale


def many():
    """0 and 1 for each label, and none in three rows."""
    labels = np.random.default_rng(1).integers(0, 2, (ROWS, CLASSES))
    partly = labels.copy()
    partly[SOME < 0] = -1
    return labels, partly


TEACHER = numbers()[1]
MANY, PARTLY = many()
CASES = {
    "soft": (Soft(), Targets(TEACHER), soft),
    "soft at 4": (Soft(4.0), Targets(TEACHER), lambda s, t: soft(s, t, 4.0)),
    "soft at a half": (Soft(0.5), Targets(TEACHER), lambda s, t: soft(s, t, 0.5)),
    "binary": (SoftBinary(), Targets(TEACHER), soft_binary),
    "binary at 3": (SoftBinary(3.0), Targets(TEACHER), lambda s, t: soft_binary(s, t, 3.0)),
    "logits": (Logits(), Targets(TEACHER), squared),
    "as they are": (
        Logits(centred=False),
        Targets(TEACHER),
        lambda s, t: squared(s, t, centred=False),
    ),
    "hard": (Hard(), Targets(labels=LABELS), hard),
    "hard, weighted": (Hard(WEIGHTS), Targets(labels=LABELS), lambda s, t: hard(s, t, WEIGHTS)),
    "yes or no": (HardBinary(), Targets(labels=MANY), hard_binary),
    "yes or no, weighted": (
        HardBinary(YES_WEIGHTS),
        Targets(labels=MANY),
        lambda s, t: hard_binary(s, t, YES_WEIGHTS),
    ),
    "mixture": (
        Mixture(0.7, Soft(2.0), Hard(WEIGHTS)),
        Targets(TEACHER, SOME),
        lambda s, t: mixed(
            s, t, 0.7, lambda s, t: soft(s, t, 2.0), lambda s, t: hard(s, t, WEIGHTS)
        ),
    ),
    "mixture of yes or no": (
        Mixture(0.2, SoftBinary(), HardBinary()),
        Targets(TEACHER, PARTLY),
        lambda s, t: mixed(s, t, 0.2, soft_binary, hard_binary),
    ),
    "mixture with logits": (
        Mixture(0.5, Logits(), Hard()),
        Targets(TEACHER, SOME),
        lambda s, t: mixed(s, t, 0.5, squared, hard),
    ),
}
each_objective = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@each_objective
def test_losses_are_those_of_the_definition_written_out(case):
    chosen, targets, definition = case
    student = numbers()[0]
    found = chosen(torch.tensor(student), targets)
    np.testing.assert_allclose(found.numpy(), definition(student, targets))


@each_objective
def test_gradients_equal_finite_differences_in_float64(case):
    chosen, targets, definition = case
    student = numbers()[0]
    logits = torch.tensor(student, requires_grad=True)
    chosen(logits, targets).sum().backward()
    expected = np.zeros_like(student)
    for at in np.ndindex(*student.shape):
        step = np.zeros_like(student)
        step[at] = 1e-6
        above, below = definition(student + step, targets), definition(student - step, targets)
        expected[at] = (above - below).sum() / 2e-6
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-6)


@each_objective
@given(data=st.data())
def test_the_losses_of_slices_are_the_batchs_in_any_order(case, data):
    chosen, targets, _ = case
    student = torch.tensor(numbers()[0], dtype=torch.float32)
    order = np.array(data.draw(st.permutations(range(ROWS))))
    cut = data.draw(st.integers(0, ROWS))
    whole = chosen(student, targets)
    parts = [chosen(student[rows], targets.take(rows)) for rows in (order[:cut], order[cut:])]
    assert whole.dtype == torch.float32
    assert whole.shape == (ROWS,)
    np.testing.assert_allclose(torch.cat(parts).numpy(), whole.numpy()[order], rtol=1e-5)


@each_objective
def test_extreme_logits_give_finite_losses_and_gradients(case):
    chosen, targets, _ = case
    # As far as float16 goes, which is what the teacher's logits are stored in.
    extremes = np.array([65504, -65504, 0, 1e-8], np.float16)
    logits = None if targets.logits is None else np.resize(extremes, (ROWS, CLASSES))
    student = torch.tensor(np.resize(extremes[::-1], (ROWS, CLASSES)), dtype=torch.float32)
    student.requires_grad_()
    loss = chosen(student, Targets(logits, targets.labels))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("chosen", [Soft(2.0), Logits()])
def test_nothing_is_lost_where_the_logits_are_equal_up_to_a_shift_of_a_row(chosen):
    shift = np.arange(ROWS)[:, None]
    loss = chosen(torch.tensor(TEACHER + shift), Targets(TEACHER))
    np.testing.assert_allclose(loss.numpy(), 0, atol=1e-12)


@pytest.mark.parametrize("chosen", [SoftBinary(2.0), Logits(centred=False)])
def test_sigmoids_see_a_shift_of_a_row(chosen):
    same = chosen(torch.tensor(TEACHER), Targets(TEACHER))
    np.testing.assert_allclose(same.numpy(), 0, atol=1e-12)
    assert (chosen(torch.tensor(TEACHER + 1), Targets(TEACHER)) > 0.01).all()


@pytest.mark.parametrize("kind", [Soft, SoftBinary])
def test_the_gradient_does_not_shrink_with_the_temperature(kind):
    # For small logits it tends to a limit that has no T in it (Hinton et al., 2015, section 2.1).
    student, teacher = numbers(scale=0.1)
    sizes = []
    for temperature in (1.0, 10.0, 100.0):
        logits = torch.tensor(student, requires_grad=True)
        kind(temperature)(logits, Targets(teacher)).sum().backward()
        sizes.append(logits.grad.norm().item())
    assert max(sizes) / min(sizes) < 1.1


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_several_labels_are_as_one_label_of_all_their_sets(temperature):
    # Softmax over all 16 sets of labels, a set's logit the sum of its labels', is the product of
    # the sigmoids: so it is the sum over the labels, not the mean, that is a divergence.
    sets = np.array(list(itertools.product([0, 1], repeat=CLASSES)))
    student, teacher = numbers()
    joint = torch.tensor(student @ sets.T)
    np.testing.assert_allclose(
        SoftBinary(temperature)(torch.tensor(student), Targets(teacher)).numpy(),
        Soft(temperature)(joint, Targets(teacher @ sets.T)).numpy(),
    )
    which = MANY @ (2 ** np.arange(CLASSES)[::-1])
    np.testing.assert_allclose(
        HardBinary()(torch.tensor(student), Targets(labels=MANY)).numpy(),
        Hard()(joint, Targets(labels=which)).numpy(),
    )


@pytest.mark.parametrize("labels", [None, np.full(ROWS, -1)])
def test_a_mixture_is_the_teacher_alone_where_no_row_has_a_label(labels):
    student = torch.tensor(numbers()[0])
    alone = Soft()(student, Targets(TEACHER))
    mixture = Mixture(0.3, Soft(), Hard())(student, Targets(TEACHER, labels))
    assert torch.equal(mixture, alone)


@pytest.mark.parametrize(
    ("chosen", "targets", "message"),
    [
        (Soft(), Targets(labels=LABELS), "needs the teacher's logits"),
        (Hard(), Targets(TEACHER), "needs labels"),
        (Soft(), Targets(TEACHER[:, :3]), "logits are of 3 classes, the student's of 4"),
        (Hard(), Targets(labels=SOME), r"label -1; .* 4 classes has labels 0 to 3"),
        (Hard(), Targets(labels=LABELS + 2), "a row has label 4"),
        (Hard(), Targets(labels=MANY), "one a row"),
        (HardBinary(), Targets(labels=MANY[:, :3]), r"must be \[rows, 4\].*not \[7, 3\]"),
        (HardBinary(), Targets(labels=LABELS), r"must be \[rows, 4\].*not \[7\]"),
        (HardBinary(), Targets(labels=PARTLY), "must be 0 or 1"),
    ],
)
def test_targets_that_an_objective_cannot_use_are_refused(chosen, targets, message):
    with pytest.raises(DataError, match=message):
        chosen(torch.tensor(numbers()[0]), targets)


def test_objectives_go_by_name():
    assert objective("soft", temperature=3.0) == Soft(3.0)
    assert objective("hard", weights=WEIGHTS) == Hard(WEIGHTS)
    assert objective("logits") == Logits()
    assert objective("soft", alpha=0.5) == Mixture(0.5, Soft(), Hard())
    assert objective("soft", multi_label=True, temperature=2.0) == SoftBinary(2.0)
    assert objective("hard", multi_label=True, weights=YES_WEIGHTS) == HardBinary(YES_WEIGHTS)
    assert objective("logits", multi_label=True) == Logits(centred=False)
    assert objective("logits", multi_label=True, alpha=0.9, weights=YES_WEIGHTS) == Mixture(
        0.9, Logits(centred=False), HardBinary(YES_WEIGHTS)
    )
    with pytest.raises(ConfigError, match="'sofd'; there are soft, logits, hard"):
        objective("sofd")


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_cannot_work_is_refused(temperature):
    with pytest.raises(ConfigError, match="temperature"):
        objective("soft", temperature=temperature)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_a_teachers_weight_that_is_no_share_is_refused(alpha):
    with pytest.raises(ConfigError, match="from 0 to 1"):
        objective("soft", alpha=alpha)
