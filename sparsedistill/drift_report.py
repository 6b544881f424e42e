"""What a comparison of texts with a reference found, as data and as text for a terminal."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sparsedistill.text_profile import Quantity

Verdict = Literal["same", "shifted", "different"]
VERDICTS: tuple[Verdict, ...] = ("same", "shifted", "different")

_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH, _SHOWN = 100, 80
_NUMBERS = {2, 4, 5, 6}
# A divergence that any batch worth looking at should show.
_BLIND = 0.1


@dataclass(frozen=True, slots=True)
class Shift:
    """How one quantity differs between the reference and a batch.

    Attributes:
        quantity: Which.
        names: Of its bins, if they have names.
        reference: Share of the texts in each bin.
        batch: The same of the batch.
        reference_mean: None for kinds.
        batch_mean: None for kinds.
        divergence: Jensen-Shannon, in bits, less what chance makes of such samples; 0 to 1.
        p_value: How often chance alone makes as much.
        detectable: The least divergence that would be noticed in so few texts.
        verdict: In a word.
    """

    quantity: Quantity
    names: tuple[str, ...] | None
    reference: tuple[float, ...]
    batch: tuple[float, ...]
    reference_mean: float | None
    batch_mean: float | None
    divergence: float
    p_value: float
    detectable: float
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "quantity": self.quantity.name,
            "bins": list(self.names or self.quantity.edges or ()),
            "reference": list(self.reference),
            "batch": list(self.batch),
            "reference_mean": self.reference_mean,
            "batch_mean": self.batch_mean,
            "divergence": self.divergence,
            "p_value": self.p_value,
            "detectable": self.detectable,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class Unknown:
    """What the model does not know of a batch.

    Attributes:
        length: Tokens in the n-grams counted here: 1, words, unless the model has no n-grams so
            short.
        occurrences: How many there were, known or not.
        unknown: How many of them the model does not know.
        ngrams: The most frequent unknown ones with their counts, the first the most frequent.
        error: A count is too small by this at most; what is not there came up no more often.
    """

    length: int
    occurrences: int
    unknown: int
    ngrams: tuple[tuple[str, int], ...]
    error: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        words = [{"ngram": ngram, "count": count} for ngram, count in self.ngrams]
        return {**asdict(self), "ngrams": words}


@dataclass(frozen=True, slots=True)
class Example:
    """A text of which the model knows little.

    Attributes:
        row: Of the batch, from 0, as in Python; the text says it from 1.
        text: Its beginning.
        coverage: Share of its n-grams that are known.
        ngrams: How many it has.
    """

    row: int
    text: str
    coverage: float
    ngrams: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DriftReport:
    """A batch of texts compared with a reference.

    Attributes:
        rows: Texts in the batch.
        reference_rows: Texts in the reference.
        alpha: As it was asked for.
        verdict: The worst of all quantities.
        shifts: One for each quantity.
        unknown: What the model does not know.
        examples: Texts of which it knows least.
    """

    rows: int
    reference_rows: int
    alpha: float
    verdict: Verdict
    shifts: tuple[Shift, ...]
    unknown: Unknown
    examples: tuple[Example, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "rows": self.rows,
            "reference_rows": self.reference_rows,
            "alpha": self.alpha,
            "verdict": self.verdict,
            "shifts": [shift.to_json() for shift in self.shifts],
            "unknown": self.unknown.to_json(),
            "examples": [example.to_json() for example in self.examples],
        }


def render(report: DriftReport, *, place: Callable[[int], str] | None = None) -> str:
    """The report as text: a table with a bar for each bin, then what is new.

    Args:
        report: What was found.
        place: How a row, counted from 0, is called; if not given, by its number from 1.
    """
    lines = [
        f"{report.rows:,} texts against a reference of {report.reference_rows:,}: {report.verdict}",
        "",
    ]
    header = ("", "reference", "mean", "these texts", "mean", "divergence", "by chance", "verdict")
    table = [header, *(_row(shift) for shift in report.shifts)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        cells = [
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    blind = [shift.quantity.title for shift in report.shifts if shift.detectable > _BLIND]
    if blind and report.rows:
        lines += ["", f"so few texts would not show a shift of: {', '.join(blind)}"]
    lines += _unknown(report.unknown)
    if report.examples:
        lines += ["", "least known texts (row, share of n-grams that are known, text)"]
        places = [place(one.row) if place else f"{one.row + 1:,}" for one in report.examples]
        width = max(7, *map(len, places))
        for where, one in zip(places, report.examples, strict=True):
            lines.append(f"  {where:>{width}}  {one.coverage:6.1%}  {one.text[:_SHOWN]}".rstrip())
    return "\n".join(lines) + "\n"


def _row(shift: Shift) -> tuple[str, ...]:
    if shift.names is not None and len(shift.names) == 2:
        old, new = (_share(shares[1]) for shares in (shift.reference, shift.batch))
        means = (old, new)
        bars = (shift.names[1], shift.names[1])
    else:
        top = max(*shift.reference, *shift.batch, 1e-12)
        bars = (_bars(shift.reference, top), _bars(shift.batch, top))
        means = (_mean(shift.reference_mean), _mean(shift.batch_mean))
    return (
        shift.quantity.title,
        bars[0],
        means[0],
        bars[1],
        means[1],
        f"{shift.divergence:.3f}",
        "< 0.001" if shift.p_value < 0.001 else f"{shift.p_value:.3f}",
        shift.verdict,
    )


def _bars(shares: tuple[float, ...], top: float) -> str:
    steps = len(_BARS) - 1
    # What is there at all is seen.
    return "".join(_BARS[max(round(steps * one / top), int(one > 0))] for one in shares)


def _mean(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _share(value: float) -> str:
    return f"{value:.2%}"


def _unknown(unknown: Unknown) -> list[str]:
    what = "words" if unknown.length == 1 else f"n-grams of {unknown.length} tokens"
    share = unknown.unknown / max(unknown.occurrences, 1)
    lines = ["", f"{share:.1%} of {unknown.occurrences:,} {what} are unknown"]
    if unknown.ngrams:
        short = f" (counts may be up to {unknown.error:,} more)" if unknown.error else ""
        lines[-1] += f", most often{short}:"
        words = ", ".join(f"{ngram} {count:,}" for ngram, count in unknown.ngrams)
        lines += textwrap.wrap(words, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return lines
