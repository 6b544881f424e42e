"""Where the time of an update of ours goes, beside what memory and processor would need for it.

Bytes are counted: what an update cannot do without moving, each row of the table once. The floor
is the time they take at the rate that is measured on the same arrays, or that products take at the
measured rate. `again` is a stricter floor for the two parts that come back to a row as often as it
occurs: the same rows in the same order, read or changed as words, nothing else. A cache has most of
them by then, so it is no matter of memory alone.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from roofline import as_words
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from training_contestants import Contest, Ours, batches, mapped

from sparsedistill.jit import kernel
from sparsedistill.prefetch import prefetch
from sparsedistill.students.linear import linear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from sparsedistill.training.grouping import GroupedBags
    from sparsedistill.training.table import CpuTable

    Row = dict[str, Any]

_LINE = 64
# Rows of a slice that one thread multiplies, and pieces of other work a thread.
_SLICE, _PIECES = 256, 8
_PASSES = 7


def measure_parts(contest: Contest) -> Row:
    """Return seconds of each part of an update, its least traffic, and the machine's rates."""
    torch.set_num_threads(1)
    ours = Ours(contest, None)
    count = contest.warm_up + contest.updates
    seconds: dict[str, list[float]] = {}
    touched, occurrences = [], []
    made = batches(contest, ours, mapped(contest), count)
    with _timed_table(ours.student.table, seconds), _timed_adam(seconds):
        for _ in range(count):
            with _timing(seconds, "read, group"):
                update, batch, targets = next(made)
            touched.append(len(batch.touched))
            occurrences.append(len(batch.bag_of))
            with _timing(seconds, "step"):
                ours.step(batch, targets, update)
    took = {name: statistics.median(each[contest.warm_up :]) for name, each in seconds.items()}
    rows = statistics.fmean(touched)
    rates = measure_rates(ours.student.table, batch, contest)
    parts = _parts(took, rows, statistics.fmean(occurrences), rates, contest)
    return {"parts": parts, "rates": rates}


def _parts(
    took: dict[str, float], rows: float, occurrences: float, rates: Row, contest: Contest
) -> list[Row]:
    width, layers = contest.width, contest.shape.linear_layers().values()
    number = 2 if contest.table_type == "bfloat16" else 4
    second = 4 * rows * (width if contest.second_moment == "element" else 1)
    output = 4 * width * contest.batch
    weights = sum((inputs + 1) * outputs for outputs, inputs in layers)
    products = sum(inputs * outputs for outputs, inputs in layers)
    dense = took["step"] - took["pool"] - took["table update"] - took["dense Adam"]
    found = [
        # Files are read and n-grams written, sorted and written again: 4 and 8 bytes each.
        _part("read, group (ahead)", took["read, group"], bytes_=occurrences * 32, rates=rates),
        _part(
            "pool",
            took["pool"],
            bytes_=rows * width * number + output,
            rates=rates,
            again=rates["pooled_ms"],
        ),
        # Forward, and backward to the inputs and to the weights.
        _part("dense layers", dense, work=3 * 2 * contest.batch * products, rates=rates),
        _part(
            "table update",
            took["table update"],
            bytes_=output + 2 * (rows * width * (number + 4) + second),
            rates=rates,
            changing=True,
            again=rates["updated_ms"],
        ),
        # Four arrays are read and three of them written.
        _part("dense Adam", took["dense Adam"], bytes_=7 * 4 * weights, rates=rates),
    ]
    floor = sum(part["floor_ms"] for part in found[1:])
    again = sum(part["again_ms"] or part["floor_ms"] for part in found[1:])
    whole = {"ms": took["step"] * 1e3, "mb": None, "gflop": None}
    floors = {"floor_ms": floor, "share": floor / took["step"] / 1e3, "again_ms": again}
    return [*found, {"part": "an update", **whole, **floors}]


def _part(
    name: str,
    seconds: float,
    *,
    rates: Row,
    bytes_: float = 0.0,
    work: float = 0.0,
    changing: bool = False,
    again: float | None = None,
) -> Row:
    """Return a part's time and the time that its traffic or its arithmetic would take."""
    rate = rates["rows_changed_gb" if changing else "rows_read_gb"]
    floor = work / rates["matrix_gflops"] / 1e9 + bytes_ / rate / 1e9
    return {
        "part": name,
        "ms": seconds * 1e3,
        "mb": bytes_ / 1e6 or None,
        "gflop": work / 1e9 or None,
        "floor_ms": floor * 1e3,
        "share": floor / seconds,
        "again_ms": again,
    }


