"""The hybrid Adam of the paper (section 2.5): a table by its rows, and dense layers as a whole.

What students hold, update, save and load alike, whatever they make of it in between.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.students.stepping import dense_adam
from sparsedistill.training.held import form, on_host, put

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from sparsedistill.students.base import Arrays
    from sparsedistill.students.training import StudentTraining
    from sparsedistill.training.grouping import GroupedBags
    from sparsedistill.training.held import Held
    from sparsedistill.training.table import EmbeddingTable

# Type and shape of every weight, by name.
Forms = dict[str, tuple[type[np.generic], tuple[int, ...]]]


class HybridAdam:
    """A table, dense layers, and Adam's moments of both.

    Args:
        table: Trained row by row.
        dense: Weights that ask for a gradient, by name; those named ``...bias`` do not decay.
        training: Decay, clipping and Adam's constants.
    """

    def __init__(
        self, table: EmbeddingTable, dense: Mapping[str, Tensor], *, training: StudentTraining
    ) -> None:
        self.table, self.dense = table, dense
        self._clip = training.clip
        self._adam = dense_adam(
            dense,
            weight_decay=training.weight_decay,
            betas=training.betas,
            epsilon=training.epsilon,
        )

    def update(
        self,
        batch: GroupedBags,
        by_pooled: Tensor,
        by_dense: Sequence[Tensor],
        *,
        update: int,
        learning_rate: float,
    ) -> None:
        """Apply one step.

        Args:
            batch: Whose rows were pooled.
            by_pooled: Gradient by what the table pooled, float32 [bags, width].
            by_dense: Gradients by the dense weights, in their order; used up.
            update: Number of this update, from 1.
            learning_rate: Of this update.
        """
        factor = self._factor(batch, by_pooled, by_dense)
        self.table.update(
            batch, by_pooled, update=update, learning_rate=learning_rate, factor=factor
        )
        for parameter, gradient in zip(self.dense.values(), by_dense, strict=True):
            parameter.grad = gradient.mul_(factor) if factor != 1 else gradient
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def weights(self) -> Arrays:
        """Return the table and the dense layers, as views where they are in memory."""
        return {name: on_host(held) for name, held in self._weights().items()}

    def optimiser_state(self) -> Arrays:
        """Return Adam's moments, as views where they are in memory."""
        return {name: on_host(held) for name, held in self._state().items()}

    def changed(self) -> dict[str, npt.NDArray[np.int32]]:
        """Return when each row of the table and of its moments last changed."""
        names = ("table", "table.first_moment", "table.second_moment")
        return dict.fromkeys(names, self.table.changed)

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over weights, and the moments where ``arrays`` has them.

        Raises:
            DataError: A weight is missing, or an array has another shape or type; then nothing has
                changed.
        """
        own = {**self._weights(), **self._state()}
        for name in self._weights():
            if name not in arrays:
                raise DataError(f"the student's weights lack {name}")
        for name, value in arrays.items():
            expected = form(own[name]) if name in own else "nothing of that name"
            if form(value) != expected:
                raise DataError(f"checkpoint: {name} is {form(value)}, expected {expected}")
        for name, value in arrays.items():
            put(own[name], value)

    def _weights(self) -> dict[str, Held]:
        return {"table": self.table.weights, **self.dense}

    def _state(self) -> dict[str, Held]:
        return {
            "table.first_moment": self.table.first_moment,
            "table.second_moment": self.table.second_moment,
            **{
                f"{name}.{part}": value
                for name, parameter in self.dense.items()
                for part, value in self._adam.state[parameter].items()
            },
        }

    def _factor(self, batch: GroupedBags, by_pooled: Tensor, by_dense: Sequence[Tensor]) -> float:
        """Return what the gradients are multiplied with to be no longer than they may be."""
        if self._clip is None:
            return 1.0
        squares = [float(one.double().square().sum()) for one in by_dense]
        length = math.sqrt(math.fsum([self.table.norm_squared(batch, by_pooled), *squares]))
        return min(1.0, self._clip / length) if length else 1.0


class HybridStudent:
    """The part of a ``Student`` that is its Adam's: what is saved and loaded."""

    _adam: HybridAdam

    def weights(self) -> Arrays:
        """Return the table and the dense layers, as views where they are in memory."""
        return self._adam.weights()

    def optimiser_state(self) -> Arrays:
        """Return Adam's moments, as views where they are in memory."""
        return self._adam.optimiser_state()

    def changed(self) -> dict[str, npt.NDArray[np.int32]]:
        """Return when each row of the table and of its moments last changed."""
        return self._adam.changed()

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over weights, and the moments where ``arrays`` has them.

        Raises:
            DataError: A weight is missing, or an array has another shape or type.
        """
        self._adam.load(arrays)


def check_weights(arrays: Mapping[str, npt.NDArray[Any]], expected: Forms) -> None:
    """See that all weights of a student are there, and are of their type and shape.

    Raises:
        DataError: One is not.
    """
    for name, (dtype, shape) in expected.items():
        if name not in arrays:
            raise DataError(f"the student's weights lack {name}")
        if arrays[name].shape != shape or arrays[name].dtype != dtype:
            wanted = f"{np.dtype(dtype).name} {list(shape)}"
            raise DataError(f"{name} is {form(arrays[name])}, expected {wanted}")
