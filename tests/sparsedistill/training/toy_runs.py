"""Runs of the toy task that are killed, in several ways, and what they come to all the same."""

import os
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

from toy_task import ToyStudent, toy_examples

from sparsedistill.training import loop
from sparsedistill.training.recipe import TrainingRecipe

RECIPE = TrainingRecipe(
    batch_size=4, learning_rate=5.0, epochs=2, warmup=0.1, decay="linear", evaluate_every=3
)


class Killed(BaseException):
    """No handler of errors may see it."""


def trained(checkpointing=None, *, recipe=RECIPE, student=None, **options):
    """Train a student; what it comes to but for the clock: bytes of the weights, and the result."""
    student = student or ToyStudent()
    examples, dev = toy_examples(40, seed=0), toy_examples(200, seed=1, labels=True)
    result = loop.fit(
        student, examples, None, recipe, dev=dev, seed=5, checkpointing=checkpointing, **options
    )
    weights = {name: value.tobytes() for name, value in student.weights().items()}
    return weights, replace(result, points=tuple(map(timeless, result.points)))


def timeless(point):
    return replace(point, seconds=0.0, examples_per_second=0.0, pauses=0.0)


def killed_after(update):
    def progress(done, total):
        if done == update:
            raise Killed

    return progress


def ticking(monkeypatch):
    """A clock by which a second goes by at every look."""
    ticks = count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


class DyingDisk:
    """Lets a number of calls that change files through; from then on there is nothing any more.

    The call it dies in is half done where a call can be. What clears up after an error cannot
    either, as after a kill. Nothing is really synced: the tests would wait for the disk.
    """

    def __init__(self, calls, die=None):
        self.left, self._die = calls, die

    def patch(self, monkeypatch):
        for name in ("pwrite", "ftruncate", "fsync", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name, call):
        def counted(*arguments, **options):
            self.left -= 1
            if self.left > 0:
                return None if name == "fsync" else call(*arguments, **options)
            if self.left == 0 and name == "pwrite":
                handle, data, position = arguments
                call(handle, data[: len(data) // 2], position)
            if self._die:
                self._die()
            raise Killed

        return counted
