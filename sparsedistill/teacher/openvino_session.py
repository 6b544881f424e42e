"""OpenVINO in place of torch on a CPU: in bfloat16 much faster, in float32 about the same.

It compiles the model's graph, which torch traces; nothing is written to disk.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparsedistill.errors import ConfigError, TeacherError
from sparsedistill.teacher.quiet import quiet_transformers
from sparsedistill.teacher.session import CPU_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from sparsedistill.teacher.session import Precision, Tokens

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# How far logits may be from those of torch in float32.
_NEAR = {"float32": 1e-3, "bfloat16": 0.1}


class OpenVinoSession:
    """A model compiled by OpenVINO, a stream a thread.

    Args:
        model: Of transformers, on the CPU.
        precision: ``float32`` or ``bfloat16``.
        threads: Batches at a time.

    Raises:
        ConfigError: OpenVINO is not installed, or the precision is float16.
        TeacherError: OpenVINO cannot convert this model.
    """

    token_budget: int | None = CPU_TOKENS
    equal_lengths = True

    def __init__(self, model: torch.nn.Module, *, precision: Precision, threads: int) -> None:
        if precision not in _HINTS:
            raise ConfigError(f'engine = "openvino" has float32 and bfloat16, not {precision}')
        openvino = _openvino()
        self.workers = threads
        accepted = inspect.signature(model.forward).parameters
        self._names = [
            name for name in ("input_ids", "attention_mask", "token_type_ids") if name in accepted
        ]
        example = tuple(torch.ones(2, 9, dtype=torch.int64) for _ in self._names)
        self._requests = threading.local()
        try:
            with quiet_transformers(), warnings.catch_warnings(), _root_logger_kept():
                warnings.simplefilter("ignore")  # of tracing: sizes that look like constants
                graph = openvino.convert_model(
                    _Logits(model.eval(), self._names), example_input=example
                )
            self._compiled = openvino.Core().compile_model(
                graph,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": _HINTS[precision],
                    "PERFORMANCE_HINT": "THROUGHPUT",
                    "NUM_STREAMS": threads,
                    "INFERENCE_NUM_THREADS": threads,
                },
            )
            self._check(model, least=_NEAR[precision])
        except Exception as error:  # of many kinds, most of them RuntimeError
            reason = " ".join(str(error).split())[:200]
            raise TeacherError(
                f'OpenVINO cannot compile this teacher ({reason}); set [logits] engine = "torch"'
            ) from error

    def _check(self, model: torch.nn.Module, *, least: float) -> None:
        """See that the graph knows other lengths than it was traced with, and says what torch says.

        Raises:
            ValueError: It does not.
        """
        for length in (5, 14):
            ids = np.arange(2 * length).reshape(2, length) % 7
            mask = torch.ones(2, length, dtype=torch.int64)
            with torch.inference_mode():
                says = model(input_ids=torch.from_numpy(ids), attention_mask=mask).logits.numpy()
            if np.abs(self({"input_ids": ids}, None) - says).max() > least * (
                1 + np.abs(says).max()
            ):
                raise ValueError("its logits are not those of torch")

    def __call__(
        self, inputs: Mapping[str, Tokens], mask: Tokens | None
    ) -> npt.NDArray[np.float32]:
        """Return the logits of a batch."""
        ids = inputs["input_ids"]
        known = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids) if mask is None else mask,
            "token_type_ids": inputs.get("token_type_ids", np.zeros_like(ids)),
        }
        if not hasattr(self._requests, "mine"):
            self._requests.mine = self._compiled.create_infer_request()
        request: Any = self._requests.mine
        request.infer([known[name] for name in self._names])
        logits: npt.NDArray[np.float32] = request.get_output_tensor(0).data.astype(np.float32)
        return logits


class _Logits(torch.nn.Module):
    """The model with inputs by position and one output: a traced graph knows no other."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what OpenVINO's converter does to the root logger: after it, no warning was seen."""
    root = logging.getLogger()
    before = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(before[0])
        root.filters[:], root.handlers[:] = before[1:]


def _openvino() -> Any:  # noqa: ANN401
    """Import OpenVINO without the package by which it reports each import to its makers.

    It does so unasked, unless the user has opted out; it works as well without that package.
    """
    reporter = "openvino_telemetry"
    there = sys.modules.get(reporter)
    sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(
            'engine = "openvino" needs the package: pip install "sparsedistill[openvino]"'
        ) from error
    finally:
        if there is None:
            del sys.modules[reporter]
        else:
            sys.modules[reporter] = there
    return openvino
