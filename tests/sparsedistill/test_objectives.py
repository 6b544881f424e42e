import numpy as np
import pytest
import torch

from sparsedistill.errors import ConfigError
from sparsedistill.objectives import Hard, Logits, Soft, objective


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def pair(rows=7, classes=4, scale=3.0):
    rng = np.random.default_rng(0)
    student, teacher = rng.standard_normal((2, rows, classes)) * scale
    return torch.tensor(student, requires_grad=True), torch.tensor(teacher)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_is_the_divergence_of_the_student_from_the_teacher_times_t_squared(temperature):
    student, teacher = pair()
    p = softmax(teacher.numpy() / temperature)
    q = softmax(student.detach().numpy() / temperature)
    expected = np.sum(p * np.log(p / q)) / len(p) * temperature**2
    assert Soft(temperature)(student, teacher).item() == pytest.approx(expected)


@pytest.mark.parametrize("chosen", [Soft(2.0), Logits()])
def test_nothing_is_lost_where_the_logits_are_equal_up_to_a_shift_of_a_row(chosen):
    _, teacher = pair()
    shift = torch.arange(len(teacher)).reshape(-1, 1)
    assert chosen(teacher + shift, teacher).item() == pytest.approx(0, abs=1e-12)


def test_the_gradient_does_not_shrink_with_the_temperature():
    # For small logits it tends to a limit that has no T in it (Hinton et al., 2015, section 2.1).
    sizes = []
    for temperature in (1.0, 10.0, 100.0):
        student, teacher = pair(scale=0.1)
        Soft(temperature)(student, teacher).backward()
        sizes.append(student.grad.norm().item())
    assert max(sizes) / min(sizes) < 1.1


def test_teacher_logits_that_are_huge_give_a_finite_loss():
    student, _ = pair(2, 2)
    assert torch.isfinite(Soft()(student, torch.tensor([[1e4, -1e4], [0.0, 800.0]]))).item()


def test_hard_is_the_mean_cross_entropy():
    student, _ = pair()
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    p = softmax(student.detach().numpy())[np.arange(7), labels.numpy()]
    assert Hard()(student, labels).item() == pytest.approx(-np.log(p).mean())


def test_logits_is_the_mean_squared_difference_of_centred_rows():
    student, teacher = pair()
    a, b = student.detach().numpy(), teacher.numpy()
    difference = (a - a.mean(axis=1, keepdims=True)) - (b - b.mean(axis=1, keepdims=True))
    assert Logits()(student, teacher).item() == pytest.approx((difference**2).mean())


def test_objectives_go_by_name():
    assert objective("soft", temperature=3.0) == Soft(3.0)
    assert (objective("hard"), objective("logits")) == (Hard(), Logits())
    with pytest.raises(ConfigError, match="'sofd'; there are soft, logits, hard"):
        objective("sofd")


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_cannot_work_is_refused(temperature):
    with pytest.raises(ConfigError, match="temperature"):
        objective("soft", temperature=temperature)
