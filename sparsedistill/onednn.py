"""Products of matrices by oneDNN, the faster of torch's two libraries.

On CPUs that are not Intel's, MKL, which torch multiplies float32 matrices with, uses half of what
the processor has; oneDNN, which torch carries too, uses all of it (docs/training.md has figures).
torch reaches it by an operator that its compiler uses; where a version has none, MKL does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor


def has_onednn(values: Tensor) -> bool:
    """Return whether ``product`` can take these values: float32 on a CPU, and a torch that can."""
    return (
        values.device.type == "cpu"
        and values.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def product(
    values: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    then: Literal["none", "gelu"] = "none",
) -> Tensor:
    """Return ``values @ weight.T + bias``, and the exact GELU of it where asked.

    Args:
        values: float32 [..., inputs].
        weight: float32 [outputs, inputs].
        bias: float32 [outputs].
        then: Applied while the product is still in the cache.
    """
    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, then, [], "none")  # type: ignore[no-any-return]
