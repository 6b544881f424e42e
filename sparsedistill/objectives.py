"""What a student is asked to imitate: one small callable per objective.

An objective takes the student's logits and the targets of the same rows and returns the mean loss
of the batch. ``soft`` is the distillation loss of the paper (section 2.4, with the direction that
its second version corrects); ``logits`` and ``hard`` stand beside it. Another objective is another
dataclass here with a ``__call__``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by

from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

ObjectiveName = Literal["soft", "logits", "hard"]


class Objective(Protocol):
    """Mean loss of a batch.

    Args:
        logits: The student's, float32 [rows, classes].
        targets: Teacher logits float32 [rows, classes], or labels int64 [rows].
    """

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over the rows, a scalar."""
        ...


@dataclass(frozen=True, slots=True)
class Soft:
    """KL(teacher || student) at temperature T on both sides, times T squared (Hinton et al., 2015).

    The square keeps the size of the gradient independent of T.
    """

    temperature: float = 1.0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean divergence of the batch."""
        student = F.log_softmax(logits / self.temperature, dim=1)
        teacher = F.log_softmax(targets / self.temperature, dim=1)
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return divergence * self.temperature**2


@dataclass(frozen=True, slots=True)
class Logits:
    """Squared difference of the logits, each row's mean removed (softmax ignores it)."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared difference of the batch."""
        centred = targets - targets.mean(dim=1, keepdim=True)
        return F.mse_loss(logits - logits.mean(dim=1, keepdim=True), centred)


@dataclass(frozen=True, slots=True)
class Hard:
    """Cross-entropy on labels: the student trained from scratch, and fine-tuning."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of the batch."""
        return F.cross_entropy(logits, targets)


def objective(name: str, *, temperature: float = 1.0) -> Objective:
    """Return the objective of that name.

    Raises:
        ConfigError: There is none of that name, or the temperature is not a positive number.
    """
    if not 0 < temperature < math.inf:
        raise ConfigError(f"the temperature must be positive and finite, not {temperature}")
    known: dict[str, Objective] = {"soft": Soft(temperature), "logits": Logits(), "hard": Hard()}
    if name not in known:
        raise ConfigError(f"no objective {name!r}; there are {', '.join(known)}")
    return known[name]
