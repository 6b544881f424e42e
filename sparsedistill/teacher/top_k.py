"""Logits of many classes in little room: the best few of a row, and how much all others weigh.

Spread evenly over the others, that weight gives back a row whose softmax has the same probability
at each of the best classes, and the same sum over the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


def keep_top(logits: Floats, k: int) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
    """Return the best classes of every row, their logits, and the rest's weight.

    Args:
        logits: float32 [rows, classes].
        k: How many are kept, less than there are classes.

    Returns:
        Classes int32 [rows, k], best first, the lower number first among equals; their logits
        float32 [rows, k]; the logarithm of the sum of the others' exponentials, float32 [rows].
    """
    order = np.argsort(-logits, axis=1, kind="stable")
    ordered = np.take_along_axis(logits, order, axis=1)
    others = ordered[:, k:]
    largest = others[:, :1]
    rest = largest[:, 0] + np.log(np.exp(others - largest).sum(axis=1))
    return order[:, :k].astype(np.int32), ordered[:, :k], rest


def spread_rest(
    classes: npt.NDArray[np.int32], best: Floats, rest: Floats, *, count: int
) -> Floats:
    """Return logits of all classes, float32 [rows, count]: the best as kept, the others alike.

    Args:
        classes: int32 [rows, k].
        best: Their logits, float32 [rows, k].
        rest: As ``keep_top`` returns it, float32 [rows].
        count: Of all classes.
    """
    each = rest - np.float32(np.log(count - classes.shape[1]))
    out = np.repeat(each[:, None], count, axis=1).astype(np.float32)
    np.put_along_axis(out, classes.astype(np.int64), best, axis=1)
    return out
