"""A task of two classes over 64 features, and a student of plain NumPy that can learn it.

The student stands for all: it has a table that changes row by row, with a moment, small arrays that
change at every update, one without dimensions, and randomness of the update's number.
"""

import numpy as np

from sparsedistill.errors import DataError
from sparsedistill.targets import Targets
from sparsedistill.training.loop import Examples

ROWS, WIDTH = 64, 16


def toy_examples(count, *, seed, labels=False):
    """Three features an example; low ones speak for class 0, high ones for class 1."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, count)
    inputs = rng.integers(0, 40, (count, 3)) + 24 * truth[:, None]
    logits = np.stack([1 - 2 * truth, 2 * truth - 1], axis=1) * 2 + rng.normal(0, 0.1, (count, 2))
    targets = Targets(labels=truth) if labels else Targets(logits=logits.astype(np.float32))
    return Examples(inputs, targets)


class ToyStudent:
    """Softmax regression on the mean of the features' rows; momentum on the rows of a batch."""

    def __init__(self, *, seed=3):
        rng = np.random.default_rng([seed, 0])
        self._seed = seed
        self._weights = {
            "table": rng.normal(0, 0.1, (ROWS, WIDTH)).astype(np.float32),
            "head": rng.normal(0, 0.3, (WIDTH, 2)).astype(np.float32),
            "bias": np.zeros(2, np.float32),
        }
        self._state = {
            "table.moment": np.zeros((ROWS, WIDTH), np.float32),
            "table.row_moment": np.zeros(ROWS, np.float32),
            "step": np.zeros((), np.int64),
        }
        self._changed = np.zeros(ROWS, np.int32)

    def prepare(self, inputs, rows, *, update):
        kept = np.random.default_rng([self._seed, update]).random((len(rows), 3)) > 0.2
        return inputs[rows], kept.astype(np.float32) / 3

    @np.errstate(over="ignore", invalid="ignore")
    def step(self, batch, targets, objective, *, update, learning_rate):
        features, share = batch
        pooled = np.einsum("ijk,ij->ik", self._weights["table"][features], share)
        wanted = _softmax(targets.logits)
        log_given = _log_softmax(pooled @ self._weights["head"] + self._weights["bias"])
        loss = -float((wanted * log_given).sum(axis=1).mean())
        if not np.isfinite(loss):
            raise DataError(f"the loss at update {update} is {loss}")
        gradient = (np.exp(log_given) - wanted) / len(features)
        to_pooled = gradient @ self._weights["head"].T
        table_gradient = np.zeros((ROWS, WIDTH), np.float32)
        np.add.at(table_gradient, features, share[:, :, None] * to_pooled[:, None, :])
        touched = np.unique(features)
        moment = self._state["table.moment"]
        moment[touched] = 0.9 * moment[touched] + table_gradient[touched]
        self._state["table.row_moment"][touched] += 1
        self._weights["table"][touched] -= learning_rate * moment[touched]
        self._weights["head"] -= learning_rate * pooled.T @ gradient
        self._weights["bias"] -= learning_rate * gradient.sum(axis=0)
        self._state["step"] += 1
        self._changed[touched] = update
        return loss

    def predict(self, inputs):
        pooled = self._weights["table"][inputs].mean(axis=1)
        return pooled @ self._weights["head"] + self._weights["bias"]

    def weights(self):
        return dict(self._weights)

    def optimiser_state(self):
        return dict(self._state)

    def changed(self):
        return dict.fromkeys(("table", "table.moment", "table.row_moment"), self._changed)

    def load(self, arrays):
        for name, value in arrays.items():
            {**self._weights, **self._state}[name][...] = value


def _log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _softmax(logits):
    return np.exp(_log_softmax(logits))


class Table(ToyStudent):
    """A student whose rows are changed by hand."""

    def __init__(self):
        super().__init__()
        self.update = 0

    def change(self, rows):
        self.update += 1
        for arrays in (self._weights, self._state):
            for name, value in arrays.items():
                value[rows if name.startswith("table") else ...] += self.update
        self._changed[rows] = self.update

    def everything(self):
        return {name: value.tobytes() for name, value in {**self._weights, **self._state}.items()}