# What is measured of the machine.


def measure_rates(table: CpuTable, batch: GroupedBags, contest: Contest) -> Row:
    """Return what this machine reads and multiplies a second, with as many threads.

    The table's rows are changed by it.
    """
    arrays = [table.weights, table.first_moment]
    if table.second_moment.ndim == 2:
        arrays.append(table.second_moment)
    words = [as_words(array) for array in arrays]
    gradient = as_words(np.zeros((contest.batch, contest.width), np.float32))
    weight, bias = torch.randn(contest.width, contest.width), torch.zeros(contest.width)
    values = torch.randn(contest.batch, contest.width)
    slices = [slice(first, first + _SLICE) for first in range(0, contest.batch, _SLICE)]
    with ThreadPoolExecutor(contest.threads) as pool, torch.no_grad():

        def best(work: Callable[[Any], Any], parts: Sequence[Any]) -> float:
            seconds = []
            for _ in range(_PASSES):
                start = time.perf_counter()
                list(pool.map(work, parts))
                seconds.append(time.perf_counter() - start)
            return min(seconds[1:])

        def cut(rows: NDArray[np.integer[Any]]) -> list[NDArray[np.integer[Any]]]:
            return np.array_split(rows, contest.threads * _PIECES)

        read = best(lambda rows: read_rows(words[0], rows), cut(batch.touched))
        changed = best(lambda rows: [change_rows(w, rows) for w in words], cut(batch.touched))
        pooled = best(lambda rows: read_rows(words[0], rows), cut(batch.bags.rows))
        summed = best(lambda rows: read_rows(gradient, rows), cut(batch.bag_of))
        products = best(lambda some: linear(values[some], weight, bias), slices)
    row_bytes = [each.shape[1] * each.itemsize for each in words]
    return {
        "rows_read_gb": len(batch.touched) * row_bytes[0] / read / 1e9,
        "rows_changed_gb": 2 * len(batch.touched) * sum(row_bytes) / changed / 1e9,
        "pooled_ms": pooled * 1e3,
        "updated_ms": (changed + summed) * 1e3,
        "matrix_gflops": 2 * contest.batch * contest.width**2 / products / 1e9,
    }


@kernel
def read_rows(table: NDArray[Any], rows: NDArray[np.integer[Any]]) -> np.uint64:
    """Add up the words of some rows, the next row on its way meanwhile."""
    width = table.shape[1]
    size = np.int64(width * table.itemsize)
    total = np.uint64(0)
    for i in range(len(rows)):
        if i + 1 < len(rows):
            begin = np.int64(rows[i + 1]) * size
            for line in range(0, size, _LINE):
                prefetch(table, begin + line)
        row = table[rows[i]]
        for k in range(width):
            total += np.uint64(row[k])
    return total


@kernel
def change_rows(table: NDArray[Any], rows: NDArray[np.integer[Any]]) -> None:
    """Write some rows anew, as they are but for a bit."""
    one = table.dtype.type(1)
    for i in range(len(rows)):
        row = table[rows[i]]
        for k in range(len(row)):
            row[k] ^= one


@contextmanager
def _timing(seconds: dict[str, list[float]], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds.setdefault(name, []).append(time.perf_counter() - start)


@contextmanager
def _timed_table(table: CpuTable, seconds: dict[str, list[float]]) -> Iterator[None]:
    """Take down the time that the table's two calls take."""
    calls = {"pool": table.pool, "update": table.update}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def work(*given: Any, **more: Any) -> Any:  # noqa: ANN401
            with _timing(seconds, name):
                return call(*given, **more)

        return work

    table.pool = timed("pool", calls["pool"])  # type: ignore[method-assign]
    table.update = timed("table update", calls["update"])  # type: ignore[method-assign]
    yield
    table.pool, table.update = calls["pool"], calls["update"]  # type: ignore[method-assign]


@contextmanager
def _timed_adam(seconds: dict[str, list[float]]) -> Iterator[None]:
    """Take down the time of torch's optimiser."""
    starts: list[float] = []

    def begin(*_: Any) -> None:  # noqa: ANN401
        starts.append(time.perf_counter())

    def end(*_: Any) -> None:  # noqa: ANN401
        seconds.setdefault("dense Adam", []).append(time.perf_counter() - starts.pop())

    hooks = register_optimizer_step_pre_hook(begin), register_optimizer_step_post_hook(end)
    yield
    for hook in hooks:
        hook.remove()
