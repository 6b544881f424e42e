"""The interface of a student: what the training loop asks of a model, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from sparsedistill.objectives import Objective
    from sparsedistill.targets import Targets

Arrays = dict[str, "npt.NDArray[Any]"]

InputsT = TypeVar("InputsT", contravariant=True)
BatchT = TypeVar("BatchT")


class Student(Protocol[InputsT, BatchT]):
    """A model that reads some form of a text and updates itself from batches.

    Everything random is a function of its seed and the update's number, so that a run that goes on
    from a checkpoint ends in the same bits as one that was never stopped.
    """

    def prepare(self, inputs: InputsT, rows: npt.NDArray[np.int64], *, update: int) -> BatchT:
        """Return some examples ready for one update; called ahead of it, from another thread."""
        ...

    def step(
        self,
        batch: BatchT,
        targets: Targets,
        objective: Objective,
        *,
        update: int,
        learning_rate: float,
    ) -> float:
        """Apply one optimiser step (``update`` counts from 1).

        Returns:
            The batch's mean loss before the step.

        Raises:
            DataError: The loss is not finite; then nothing has changed.
        """
        ...

    def predict(self, inputs: InputsT) -> npt.NDArray[np.float32]:
        """Return logits float32 [texts, classes] without any randomness."""
        ...

    def weights(self) -> Arrays:
        """Return what a checkpoint of the model holds: views, not copies."""
        ...

    def optimiser_state(self) -> Arrays:
        """Return what, beside the weights, resuming needs: views, not copies."""
        ...

    def changed(self) -> Mapping[str, npt.NDArray[np.int32]]:
        """Return when the rows of an array last changed, for those that change row by row.

        By the name of an array of the weights or the optimiser's state: for each of its rows the
        update that last changed it, 0 where none has yet. A checkpoint then holds only those.
        """
        ...

    def load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take over weights, and the optimiser's state where ``arrays`` has it."""
        ...
