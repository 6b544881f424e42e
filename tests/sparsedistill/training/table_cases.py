"""Tables to be tested alike, and a readable oracle."""

import numpy as np
import torch

from sparsedistill.training.grouping import group_by_row
from sparsedistill.training.held import on_host
from sparsedistill.training.row_types import from_bfloat16
from sparsedistill.training.table import CpuTable, TableOptions
from sparsedistill.training.torch_table import TorchTable

TABLES = {
    "cpu": lambda *given, **more: CpuTable(*given, threads=2, **more),
    "torch": lambda *given, **more: TorchTable(*given, device="cpu", **more),
}


def make_table(kind, start, **options):
    """A table that starts with these rows; bfloat16 is rounded to the nearest."""
    made = TABLES[kind](*start.shape, TableOptions(**options))
    made.fill(0, start)
    return made


def numbers(table):
    """The rows of a table, float32."""
    stored = on_host(table.weights)
    return from_bfloat16(stored) if stored.dtype == np.uint16 else stored.copy()


def random_update(table, bags, gradient, *, update=1, rate=0.01, factor=1.0):
    table.update(
        group_by_row(bags),
        torch.from_numpy(gradient.astype(np.float32)),
        update=update,
        learning_rate=rate,
        factor=factor,
    )


class DenseOracle:
    """Adam on the rows of a batch, in float64 and whole matrices, as one would write it down."""

    def __init__(self, start, options):
        self.options = options
        self.table = start.astype(np.float64)
        self.first = np.zeros_like(self.table)
        shared = options.second_moment == "row"
        self.second = np.zeros(len(start) if shared else start.shape)

    def pooling_matrix(self, bags):
        """What pooling multiplies the table with, [bags, rows]."""
        matrix = np.zeros((len(bags), len(self.table)))
        for number, bag in enumerate(bags):
            share = 1 / len(bag) if self.options.pooling == "mean" and len(bag) else 1
            np.add.at(matrix[number], bag, share)
        return matrix

    def pool(self, bags):
        return self.pooling_matrix(bags) @ self.table

    def gradient(self, bags, gradient):
        """By the table, [rows, width]."""
        return self.pooling_matrix(bags).T @ gradient

    def update(self, bags, gradient, *, update, rate, factor=1.0):
        beta1, beta2 = self.options.betas
        rows = np.unique(bags.rows)
        by_row = factor * self.gradient(bags, gradient)[rows]
        square = by_row**2
        if self.options.second_moment == "row":
            square = square.mean(axis=1)
        self.first[rows] = beta1 * self.first[rows] + (1 - beta1) * by_row
        self.second[rows] = beta2 * self.second[rows] + (1 - beta2) * square
        second = self.second[rows].reshape(len(rows), -1)
        step = rate * np.sqrt(1 - beta2**update) / (1 - beta1**update)
        self.table[rows] *= 1 - rate * self.options.decay
        self.table[rows] -= step * self.first[rows] / (np.sqrt(second) + self.options.epsilon)
