"""The whole model in one loop: bytes of text to logits.

For each text: tokens and their hashes, rows of the known n-grams, the sum of those rows of the
table, mean, activation, head. What a text needs on the way stays in the first-level cache; nothing
is written but its logits. `folded.FoldedModel` says in plain NumPy what is computed.

The table is read in the type it has on disk, so that no more bytes move than must: float32, float16
(as its bits, since the compiler knows no such type), or int8 with a scale per row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sparsedistill.jit import kernel
from sparsedistill.ngram_index import STRIDE, look_up_text
from sparsedistill.prefetch import prefetch
from sparsedistill.table_types import step, value
from sparsedistill.text.kernels import Rules, make_scratch, tokenise

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows summed side by side: each partial sum is loaded and stored once for so many.
_SIDE = 8
# Rows summed before they are added to the total: 2,048 additions one after another would lose two
# digits, 8 of sums of 8 by pairs lose none.
_PART = 64
_LANES = 8
# Rows that are asked for before they are needed, and bytes in a line of the cache.
_AHEAD, _LINE = 16, 64


@kernel
def run(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rules: Rules,
    limits: tuple[int, int, int],
    slots: NDArray[np.uint64],
    low: np.uint64,
    table: NDArray[Any],
    scale: NDArray[np.float32],
    projection: NDArray[np.float32],
    layers: NDArray[np.float32],
    squash: bool,
    logits: NDArray[np.float32],
    counts: NDArray[np.int64],
) -> bool:
    """Fill in the logits of texts.

    Args:
        data: Text bytes.
        offsets: int64[texts + 1].
        rules: The tokeniser.
        limits: Shortest and longest n-gram, and how many known ones count.
        slots: Of the index, and
        low: its `row_bits`.
        table: float32, int8 or (float16 as) uint16 [rows, width].
        scale: float32[rows] for int8; not looked at for the others.
        projection: float32[width, hidden]; [0, 0] where the table is as wide as the hidden layer.
        layers: float32, end to end: hidden bias, head weight by class, head bias.
        squash: Whether the activation is tanh, not ReLU.
        logits: float32[texts, classes], filled in.
        counts: int64[texts, 2], filled in: known n-grams, and all that were looked up.

    Returns:
        Whether all logits are finite.
    """
    texts = len(offsets) - 1
    scratch = make_scratch(offsets, 0, texts)
    longest = len(scratch.hashes)
    ngrams = np.empty(STRIDE * limits[1], np.uint64)
    rows = np.empty(min(limits[2], longest * (limits[1] - limits[0] + 1)), np.int32)
    network = table, scale, projection, layers, squash
    room = make_room(table, projection)
    finite = True
    for text in range(texts):
        tokens = tokenise(data, offsets[text], offsets[text + 1], rules, scratch)
        n, read = look_up_text(
            scratch.hashes, (0, tokens), (limits[0], limits[1]), (slots, low), limits[2],
            ngrams, rows,
        )  # fmt: skip
        counts[text, 0] = n
        counts[text, 1] = 0
        for order in range(limits[0], limits[1] + 1):
            counts[text, 1] += max(0, min(read, tokens - order + 1))
        finite &= answer(rows, n, network, room, logits[text])
    return finite


@kernel
def run_bags(
    rows: NDArray[np.int32],
    offsets: NDArray[np.int64],
    table: NDArray[Any],
    scale: NDArray[np.float32],
    projection: NDArray[np.float32],
    layers: NDArray[np.float32],
    squash: bool,
    logits: NDArray[np.float32],
) -> bool:
    """As `run`, from bags of rows on."""
    network = table, scale, projection, layers, squash
    room = make_room(table, projection)
    finite = True
    for bag in range(len(offsets) - 1):
        known = rows[offsets[bag] : offsets[bag + 1]]
        finite &= answer(known, len(known), network, room, logits[bag])
    return finite


class Room(NamedTuple):
    """What one text after another is worked out in.

    Attributes:
        total: float32[width], the sum of its rows.
        part: float32[width], the sum of some of them.
        hidden: float32[hidden].
        sums: float64, side by side.
    """

    total: NDArray[np.float32]
    part: NDArray[np.float32]
    hidden: NDArray[np.float32]
    sums: NDArray[np.float64]


@kernel
def make_room(table: NDArray[Any], projection: NDArray[np.float32]) -> Room:
    """Room for a text."""
    width = table.shape[1]
    return Room(
        np.empty(width, np.float32),
        np.empty(width, np.float32),
        np.empty(projection.shape[1] if len(projection) else width, np.float32),
        np.empty(_LANES, np.float64),
    )


@kernel
def answer(
    rows: NDArray[np.int32],
    n: int,
    network: tuple[
        NDArray[Any], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], bool
    ],
    room: Room,
    logits: NDArray[np.float32],
) -> bool:
    """From the first `n` of some rows to the logits of a text; returns whether all are finite."""
    table, scale, projection, layers, squash = network
    add_rows(rows, n, table, scale, room.part, room.total)
    project(room.total, n, projection, room.hidden)
    finish(room.hidden, layers, squash, room.sums, logits)
    finite = True
    for c in range(len(logits)):
        finite &= np.isfinite(logits[c])
    return finite


@kernel
def add_rows(
    rows: NDArray[np.int32],
    n: int | np.int64,
    table: NDArray[Any],
    scale: NDArray[np.float32],
    part: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Sum the first `n` of some rows of the table."""
    width = table.shape[1]
    out[:] = 0
    for i in range(min(n, _AHEAD)):
        ask_for_row(table, scale, rows[i])
    for first in range(0, n, _PART):
        last = min(first + _PART, n)
        side = first + (last - first) // _SIDE * _SIDE
        part[:] = 0
        for i in range(first, side, _SIDE):
            for next_row in range(min(i + _AHEAD, n), min(i + _AHEAD + _SIDE, n)):
                ask_for_row(table, scale, rows[next_row])
            r0, r1, r2, r3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
            r4, r5, r6, r7 = rows[i + 4], rows[i + 5], rows[i + 6], rows[i + 7]
            t0, t1, t2, t3 = table[r0], table[r1], table[r2], table[r3]
            t4, t5, t6, t7 = table[r4], table[r5], table[r6], table[r7]
            s0, s1 = step(table, scale, r0), step(table, scale, r1)
            s2, s3 = step(table, scale, r2), step(table, scale, r3)
            s4, s5 = step(table, scale, r4), step(table, scale, r5)
            s6, s7 = step(table, scale, r6), step(table, scale, r7)
            for j in range(width):
                part[j] += (
                    (value(t0[j], s0) + value(t1[j], s1)) + (value(t2[j], s2) + value(t3[j], s3))
                ) + ((value(t4[j], s4) + value(t5[j], s5)) + (value(t6[j], s6) + value(t7[j], s7)))
        for i in range(side, last):
            t0, s0 = table[rows[i]], step(table, scale, rows[i])
            for j in range(width):
                part[j] += value(t0[j], s0)
        for j in range(width):
            out[j] += part[j]


