"""What a student is asked to imitate: one small callable per objective.

An objective takes the student's logits and the targets of the same rows and returns the loss of
each row, so that a batch may be worked on in slices: the losses of the slices add up to the
batch's. ``soft`` is the distillation loss of the paper (section 2.4, with the direction that its
second version corrects); ``logits`` and ``hard`` stand beside it, and a mixture of the teacher's
objective and ``hard``. Where a row may have several labels each is a yes or no of its own: such
labels are independent, so probabilities multiply and losses add up over the labels; ``SoftBinary``
and ``HardBinary`` are what ``Soft`` and ``Hard`` would give over all sets of labels, each set a
class. Another objective is another dataclass here with a ``__call__``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by

from sparsedistill.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from sparsedistill.class_weights import Weights
    from sparsedistill.targets import Targets

ObjectiveName = Literal["soft", "logits", "hard"]


class Objective(Protocol):
    """Losses of some rows; small and stateless, so that threads may share one."""

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the loss of each row, like the logits' numbers, [rows].

        Args:
            logits: The student's, [rows, classes], on any device.
            targets: Of the same rows.

        Raises:
            DataError: The targets lack what the objective needs.
        """
        ...


@dataclass(frozen=True, slots=True)
class Soft:
    """KL(teacher || student) at temperature T on both sides, times T squared (Hinton et al., 2015).

    The square keeps the size of the gradient independent of T.
    """

    temperature: float = 1.0

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the divergence of each row."""
        student = F.log_softmax(logits / self.temperature, dim=1)
        teacher = F.log_softmax(_teacher(logits, targets) / self.temperature, dim=1)
        divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
        return divergence * self.temperature**2


@dataclass(frozen=True, slots=True)
class SoftBinary:
    """``Soft`` for labels that exclude nothing: of a sigmoid each, added up over the labels."""

    temperature: float = 1.0

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the divergence of each row, over all its labels together."""
        student = logits / self.temperature
        teacher = _teacher(logits, targets) / self.temperature
        yes = F.logsigmoid(teacher) - F.logsigmoid(student)
        no = F.logsigmoid(-teacher) - F.logsigmoid(-student)
        divergence = torch.sigmoid(teacher) * yes + torch.sigmoid(-teacher) * no
        return divergence.sum(dim=1) * self.temperature**2


@dataclass(frozen=True, slots=True)
class Logits:
    """Squared difference of the logits, the mean over the classes.

    Attributes:
        centred: Whether each row's mean is removed first: a softmax ignores it, sigmoids do not.
    """

    centred: bool = True

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the mean squared difference of each row."""
        difference = logits - _teacher(logits, targets)
        if self.centred:
            difference = difference - difference.mean(dim=1, keepdim=True)
        return difference.square().mean(dim=1)


@dataclass(frozen=True, slots=True)
class Hard:
    """Cross-entropy on labels: the student trained from scratch, and fine-tuning.

    Attributes:
        weights: Factor of a row by its label, [classes]; all 1 where not given.
    """

    weights: Weights | None = None

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the cross-entropy of each row."""
        labels = _labels(logits, targets)
        losses = F.cross_entropy(logits, labels, reduction="none")
        if self.weights is None:
            return losses
        return losses * logits.new_tensor(self.weights)[labels]


@dataclass(frozen=True, slots=True)
class HardBinary:
    """Binary cross-entropy on labels of 0 and 1 a class, added up over the labels.

    Attributes:
        weights: Factor of a row's loss of a label by what the label is, [labels, 2]; all 1 where
            not given.
    """

    weights: Weights | None = None

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the cross-entropy of each row, over all its labels together."""
        labels = _many_labels(logits, targets)
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        if self.weights is not None:
            no, yes = logits.new_tensor(self.weights).unbind(dim=1)
            losses = losses * torch.where(labels == 1, yes, no)
        return losses.sum(dim=1)


@dataclass(frozen=True, slots=True)
class Mixture:
    """The teacher and the labels together; a row without a label has the teacher alone.

    Attributes:
        alpha: Weight of the teacher's objective; the labels' has the rest.
        teacher: What is asked of every row.
        labels: What is asked, besides, of a row with a label.
    """

    alpha: float
    teacher: Soft | SoftBinary | Logits
    labels: Hard | HardBinary

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the mixed loss of each row."""
        taught = self.teacher(logits, targets)
        rows = np.flatnonzero(_has_label(targets))
        if len(rows) == 0:
            return taught
        where = torch.from_numpy(rows).to(logits.device)
        told = self.labels(logits[where], targets.take(rows))
        mixed = self.alpha * taught[where] + (1 - self.alpha) * told
        return taught.index_copy(0, where, mixed)


