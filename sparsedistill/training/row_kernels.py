"""The loops over table rows: pooled bags, gradients summed by row, Adam in place.

A row of a large table is a miss of every cache, so each row is read once a pass and all that is to
be done with it is done then. Every bag and every row is worked out by one thread, in one order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.jit import kernel
from sparsedistill.prefetch import prefetch
from sparsedistill.training.row_types import KEY, number, put

if TYPE_CHECKING:
    import numpy.typing as npt

# Rows summed before they are added to the total: 2,048 additions one after another would lose two
# digits, 32 of sums of 64 lose none.
_PART = 64
_LINE = 64
_LANES = 16


@kernel
def pool_rows(
    rows: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    table: npt.NDArray[Any],
    mean: bool,
    out: npt.NDArray[np.float32],
) -> None:
    """Sum the rows of each bag, or take their mean; zero for an empty bag.

    Args:
        rows: Of all bags, int32 [occurrences].
        offsets: Where these bags begin, int64 [bags + 1].
        table: float32 or bfloat16 [rows, width].
        mean: Divide by the number of rows.
        out: float32 [bags, width].
    """
    width = table.shape[1]
    size = np.int64(width * table.itemsize)
    part = np.empty(width, np.float32)
    last = offsets[-1]
    for bag in range(len(offsets) - 1):
        total = out[bag]
        total[:] = 0
        for first in range(offsets[bag], offsets[bag + 1], _PART):
            part[:] = 0
            for i in range(first, min(first + _PART, offsets[bag + 1])):
                if i + 1 < last:
                    begin = np.int64(rows[i + 1]) * size
                    for line in range(0, size, _LINE):
                        prefetch(table, begin + line)
                row = table[rows[i]]
                for k in range(width):
                    part[k] += number(row[k])
            for k in range(width):
                total[k] += part[k]
        count = offsets[bag + 1] - offsets[bag]
        if mean and count:
            scale = np.float32(1) / np.float32(count)
            for k in range(width):
                total[k] *= scale


@kernel
def sum_gradient(
    bag_of: npt.NDArray[np.int64],
    gradients: npt.NDArray[np.float32],
    factor: np.float32,
    out: npt.NDArray[np.float32],
) -> None:
    """Add up what the bags of one row hand back to it, times a factor."""
    out[:] = 0
    for j in range(len(bag_of)):
        gradient = gradients[bag_of[j]]
        for k in range(len(out)):
            out[k] += gradient[k]
    for k in range(len(out)):
        out[k] *= factor


@kernel
def gradient_norms(
    starts: npt.NDArray[np.int64],
    bag_of: npt.NDArray[np.int64],
    gradients: npt.NDArray[np.float32],
    begin: int,
    end: int,
    out: npt.NDArray[np.float64],
) -> None:
    """Squared length of the gradient of each touched row from `begin` to `end`, float64 [end]."""
    gradient = np.empty(gradients.shape[1], np.float32)
    for u in range(begin, end):
        sum_gradient(bag_of[starts[u] : starts[u + 1]], gradients, np.float32(1), gradient)
        out[u] = squared_length(gradient)


@kernel
def squared_length(values: npt.NDArray[np.float32]) -> np.float64:
    """Sum of squares, in float64."""
    # Side by side, or the processor would wait for every single addition.
    sums = np.zeros(_LANES)
    whole = len(values) - len(values) % _LANES
    for first in range(0, whole, _LANES):
        for lane in range(_LANES):
            value = np.float64(values[first + lane])
            sums[lane] += value * value
    for k in range(whole, len(values)):
        sums[0] += np.float64(values[k]) ** 2
    return np.sum(sums)


@kernel
def update_rows(
    table: npt.NDArray[Any],
    first_moment: npt.NDArray[np.float32],
    second_moment: npt.NDArray[np.float32],
    touched: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    bag_of: npt.NDArray[np.int64],
    gradients: npt.NDArray[np.float32],
    constants: npt.NDArray[np.float32],
    update: int,
    begin: int,
    end: int,
) -> None:
    """Apply one Adam step to the touched rows from `begin` to `end`.

    Args:
        table: float32 or bfloat16 [rows, width].
        first_moment: [rows, width].
        second_moment: [rows, width], or [rows] where a row has one for all of its numbers.
        touched: int32 [unique].
        starts: int64 [unique + 1].
        bag_of: int64 [occurrences].
        gradients: Of the loss by the sum of each bag's rows, [bags, width].
        constants: Step size, beta1, 1 - beta1, beta2, 1 - beta2, epsilon, what decay leaves of a
            weight, and a factor on the gradient.
        update: Its number.
        begin: First of `touched`.
        end: Behind the last.
    """
    width = table.shape[1]
    step, beta1, rest1, beta2, rest2, epsilon, kept, factor = (
        constants[0], constants[1], constants[2], constants[3], constants[4], constants[5],
        constants[6], constants[7],
    )  # fmt: skip
    gradient = np.empty(width, np.float32)
    for u in range(begin, end):
        sum_gradient(bag_of[starts[u] : starts[u + 1]], gradients, factor, gradient)
        row = touched[u]
        key = np.uint32(np.uint32(np.uint32(row) * KEY + np.uint32(update)) * KEY)
        weights, first = table[row], first_moment[row]
        if second_moment.ndim == 1:
            mean = np.float32(squared_length(gradient) / width)
            second_moment[row] = beta2 * second_moment[row] + rest2 * mean
            scale = step / (np.sqrt(second_moment[row]) + epsilon)
            for k in range(width):
                first[k] = beta1 * first[k] + rest1 * gradient[k]
                put(weights, k, kept * number(weights[k]) - scale * first[k], key)
        else:
            second = second_moment[row]
            for k in range(width):
                g = gradient[k]
                m = beta1 * first[k] + rest1 * g
                v = beta2 * second[k] + rest2 * g * g
                first[k] = m
                second[k] = v
                # Not `/`, whose check for zero keeps the loop from being done eight at a time.
                moved = np.divide(step * m, np.sqrt(v) + epsilon)
                put(weights, k, kept * number(weights[k]) - moved, key)
