"""The best form of a model under a limit: over shares of its rows and shapes of its table.

In one shape a model grows with its rows, and is the more accurate the more it has (but for noise,
where held-out texts are few). So for a size there is one form of each shape to try, the largest
that fits; and the smallest of an accuracy is found by halving.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparsedistill.compression.held_out import HeldOut, Score, Shape
    from sparsedistill.compression.limits import Limits
    from sparsedistill.compression.pruning import Places, PruningRule
    from sparsedistill.compression.sizes import SizeEstimate

# Halving ends when rows are known to one part in so many.
_FINENESS = 64


@dataclass(frozen=True, slots=True)
class Form:
    """What a model can be made into.

    Attributes:
        rule: That its rows are chosen by.
        keep: How many rows stay.
        shape: Columns and type of its table.
        bytes: That it takes, by estimate.
        score: On held-out texts; None without any.
    """

    rule: PruningRule
    keep: int
    shape: Shape
    bytes: int
    score: Score | None

    def to_json(self) -> dict[str, float | str | None]:
        """Return it as a row of a table."""
        return {
            "rule": self.rule,
            "rows": self.keep,
            "width": self.shape.width,
            "dtype": self.shape.dtype,
            "bytes": self.bytes,
            "accuracy": None if self.score is None else self.score.accuracy,
            "agreement": None if self.score is None else self.score.agreement,
        }

    def __str__(self) -> str:
        row = f"{self.shape.width} {self.shape.dtype}"
        said = f"{self.keep:,} rows of {row} by {self.rule}, about {self.bytes:,} bytes"
        return said if self.score is None else f"{said}, accuracy {self.score.accuracy:.4f}"


class Search:
    """Tries forms of one model.

    Attributes:
        size: The estimate of sizes; a better one may take its place.
    """

    def __init__(
        self,
        rule: PruningRule,
        ranking: Places,
        shapes: Sequence[Shape],
        size: SizeEstimate,
        held_out: HeldOut | None,
    ) -> None:
        self.size = size
        self._rule = rule
        self._ranking = ranking
        # The smallest shape first: it is the one to beat for size.
        self._shapes = sorted(shapes, key=lambda shape: size.bytes(size.rows, shape))
        self._held_out = held_out
        self._tried: dict[tuple[int, Shape], Form] = {}

    @property
    def tried(self) -> list[Form]:
        """Every form that was looked at, in order."""
        return list(self._tried.values())

    def best(self, limits: Limits) -> Form:
        """Return the most accurate form below a size, or the smallest of an accuracy.

        With both limits, the most accurate below the size, if that is accurate enough. Without
        held-out texts, the one with the most rows; of several, the one of the largest shape.

        Raises:
            ConfigError: There is no such form; the message has the nearest.
        """
        if limits.max_bytes is None:
            return self._smallest(self._floor(limits))
        best = self._most_accurate(limits.max_bytes)
        self.check(best, limits)
        return best

    def check(self, form: Form, limits: Limits) -> None:
        """Refuse a form that is not accurate enough.

        Raises:
            ConfigError: It is not; the message has the smallest that is, too.
        """
        floor = self._floor(limits)
        if not _enough(form, floor):
            raise ConfigError(
                f"no model of that size has the accuracy {floor:.4f}: the most accurate is {form}; "
                f"the smallest of that accuracy is {self._smallest(floor)}"
            )

    def _floor(self, limits: Limits) -> float:
        if limits.min_accuracy is None:
            return 0.0
        if self._held_out is None:
            raise ConfigError("a least accuracy takes held-out texts to measure it on")
        return limits.min_accuracy.of(self._held_out.full)

    def largest(self, shape: Shape, limit: int) -> Form | None:
        """Return the form of that shape with the most rows below a size, if there is one.

        The estimate of sizes decides, as it is when this is called.
        """
        keep = self.size.largest(limit, shape)
        return self.form(keep, shape) if keep else None

    def form(self, keep: int, shape: Shape) -> Form:
        """Try a form."""
        if (keep, shape) not in self._tried:
            score = None
            if self._held_out is not None:
                score = self._held_out.score(self._ranking, keep, shape)
            form = Form(self._rule, keep, shape, self.size.bytes(keep, shape), score)
            self._tried[keep, shape] = form
        return self._tried[keep, shape]

    def _most_accurate(self, limit: int) -> Form:
        found = (self.largest(shape, limit) for shape in self._shapes)
        fitting = [form for form in found if form is not None]
        if not fitting:
            least = min(self.size.bytes(1, shape) for shape in self._shapes)
            raise ConfigError(
                f"no model fits into {limit:,} bytes: one row alone takes about {least:,}"
            )
        return max(fitting, key=_worth)

    def _smallest(self, floor: float) -> Form:
        best: Form | None = None
        for shape in self._shapes:
            most = self.size.rows
            if best is not None:
                # What is no smaller than the best so far need not be looked at.
                most = self.size.largest(best.bytes - 1, shape)
            if most and _enough(self.form(most, shape), floor):
                best = self._fewest_rows(shape, most, floor)
        if best is None:
            nearest = max(self.tried, key=_worth)
            raise ConfigError(
                f"no model has the accuracy {floor:.4f} on the held-out texts; nearest: {nearest}"
            )
        return best

    def _fewest_rows(self, shape: Shape, enough: int, floor: float) -> Form:
        """Return the form with the fewest rows that is accurate enough, as so many rows are."""
        too_few = 0
        while enough - too_few > 1 + enough // _FINENESS:
            # The middle of the logarithms: rows go over powers of ten.
            middle = round((max(too_few, 1) * enough) ** 0.5)
            middle = min(max(middle, too_few + 1), enough - 1)
            if _enough(self.form(middle, shape), floor):
                enough = middle
            else:
                too_few = middle
        return self.form(enough, shape)


def _enough(form: Form, floor: float) -> bool:
    return form.score is None or form.score.accuracy >= floor


def _worth(form: Form) -> tuple[float, ...]:
    """What is better is larger: accuracy, then closeness to the full model, then few bytes."""
    if form.score is None:
        # All rows, or as many as can be; then the largest shape, which loses least.
        return form.keep, form.bytes
    return form.score.accuracy, form.score.agreement, -form.bytes
