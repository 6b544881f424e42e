"""What the students that are torch modules, or have dense layers, do alike in an update."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from sparsedistill.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def check_loss(loss: float, update: int) -> None:
    """See that a batch's loss is a number.

    Raises:
        DataError: It is not; the message names the update.
    """
    if not math.isfinite(loss):
        raise DataError(
            f"the loss at update {update} is {loss}; a lower learning rate usually helps"
        )


def device_named(name: str) -> torch.device:
    """Return the device of a name, such as ``cpu`` or ``cuda:1``.

    Raises:
        ConfigError: torch knows no such device, or finds none here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"{name!r} is no device that torch knows: {error!s:.200}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"there is no {name} here: torch finds {torch.cuda.device_count()} GPUs; students are "
            "trained on the processor where no device is named"
        )
    return device


def dense_adam(
    parameters: Mapping[str, Tensor],
    *,
    weight_decay: float,
    betas: tuple[float, float],
    epsilon: float,
) -> torch.optim.AdamW:
    """Return torch's Adam, its state already there to be saved or loaded.

    Args:
        parameters: Those named ``...bias`` do not decay.
        weight_decay: Decoupled, of all others.
        betas: Decay of the moments.
        epsilon: Adam's.
    """
    biases = {name for name in parameters if name.endswith("bias")}
    adam = torch.optim.AdamW(
        [
            {"params": [p for name, p in parameters.items() if name not in biases],
             "weight_decay": weight_decay},
            {"params": [parameters[name] for name in parameters if name in biases],
             "weight_decay": 0.0},
        ],
        betas=betas,
        eps=epsilon,
        fused=True,
    )  # fmt: skip
    for parameter in parameters.values():
        adam.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }
    return adam
