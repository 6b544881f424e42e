"""The Deep Averaging Network over n-grams: pooled embeddings, hidden layers, a head.

``W2 act(W1 mean(E[g]) + b1) + b2`` (paper, section 2.3, after Iyyer et al., 2015). The table ``E``
is updated row by row (``training.table``); the small dense layers are torch's. A batch goes through
those in slices of fixed size, each by one thread, so that the result does not depend on how many
threads there are.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparsedistill.parallel import map_ranges
from sparsedistill.students.dropout import UnitDropout
from sparsedistill.students.hybrid import HybridAdam, HybridStudent, check_weights
from sparsedistill.students.linear import linear
from sparsedistill.students.pooling import (
    Pool,
    SpreadBags,
    attention_weights,
    group_for,
    is_spread,
    of_table,
    spread,
)
from sparsedistill.students.stepping import check_loss, device_named
from sparsedistill.students.training import StudentTraining
from sparsedistill.torch_threads import one_torch_thread
from sparsedistill.training.order import update_generator
from sparsedistill.training.table import TableOptions, start_at_random
from sparsedistill.training.torch_table import table_on

if TYPE_CHECKING:
    from collections.abc import Mapping, Sized

    import numpy.typing as npt
    from torch import Tensor

    from sparsedistill.bag_source import BagSource
    from sparsedistill.folded import Activation
    from sparsedistill.objectives import Objective
    from sparsedistill.students.base import Arrays
    from sparsedistill.students.pooling import Pooling
    from sparsedistill.targets import Targets
    from sparsedistill.training.grouping import GroupedBags
    from sparsedistill.training.table import MakeTable, TableType

_DENSE = 4
_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}
# Texts, and where every one of their n-grams is looked up by itself.
_PREDICT_ROWS, _PREDICT_SPREAD = 8192, 512
_SLICE = 256


@dataclass(frozen=True, slots=True)
class DANShape:
    """Sizes of a DAN, and how it starts.

    Attributes:
        rows: Rows of the table: the size of the vocabulary.
        width: Width of the embeddings (d_e).
        hidden: Width of the hidden layers (d_h).
        classes: Number of labels.
        activation: After a hidden layer; the paper says ReLU, its released code uses tanh.
        init_scale: Standard deviation of the table's normal start.
        layers: Hidden layers.
        pooling: Of the embeddings of a text; ``max`` and ``attentive`` are for comparisons, see
            ``students.pooling``.
        table_type: Of the numbers in the table.
    """

    rows: int
    width: int
    hidden: int
    classes: int
    activation: Activation
    init_scale: float
    layers: int = 1
    pooling: Pooling = "mean"
    table_type: TableType = "float32"

    def to_json(self) -> dict[str, int | float | str]:
        """Return the fields as plain JSON."""
        return asdict(self)

    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Return outputs and inputs of each linear layer, by name, in order."""
        sizes = {"hidden": (self.hidden, self.width)}
        for number in range(2, self.layers + 1):
            sizes[f"hidden_{number}"] = (self.hidden, self.hidden)
        return {**sizes, "head": (self.classes, self.hidden)}

    def weights(self) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
        """Return type and shape of every weight, by name."""
        found: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            "table": (TableOptions(dtype=self.table_type).stored, (self.rows, self.width))
        }
        for name, (outputs, inputs) in self.linear_layers().items():
            found[f"{name}_weight"] = (np.float32, (outputs, inputs))
            found[f"{name}_bias"] = (np.float32, (outputs,))
        for name, sizes in attention_weights(self.pooling, self.width).items():
            found[name] = (np.float32, sizes)
        return found


