"""The model, ready to answer: how batches of token ids become logits on a device.

An engine is one class here: torch on a CPU, torch on a GPU, OpenVINO (``openvino_session.py``). It
says how many batches it works on at a time, and whether their rows must be of one length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import nn

from sparsedistill.errors import ConfigError
from sparsedistill.onednn import has_onednn, product

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    Tokens = npt.NDArray[np.int64]

Precision = Literal["float32", "bfloat16", "float16"]

CPU_TOKENS = 2048
"""Tokens in a batch on a CPU: more of them make nothing faster."""

# Where a feed-forward block keeps its first layer and the activation after it: BERT and its kin,
# then DistilBERT.
_FUSED = (("dense", "intermediate_act_fn"), ("lin1", "activation"))


class Session(Protocol):
    """A model that answers.

    Attributes:
        workers: Threads that may ask at a time.
        token_budget: Tokens that a batch has best; None where as many as fit are best.
        equal_lengths: Whether the rows of a batch are to be of one length.
    """

    workers: int
    token_budget: int | None
    equal_lengths: bool

    def __call__(
        self, inputs: Mapping[str, Tokens], mask: Tokens | None
    ) -> npt.NDArray[np.float32]:
        """Return the logits of a batch, float32 [rows, outputs].

        Args:
            inputs: By name, int64 [rows, tokens].
            mask: 1 where a token is the row's own, 0 where it is padding; None if all are.
        """
        ...


class CpuSession:
    """torch on a CPU: a thread a batch, float32 products by oneDNN with GELU inside.

    A batch in one thread needs no waiting at the end of each product, and gives the same bits
    whatever the number of threads. bfloat16 is of the products alone: sums and norms stay float32.

    Args:
        model: Of transformers; it is changed.
        precision: ``float32`` or ``bfloat16``.
        threads: Batches at a time.

    Raises:
        ConfigError: The precision is float16.
    """

    token_budget: int | None = CPU_TOKENS
    equal_lengths = True

    def __init__(self, model: nn.Module, *, precision: Precision, threads: int) -> None:
        if precision == "float16":
            raise ConfigError(
                'precision = "float16" is for GPUs; on a CPU take "bfloat16" or "float32"'
            )
        self.workers = threads
        self._model = model.eval()
        self._low = precision == "bfloat16"
        steady(model)
        if not self._low:
            use_onednn(model)

    def __call__(
        self, inputs: Mapping[str, Tokens], mask: Tokens | None
    ) -> npt.NDArray[np.float32]:
        """Return the logits of a batch."""
        tensors = {name: torch.from_numpy(each) for name, each in inputs.items()}
        if mask is not None:
            tensors["attention_mask"] = torch.from_numpy(mask)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self._low):
            logits: npt.NDArray[np.float32] = self._model(**tensors).logits.float().numpy()
        return logits


class GpuSession:
    """torch on a GPU: large padded batches; a second thread prepares one while another runs.

    Args:
        model: Of transformers; it is moved.
        device: As torch names it.
        precision: Of weights and products.
    """

    token_budget: int | None = None
    equal_lengths = False
    workers = 2

    def __init__(self, model: nn.Module, *, device: str, precision: Precision) -> None:
        self._device = torch.device(device)
        self._model = model.to(self._device).eval()
        for weights in model.parameters():  # but no buffers: rotations lose too much
            weights.data = weights.data.to(getattr(torch, precision))

    def __call__(
        self, inputs: Mapping[str, Tokens], mask: Tokens | None
    ) -> npt.NDArray[np.float32]:
        """Return the logits of a batch."""
        arrays = dict(inputs) if mask is None else {**inputs, "attention_mask": mask}
        tensors = {name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()}
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = self._model(**tensors).logits.float().cpu().numpy()
        return logits


def open_session(
    model: nn.Module, *, engine: str, device: str, precision: Precision, threads: int
) -> Session:
    """Return a model ready to answer.

    Args:
        model: Of transformers, on the CPU; the session's from now on.
        engine: ``torch`` or ``openvino``.
        device: As torch names it.
        precision: Of the products.
        threads: Of the CPU.

    Raises:
        ConfigError: The device has no such precision, or no such engine.
    """
    on_cpu = torch.device(device).type == "cpu"
    if engine == "openvino":
        if not on_cpu:
            raise ConfigError(f'engine = "openvino" is for CPUs, and the teacher is on {device}')
        from sparsedistill.teacher.openvino_session import OpenVinoSession

        return OpenVinoSession(model, precision=precision, threads=threads)
    if on_cpu:
        return CpuSession(model, precision=precision, threads=threads)
    return GpuSession(model, device=device, precision=precision)


class SteadyLinear(nn.Linear):
    """A linear layer that gives a row the same bits alone as among others.

    The product of one row is a product of a vector, for which the libraries have other code, and
    that rounds otherwise: a text alone in its batch would get other logits.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, [..., outputs]."""
        if values.numel() != self.in_features:
            return self.product(values)
        return self.product(values.view(1, -1).expand(2, -1))[0].view(*values.shape[:-1], -1)

    def product(self, values: torch.Tensor) -> torch.Tensor:
        """Return the layer's output of several rows."""
        return super().forward(values)


class OneDnnLinear(SteadyLinear):
    """A linear layer whose product, and the GELU after it, oneDNN computes."""

    then: Literal["none", "gelu"] = "none"

    def product(self, values: torch.Tensor) -> torch.Tensor:
        """Return the layer's output of several rows, float32."""
        return product(values, self.weight, self.bias, then=self.then)


def steady(model: nn.Module) -> None:
    """Have every linear layer of a model give a row the same bits alone as among others."""
    for module in list(model.modules()):
        if type(module) is nn.Linear:
            module.__class__ = SteadyLinear


def use_onednn(model: nn.Module) -> None:
    """Have oneDNN compute every steady linear layer of a model, where torch has it.

    The exact GELU of a feed-forward block is computed with its product.
    """
    from transformers.activations import GELUActivation

    if not has_onednn(next(model.parameters())):
        return
    for module in list(model.modules()):
        if type(module) is SteadyLinear:
            module.__class__ = OneDnnLinear
    for module in list(model.modules()):
        for layer, activation in _FUSED:
            first = getattr(module, layer, None)
            exact = isinstance(getattr(module, activation, None), GELUActivation)
            if isinstance(first, OneDnnLinear) and exact:
                first.then = "gelu"
                setattr(module, activation, nn.Identity())
