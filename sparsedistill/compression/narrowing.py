"""Narrowing: a table of fewer columns, and a small matrix that each text is multiplied with.

The mean of a text's rows is linear, so a table may be written as ``A B`` with ``A`` [rows, width]
stored and ``B`` [width, hidden] applied once a text, after the mean. With ``B`` the first of the
table's principal directions this is exact at full width and loses least below it; rows count as
much as they are used. What a text needs from the table shrinks with its width: students with a
handful of classes measure the same at 16 columns as at 128.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt

    from sparsedistill.folded import FoldedModel

_BLOCK_ROWS = 8192
_NARROWEST = 4


@dataclass(frozen=True, slots=True)
class Basis:
    """Principal directions of a table's rows.

    Attributes:
        directions: float32[hidden, hidden], orthonormal columns, the most important first.
        energy: float64[hidden], share of the squared use-weighted rows along each.
    """

    directions: npt.NDArray[np.float32]
    energy: npt.NDArray[np.float64]

    @classmethod
    def of(cls, model: FoldedModel, use: npt.NDArray[np.float64]) -> Basis:
        """Find the directions of a model's rows, each row weighted by its use, float64[rows]."""
        squares = np.zeros((model.hidden, model.hidden))
        for start in range(0, len(use), _BLOCK_ROWS):
            block = np.arange(start, min(start + _BLOCK_ROWS, len(use)))
            rows = model.rows(block).astype(np.float64)
            squares += (rows * use[block][:, None]).T @ rows
        energy, directions = np.linalg.eigh(squares)
        # Ascending as they come; and a sign of their own, so that they are the same anywhere.
        directions = directions[:, ::-1]
        largest = np.abs(directions).argmax(axis=0)
        directions = directions * np.sign(directions[largest, np.arange(len(largest))])
        total = max(energy.clip(min=0).sum(), np.finfo(np.float64).tiny)
        return cls(directions.astype(np.float32), energy[::-1].clip(min=0) / total)

    def narrowed(self, model: FoldedModel, width: int) -> FoldedModel:
        """Return the model with a float32 table of so many columns and a projection.

        Args:
            model: Whose basis this is, or some of its rows.
            width: Columns; those of the model's own table give the model itself.

        Raises:
            ConfigError: The width is not between 1 and that of the model's table.
        """
        if not 1 <= width <= model.width:
            raise ConfigError(f"a table of {model.width} columns cannot be made {width} wide")
        if width == model.width:
            return model
        directions = self.directions[:, :width]
        table = np.empty((len(model.table), width), np.float32)
        for start in range(0, len(table), _BLOCK_ROWS):
            block = np.arange(start, min(start + _BLOCK_ROWS, len(table)))
            table[block] = model.rows(block) @ directions
        return replace(model, table=table, scale=None, projection=directions.T)


def widths(model: FoldedModel) -> list[int]:
    """Return the widths worth trying: the model's own and the powers of two below it."""
    powers = [1 << bit for bit in range(16) if _NARROWEST <= 1 << bit < model.width]
    return [*powers, model.width]