class DAN(HybridStudent):
    """A Deep Averaging Network and its hybrid Adam; a ``Student``.

    Args:
        shape: Sizes and start.
        training: Dropout, decay and Adam's constants; only training looks at them.
        seed: Of the start and of every update's dropout.
        threads: Threads of the kernels and of the dense layers; results do not depend on it.
        weights: To start from instead of at random. A table in memory is taken over as it is, so
            that one mapped from a file need not fit into memory; writable if it is to be trained.
        device: Where the table and the dense layers are, as torch names it. From any other than
            the processor, ``weights`` and ``optimiser_state`` are copies.
        table: Makes the table, where another is wanted than the device's own.

    Raises:
        ConfigError: There is no such device.
        DataError: A weight is missing or has another shape or type.
    """

    def __init__(
        self,
        shape: DANShape,
        *,
        training: StudentTraining | None = None,
        seed: int = 0,
        threads: int = 1,
        weights: Mapping[str, npt.NDArray[Any]] | None = None,
        device: str = "cpu",
        table: MakeTable | None = None,
    ) -> None:
        self.shape = shape
        self.training = training or StudentTraining()
        self._seed, self._threads = seed, threads
        self._device = device_named(device)
        if weights is not None:
            check_weights(weights, shape.weights())
        self.table = (table or table_on(self._device, threads=threads))(
            shape.rows,
            shape.width,
            self.training.table(dtype=shape.table_type, pooling=of_table(shape.pooling)),
            weights=None if weights is None else weights["table"],
        )
        if weights is None:
            start_at_random(self.table, shape.init_scale, seed, threads=threads)
        start = _start(shape, seed) if weights is None else weights
        self.dense: dict[str, Tensor] = {
            name: torch.tensor(start[name], device=self._device, requires_grad=True)
            for name in shape.weights()
            if name != "table"
        }
        self._adam = HybridAdam(self.table, self.dense, training=self.training)

    def prepare(
        self, inputs: BagSource, rows: npt.NDArray[np.int64], *, update: int
    ) -> GroupedBags:
        """Return some bags without the features that this update drops, grouped by row."""
        drop = self.training.drop(self._seed, update)
        return group_for(self.shape.pooling, inputs.take(rows, drop))

    def step(
        self,
        batch: GroupedBags,
        targets: Targets,
        objective: Objective,
        *,
        update: int,
        learning_rate: float,
    ) -> float:
        """Apply one hybrid Adam step, as ``Student`` has it."""
        with one_torch_thread():
            loss, pooled_gradient, dense_gradients = self._gradients(
                batch, targets, objective, update
            )
            check_loss(loss, update)
            self._adam.update(
                batch,
                pooled_gradient,
                dense_gradients,
                update=update,
                learning_rate=learning_rate,
            )
        return loss

    def predict(self, inputs: BagSource) -> npt.NDArray[np.float32]:
        """Return logits, float32 [bags, classes]."""
        out = np.empty((len(inputs), self.shape.classes), np.float32)
        with torch.no_grad(), one_torch_thread():
            one_by_one = is_spread(self.shape.pooling)
            size = _PREDICT_SPREAD if one_by_one else _PREDICT_ROWS
            for start in range(0, len(inputs), size):
                stop = min(start + size, len(inputs))
                bags = inputs.take(np.arange(start, stop))
                pool = self._pool(bags.offsets if one_by_one else None)
                found = self.table.pool(spread(bags) if one_by_one else bags)
                self._predict_block(found, pool, out[start:stop])
        return out

    def _gradients(
        self, batch: GroupedBags, targets: Targets, objective: Objective, update: int
    ) -> tuple[float, Tensor, list[Tensor]]:
        """Return the mean loss, and its gradients by what the table gave and the dense layers."""
        found = self.table.pool(batch.bags)
        by_found = torch.empty_like(found)
        pool = self._pool(batch.texts if isinstance(batch, SpreadBags) else None)
        dropout = UnitDropout(self.training.dropout, self._seed, update)
        parameters = list(self.dense.values())

        def work(first: int, last: int) -> tuple[float, tuple[Tensor, ...]]:
            part = pool.part(first, last)
            values = found[part].requires_grad_()
            logits = self._network(pool(values, first, last), dropout, first)
            losses = objective(logits, targets.take(np.arange(first, last)))
            loss = losses.sum() / len(batch)
            gradient, *dense = torch.autograd.grad(loss, [values, *parameters])
            by_found[part] = gradient
            return loss.item(), tuple(dense)

        parts = map_ranges(work, len(batch), block=self._slice(batch), threads=self._threads)
        loss, total = math.fsum(part for part, _ in parts), list(parts[0][1])
        for _, dense in parts[1:]:
            for one, more in zip(total, dense, strict=True):
                one += more
        return loss, by_found, total

    def _pool(self, texts: npt.NDArray[np.int64] | None) -> Pool:
        return Pool(self.shape.pooling, self.dense, texts)

    def _predict_block(self, found: Tensor, pool: Pool, out: npt.NDArray[np.float32]) -> None:
        none = UnitDropout(0.0, 0, 0)

        def work(first: int, last: int) -> None:
            with torch.no_grad():
                pooled = pool(found[pool.part(first, last)], first, last)
                out[first:last] = self._network(pooled, none, first).numpy(force=True)

        map_ranges(work, len(out), block=self._slice(out), threads=self._threads)

    def _slice(self, batch: Sized) -> int:
        """Return how many rows one thread works on; a device shares them out itself."""
        return _SLICE if self._device.type == "cpu" else len(batch)

    def _network(self, values: Tensor, dropout: UnitDropout, first: int) -> Tensor:
        """Return logits [rows, classes] of pooled rows, of which the first has this number."""
        activation = _ACTIVATIONS[self.shape.activation]
        *hidden, head = self.shape.linear_layers()
        for layer, name in enumerate(hidden):
            values = dropout(values, layer=layer, first=first)
            values = activation(
                linear(values, self.dense[f"{name}_weight"], self.dense[f"{name}_bias"])
            )
        values = dropout(values, layer=len(hidden), first=first)
        return linear(values, self.dense[f"{head}_weight"], self.dense[f"{head}_bias"])


def _start(shape: DANShape, seed: int) -> Arrays:
    """Return the dense weights of a student that has learnt nothing yet."""
    generator = update_generator(seed, 0, _DENSE)
    found: Arrays = {}
    for name, (outputs, inputs) in shape.linear_layers().items():
        found[f"{name}_weight"] = _uniform(generator, outputs, inputs)
        found[f"{name}_bias"] = np.zeros(outputs, np.float32)
    for name, (outputs, inputs) in attention_weights(shape.pooling, shape.width).items():
        found[name] = _uniform(generator, outputs, inputs)
    return found


def _uniform(generator: np.random.Generator, outputs: int, inputs: int) -> npt.NDArray[np.float32]:
    """Return a weight [outputs, inputs] that starts as torch's Linear: U(-1, 1) / sqrt(inputs)."""
    bound = inputs**-0.5
    return generator.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
