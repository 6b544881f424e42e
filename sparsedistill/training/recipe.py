"""How long and how fast to train: the numbers of a run, apart from the model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sparsedistill.errors import ConfigError

Decay = Literal["none", "linear"]


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """Schedule of a training run.

    Attributes:
        batch_size: Rows in a batch.
        learning_rate: The highest.
        epochs: Passes over the data; either this or ``updates`` is given.
        updates: Number of updates, instead of epochs (the paper: 1,000,000).
        warmup: Share of the updates over which the rate climbs from zero.
        decay: Of the rate after the warm-up: none, or linear to zero.
        evaluate_every: Updates between two looks at ``dev``; every epoch where not given. Training
            stands still meanwhile: the curve says which share of the time that takes.
        patience: Looks at ``dev`` without a better one after which the run ends early; never where
            not given.

    Raises:
        ConfigError: Neither or both of ``epochs`` and ``updates`` are given, or one is below 1.
    """

    batch_size: int
    learning_rate: float
    epochs: int | None = None
    updates: int | None = None
    warmup: float = 0.0
    decay: Decay = "none"
    evaluate_every: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.updates is None):
            raise ConfigError("give either the number of epochs or the number of updates")
        for name in ("batch_size", "epochs", "updates", "evaluate_every", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more, not {value}")

    def total_updates(self, updates_per_epoch: int) -> int:
        """Return how many updates the run makes."""
        return self.updates or (self.epochs or 0) * updates_per_epoch

    def rate(self, update: int, total: int) -> float:
        """Return the learning rate of an update, counted from 1 to ``total``."""
        warm = round(self.warmup * total)
        if update <= warm:
            return self.learning_rate * update / warm
        if self.decay == "none":
            return self.learning_rate
        return self.learning_rate * max(total - update + 1, 0) / max(total - warm, 1)
