"""Which rows the teacher reads together.

On a CPU a batch holds rows of one length: nothing is padded, nothing is masked, and a row's logits
are the same bits whatever other rows there are. A GPU wants large batches more than it minds some
padding: there, rows sorted by length fill a budget of tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Batches = list[npt.NDArray[np.int64]]


def stretches(sizes: Sequence[int], *, rows: int, size: int) -> list[tuple[int, int]]:
    """Cut rows as they lie into stretches, each from a first row to before a last.

    Args:
        sizes: Of every row.
        rows: In a stretch, at most.
        size: Of a stretch, at most; a row larger than that is one of its own.
    """
    found: list[tuple[int, int]] = []
    start, held = 0, 0
    for row, each in enumerate(sizes):
        if row > start and (row - start == rows or held + each > size):
            found.append((start, row))
            start, held = row, 0
        held += each
    if len(sizes):
        found.append((start, len(sizes)))
    return found


def equal_length_batches(lengths: npt.NDArray[np.int64], budget: int) -> Batches:
    """Cut the rows, longest first, into batches of one length and at most ``budget`` tokens.

    Args:
        lengths: Tokens of every row, int64 [rows].
        budget: Tokens in a batch; a row longer than that makes a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.flatnonzero(np.diff(lengths[order])) + 1
    batches: Batches = []
    for rows in np.split(order, ends):
        if len(rows):
            size = max(1, budget // max(int(lengths[rows[0]]), 1))
            batches += [rows[start : start + size] for start in range(0, len(rows), size)]
    return batches


def token_budget_batches(lengths: npt.NDArray[np.int64], budget: int) -> Batches:
    """Cut the rows, longest first, into batches of at most ``budget`` padded tokens.

    Longest first, so that a budget too large for the memory shows in the first batch. A row longer
    than the budget makes a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches: Batches = []
    start = 0
    while start < len(order):
        size = max(1, budget // max(int(lengths[order[start]]), 1))
        batches.append(order[start : start + size])
        start += size
    return batches
