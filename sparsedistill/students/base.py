"""The interface of a student: what the training loop asks of a model, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from sparsedistill.bags import Bags


class Student(Protocol):
    """A model over bags of n-gram rows that updates itself from the gradients of its last batch."""

    def forward(self, bags: Bags, *, update: int) -> Tensor:
        """Return training logits float32 [bags, classes], with the randomness of that update."""
        ...

    def update(self, update: int, learning_rate: float) -> None:
        """Apply one optimiser step (``update`` counts from 1) after ``backward`` on the loss."""
        ...

    def predict(self, bags: Bags) -> npt.NDArray[np.float32]:
        """Return logits float32 [bags, classes] without any randomness."""
        ...

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return what a checkpoint of the model holds: views, not copies."""
        ...

    def optimiser_state(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return what, beside the weights, resuming needs: views, not copies."""
        ...

    def load(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Take over weights, and the optimiser's state where ``arrays`` has it."""
        ...
