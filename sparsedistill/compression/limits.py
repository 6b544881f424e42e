"""What a compressed model must fulfil: a size, an accuracy, or both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    from sparsedistill.compression.held_out import Score

_ACCURACY = re.compile(r"(\d*\.?\d+)(x?)")


@dataclass(frozen=True, slots=True)
class AccuracyFloor:
    """The least accuracy on held-out texts, as such or as a share of the full model's."""

    value: float
    relative: bool

    @classmethod
    def parse(cls, text: str | float) -> AccuracyFloor:
        """Read 0.93, or 0.99x for a share.

        Raises:
            ConfigError: It is neither.
        """
        match = _ACCURACY.fullmatch(str(text).strip())
        if match is None or not 0 < float(match[1]) <= 1:
            raise ConfigError(
                f"{text!r} is no accuracy: write 0.93, or 0.99x for a share of the full model's"
            )
        return cls(float(match[1]), bool(match[2]))

    def of(self, full: Score) -> float:
        """Return the accuracy that this is, with what the full model scores."""
        # A hair less, so that a share of 1x is what the full model has in spite of rounding.
        return self.value * (full.accuracy if self.relative else 1.0) - 1e-12

    def __str__(self) -> str:
        return f"{self.value:g}x" if self.relative else f"{self.value:g}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Size and accuracy that are asked for; None where there is no limit."""

    max_bytes: int | None = None
    min_accuracy: AccuracyFloor | None = None

    def __bool__(self) -> bool:
        return self.max_bytes is not None or self.min_accuracy is not None
