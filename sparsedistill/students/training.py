"""Settings of a student's training that are not its schedule: what is dropped, decayed, kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsedistill.bag_source import FeatureDrop
from sparsedistill.training.table import TableOptions

if TYPE_CHECKING:
    from sparsedistill.training.table import Pooling, SecondMoment, TableType


@dataclass(frozen=True, slots=True)
class StudentTraining:
    """What a student drops and shrinks while it is trained, and the constants of its Adam.

    Attributes:
        feature_dropout: Share of the n-grams or tokens left out of a batch.
        dropout: Share of units dropped before each dense layer.
        weight_decay: Decoupled decay of the dense weights.
        table_decay: Decoupled decay of the rows that a batch touches.
        clip: Greatest length of the gradient, table and dense layers together; None for any.
        betas: Decay of Adam's moments.
        epsilon: Adam's.
        second_moment: Of the table: one for each number, or one for each row.
    """

    feature_dropout: float = 0.0
    dropout: float = 0.0
    weight_decay: float = 0.0
    table_decay: float = 0.0
    clip: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    second_moment: SecondMoment = "element"

    def drop(self, seed: int, update: int) -> FeatureDrop | None:
        """Return which n-grams or tokens an update of a run leaves out."""
        rate = self.feature_dropout
        return FeatureDrop(rate, seed, update) if rate else None

    def table(self, *, dtype: TableType = "float32", pooling: Pooling = "mean") -> TableOptions:
        """Return how a table of a type is kept and updated."""
        return TableOptions(
            betas=self.betas,
            epsilon=self.epsilon,
            decay=self.table_decay,
            second_moment=self.second_moment,
            dtype=dtype,
            pooling=pooling,
        )
