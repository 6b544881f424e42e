"""The rate at which this machine multiplies matrices: the most that a transformer could reach here.

`nn.Linear` products of a given precision, on all threads at once: as one product that the threads
share, and as a product a thread; by torch's own choice of library, and on a CPU by oneDNN with the
weights as they are and laid out for it. The greatest rate of all is what shares are given of.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Row = dict[str, Any]
    Product = Callable[[], torch.Tensor]

# Rows, columns in, columns out: so large that nothing but the product counts.
LARGE = (2048, 4096, 4096)
LARGE_ON_GPU = (8192, 8192, 8192)
_PASSES = 3


def measure_rates(
    shapes: list[tuple[int, int, int]],
    *,
    precision: str,
    threads: int,
    device: str,
    seconds: float = 0.1,
) -> list[Row]:
    """Return a row for each shape and way.

    Args:
        shapes: Rows, columns in, columns out of each product.
        precision: As torch names it.
        threads: How many multiply at a time, on a CPU.
        device: As torch names it.
        seconds: Of each pass; the best of some passes counts.
    """
    import torch

    torch.set_num_threads(threads)
    found = []
    for shape in shapes:
        for way, product in _products(shape, getattr(torch, precision), device).items():
            ways = {"shared": 1}
            if device == "cpu" and threads > 1:
                ways["one a thread"] = threads
            for name, workers in ways.items():
                rate = _rate(product, _operations(shape), workers, threads, seconds)
                by = f"{way}, {name}" if device == "cpu" else way
                found.append(
                    {
                        "precision": precision,
                        "by": by,
                        "shape": " x ".join(map(str, shape)),
                        "gflop_per_s": rate / 1e9,
                    }
                )
    return found


def greatest(rates: list[Row]) -> list[Row]:
    """Return the greatest rate of each precision, shape and way, the greatest of all first."""
    best: dict[tuple[str, str, str], Row] = {}
    for row in sorted(rates, key=lambda row: -row["gflop_per_s"]):
        best.setdefault((row["precision"], row["by"], row["shape"]), row)
    return list(best.values())


def shapes_like(width: int, inner: int, *, rows: int, device: str) -> list[tuple[int, int, int]]:
    """Return the products of a transformer's layer over a batch of some tokens, and a large one."""
    large = LARGE if device == "cpu" else LARGE_ON_GPU
    return [(rows, width, width), (rows, width, inner), (rows, inner, width), large]


def _operations(shape: tuple[int, int, int]) -> float:
    rows, columns_in, columns_out = shape
    return 2.0 * rows * columns_in * columns_out


def _products(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> dict[str, Product]:
    import torch

    rows, columns_in, columns_out = shape
    x = torch.randn(rows, columns_in, device=device).to(dtype)
    weight = torch.randn(columns_out, columns_in, device=device).to(dtype)
    bias = torch.zeros(columns_out, device=device).to(dtype)
    if device != "cpu":
        return {"torch": lambda: torch.nn.functional.linear(x, weight, bias)}
    linear = torch.ops.mkldnn._linear_pointwise
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return {
        "torch": lambda: torch.nn.functional.linear(x, weight, bias),
        "oneDNN": lambda: linear(x, weight, bias, "none", [], "none"),
        "oneDNN, laid out": lambda: linear(x, laid_out, bias, "none", [], "none"),
    }


def _rate(product: Product, operations: float, workers: int, threads: int, seconds: float) -> float:
    """Return operations a second of the best pass."""
    import torch

    def repeat(times: int) -> None:
        torch.set_num_threads(max(1, threads // workers))
        with torch.inference_mode():
            for _ in range(times):
                out = product()
        if out.is_cuda:
            torch.cuda.synchronize()

    with ThreadPoolExecutor(workers) as pool:

        def run(times: int) -> float:
            start = time.perf_counter()
            list(pool.map(repeat, [times] * workers))
            return time.perf_counter() - start

        run(1)
        times = max(1, round(seconds / run(1)))
        best = min(run(times) for _ in range(_PASSES))
    return operations * workers * times / best
