"""A linear layer, forward and backward, by the faster of torch's two libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sparsedistill.onednn import has_onednn, product

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
    if min(weight.shape) < _LEAST or not has_onednn(values):
        return torch.addmm(bias, values, weight.T)
    return _Linear.apply(values, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(values, weight)
        return product(values, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:  # noqa: ANN401
        (gradient,) = gradients
        values, weight = ctx.saved_tensors
        by_values = product(gradient, weight.T) if ctx.needs_input_grad[0] else None
        return by_values, product(gradient.T, values.T), gradient.sum(0)