def objective(
    name: str,
    *,
    temperature: float = 1.0,
    alpha: float = 1.0,
    multi_label: bool = False,
    weights: Weights | None = None,
) -> Objective:
    """Return the objective of that name.

    Args:
        name: ``soft``, ``logits`` or ``hard``.
        temperature: Of ``soft``.
        alpha: Weight of the teacher's objective against hard labels; 1 is the teacher alone.
        multi_label: Whether a row may have several labels.
        weights: Of the labels in ``hard``: from ``class_weights``, or ``label_weights`` where
            ``multi_label``.

    Raises:
        ConfigError: There is none of that name, the temperature is not a positive number, or alpha
            is not from 0 to 1.
    """
    if not 0 < temperature < math.inf:
        raise ConfigError(f"the temperature must be positive and finite, not {temperature}")
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha, the teacher's weight, must be from 0 to 1, not {alpha}")
    labels = HardBinary(weights) if multi_label else Hard(weights)
    teachers: dict[str, Soft | SoftBinary | Logits] = {
        "soft": SoftBinary(temperature) if multi_label else Soft(temperature),
        "logits": Logits(centred=not multi_label),
    }
    if name == "hard":
        return labels
    if name not in teachers:
        raise ConfigError(f"no objective {name!r}; there are {', '.join(teachers)}, hard")
    return teachers[name] if alpha == 1 else Mixture(alpha, teachers[name], labels)


def _teacher(logits: Tensor, targets: Targets) -> Tensor:
    """Return the teacher's logits, as the student's are."""
    if targets.logits is None:
        raise DataError("this objective needs the teacher's logits; with labels alone, use hard")
    if targets.logits.shape[1] != logits.shape[1]:
        raise DataError(
            f"the teacher's logits are of {targets.logits.shape[1]} classes, the student's of "
            f"{logits.shape[1]}: they must be of one task"
        )
    return torch.tensor(targets.logits, dtype=logits.dtype, device=logits.device)


def _labels(logits: Tensor, targets: Targets) -> Tensor:
    """Return labels int64 [rows], one a row."""
    labels = _given_labels(targets)
    if labels.ndim != 1:
        raise DataError("the labels are of rows with several: this objective wants one a row")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        strange = labels[(labels < 0) | (labels >= logits.shape[1])][0]
        raise DataError(
            f"a row has label {strange}; a student of {logits.shape[1]} classes has labels 0 to "
            f"{logits.shape[1] - 1} (-1, no label, is for mixtures with the teacher)"
        )
    return torch.tensor(labels, dtype=torch.int64, device=logits.device)


def _many_labels(logits: Tensor, targets: Targets) -> Tensor:
    """Return labels of 0 and 1, as the logits' numbers, [rows, labels]."""
    labels = _given_labels(targets)
    if labels.shape[1:] != logits.shape[1:]:
        raise DataError(
            f"labels of rows that may have several must be [rows, {logits.shape[1]}], 0 or 1 for "
            f"each, not {list(labels.shape)}"
        )
    if not ((labels == 0) | (labels == 1)).all():
        raise DataError(
            "labels of rows that may have several must be 0 or 1 (-1, no label, is for mixtures "
            "with the teacher)"
        )
    return torch.tensor(labels, dtype=logits.dtype, device=logits.device)


def _given_labels(targets: Targets) -> npt.NDArray[Any]:
    if targets.labels is None:
        raise DataError("this objective needs labels; with the teacher's logits alone, use soft")
    return targets.labels


def _has_label(targets: Targets) -> npt.NDArray[np.bool_]:
    """Return which rows have a label, bool [rows]; where there are none at all, no row has."""
    if targets.labels is None:
        return np.zeros(len(targets), np.bool_)
    labels = targets.labels
    # Where a row may have several, none of them is known or all are.
    given: npt.NDArray[np.bool_] = (labels if labels.ndim == 1 else labels.min(axis=1)) >= 0
    return given
