"""What a student is to say of each example: the teacher's logits, labels, or both.

Plain arrays, which may be mapped from files: nothing here copies more than the rows asked for or
one block of them. An objective (``sparsedistill.objectives``) says what it makes of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

# Rows looked at together, so that a check needs no more memory than they do.
_BLOCK = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Logits and labels of the same rows; at least one of the two is there.

    Attributes:
        logits: The teacher's, floating [rows, classes].
        labels: Integers [rows], or 0 and 1 in [rows, classes] where a row may have several labels;
            -1 (in every class) for a row without any.

    Raises:
        DataError: Neither is given, or they differ in rows or classes, or have another form.
    """

    logits: npt.NDArray[Any] | None = None
    labels: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        logits, labels = self.logits, self.labels
        if logits is None and labels is None:
            raise DataError("targets need logits, labels or both")
        if logits is not None and (logits.ndim != 2 or logits.dtype.kind != "f"):
            raise DataError(f"target logits must be floats [rows, classes], not {_form_of(logits)}")
        if labels is not None and (labels.ndim not in {1, 2} or labels.dtype.kind not in "iu"):
            raise DataError(
                "target labels must be integers [rows], or 0 and 1 in [rows, classes], "
                f"not {_form_of(labels)}"
            )
        if logits is None or labels is None:
            return
        if len(logits) != len(labels):
            raise DataError(f"logits of {len(logits)} rows but labels of {len(labels)}")
        if labels.ndim == 2 and labels.shape != logits.shape:
            raise DataError(f"logits of {logits.shape[1]} classes but labels of {labels.shape[1]}")

    def __len__(self) -> int:
        # One of the two is there: the constructor saw to it.
        return len(self.logits if self.logits is not None else self.labels)  # type: ignore[arg-type]

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Targets:
        """Return the targets of those rows, in the order asked for, copied."""
        return Targets(
            logits=None if self.logits is None else self.logits[rows],
            labels=None if self.labels is None else self.labels[rows],
        )

    def check_finite(self) -> None:
        """See that every logit is a finite number.

        Raises:
            DataError: One is not; the message names the first such row.
        """
        if self.logits is None:
            return
        for start in range(0, len(self.logits), _BLOCK):
            finite = np.isfinite(self.logits[start : start + _BLOCK]).all(axis=1)
            if not finite.all():
                row = start + int(np.argmin(finite))
                raise DataError(f"the targets of row {row} are not finite: {self.logits[row]}")


def _form_of(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
