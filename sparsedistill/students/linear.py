"""A linear layer, forward and backward, by the faster of torch's two libraries.

On CPUs that are not Intel's, MKL, which torch multiplies float32 matrices with, uses half of what
the processor has; oneDNN, which torch carries too, uses all of it (docs/training.md has figures).
torch reaches it by an operator that its compiler uses; where a version has none, MKL does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Below this, the call of oneDNN costs more than it saves.
_LEAST = 64


def linear(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``values @ weight.T + bias``.

    Args:
        values: float32 [rows, inputs].
        weight: float32 [outputs, inputs].
        bias: float32 [outputs].
    """
    if min(weight.shape) < _LEAST or not _has_onednn(values):
        return torch.addmm(bias, values, weight.T)
    return _Linear.apply(values, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(values, weight)
        return _product(values, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:  # noqa: ANN401
        (gradient,) = gradients
        values, weight = ctx.saved_tensors
        by_values = _product(gradient, weight.T) if ctx.needs_input_grad[0] else None
        return by_values, _product(gradient.T, values.T), gradient.sum(0)


def _product(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``values @ weight.T`` by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")  # type: ignore[no-any-return]


def _has_onednn(values: Tensor) -> bool:
    return (
        values.device.type == "cpu"
        and values.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