@kernel
def ask_for_row(table: NDArray[Any], scale: NDArray[np.float32], row: int) -> None:
    """Have a row of the table, and its scale, fetched."""
    size = np.int64(table.shape[1] * table.itemsize)
    begin = np.int64(row) * size
    for offset in range(begin, begin + size, _LINE):
        prefetch(table, offset)
    prefetch(table, begin + size - 1)
    prefetch(scale, np.int64(min(row, len(scale) - 1)) * scale.itemsize)


@kernel
def project(
    total: NDArray[np.float32],
    n: int | np.int64,
    projection: NDArray[np.float32],
    hidden: NDArray[np.float32],
) -> None:
    """From the sum of `n` rows to their mean, as wide as the hidden layer."""
    share = np.float32(1) / np.float32(max(n, 1))
    if len(projection) == 0:
        for j in range(len(hidden)):
            hidden[j] = total[j] * share
        return
    hidden[:] = 0
    for k in range(len(total)):
        mean = total[k] * share
        column = projection[k]
        for j in range(len(hidden)):
            hidden[j] += mean * column[j]


@kernel
def finish(
    hidden: NDArray[np.float32],
    layers: NDArray[np.float32],
    squash: bool,
    sums: NDArray[np.float64],
    logits: NDArray[np.float32],
) -> None:
    """From the mean of a text's rows to its logits.

    Eight sums side by side, so that additions need not wait for one another.
    """
    width, classes = len(hidden), len(logits)
    for j in range(width):
        hidden[j] += layers[j]
    if squash:
        for j in range(width):
            hidden[j] = np.tanh(hidden[j])
    else:
        for j in range(width):
            hidden[j] = max(hidden[j], np.float32(0))
    whole = width - width % _LANES
    for c in range(classes):
        weight = layers[width * (c + 1) : width * (c + 2)]
        sums[:] = 0
        for j in range(0, whole, _LANES):
            for lane in range(_LANES):
                sums[lane] += np.float64(hidden[j + lane]) * weight[j + lane]
        total = np.float64(layers[width * (classes + 1) + c]) + sums.sum()
        for j in range(whole, width):
            total += np.float64(hidden[j]) * weight[j]
        logits[c] = total
