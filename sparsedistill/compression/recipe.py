"""Compression from its settings: what is asked for, and the model that fulfils it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, get_args

from sparsedistill.compression.held_out import Shape
from sparsedistill.compression.limits import Limits
from sparsedistill.compression.narrowing import Basis, widths
from sparsedistill.compression.pruning import (
    PruningRule,
    Rankings,
    prune,
    row_use,
    rows_of_share,
)
from sparsedistill.compression.search import Form, Search
from sparsedistill.compression.sizes import SizeEstimate
from sparsedistill.errors import ConfigError
from sparsedistill.folded import FoldedModel, TableType
from sparsedistill.vocabulary import Vocabulary

if TYPE_CHECKING:
    from sparsedistill.compression.held_out import HeldOut
    from sparsedistill.compression.steps import StepLog

Measure: TypeAlias = Callable[[FoldedModel, Vocabulary], int]
"""How many bytes a model takes when it is saved."""

# A size is used up to one part in so many, or as closely as so many models come.
_CLOSE, _ATTEMPTS = 64, 8
# Rows given up at a time, one of so many.
_STEP = 128


@dataclass(frozen=True, slots=True)
class Compression:
    """What is asked for.

    Attributes:
        dtype: Of the table; None for the model's own, or under limits for whichever serves best.
        width: Columns of the table; None as for ``dtype``.
        keep_share: Of the rows; None for all, or under limits for as many as serve best.
        keep_by: Rule that rows are chosen by. Limits do not choose it: on a few hundred texts rules
            differ by less than chance, and on enough of them ``contribution`` is the best.
        limits: That the model must keep.

    Raises:
        ConfigError: It cannot be kept, or a share is asked for and limits to find it by.
    """

    dtype: TableType | None = None
    width: int | None = None
    keep_share: float | None = None
    keep_by: PruningRule = "contribution"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.keep_share is None:
            return
        if not 0 < self.keep_share <= 1:
            raise ConfigError(f"a share of rows is above 0 and at most 1, not {self.keep_share}")
        if self.limits:
            raise ConfigError(
                "give either the share of rows to keep, or a size or accuracy to find it by"
            )


class Compressed(NamedTuple):
    """The compressed model, its n-grams, and the forms that a search looked at."""

    model: FoldedModel
    vocabulary: Vocabulary
    tried: list[Form]


class _Made(NamedTuple):
    """A model with its rows chosen, the same narrowed, and in its final type; and its n-grams."""

    pruned: FoldedModel
    narrow: FoldedModel
    final: FoldedModel
    vocabulary: Vocabulary


class _Maker:
    """Makes forms of one model."""

    def __init__(
        self,
        model: FoldedModel,
        vocabulary: Vocabulary,
        rankings: Rankings,
        basis: Basis | None,
    ) -> None:
        self._of = model, vocabulary
        self._rankings = rankings
        self._basis = basis

    def make(self, rule: PruningRule, keep: int, shape: Shape) -> _Made:
        """Prune, narrow and quantise, as far as the form asks for it."""
        model, vocabulary = self._of
        pruned, kept = model, vocabulary
        if keep < len(vocabulary):
            pruned, kept = prune(model, vocabulary, self._rankings[rule], keep)
        narrow = pruned
        if shape.width != pruned.width:
            self._basis = self._basis or Basis.of(model, row_use(vocabulary))
            narrow = self._basis.narrowed(pruned, shape.width)
        # Narrowing makes float32 of any type.
        final = narrow if shape.dtype == narrow.table_type else narrow.converted(shape.dtype)
        return _Made(pruned, narrow, final, kept)


def compress(
    model: FoldedModel,
    vocabulary: Vocabulary,
    asked: Compression,
    *,
    log: StepLog,
    measure: Measure,
    held_out: HeldOut | None = None,
    rankings: Rankings | None = None,
    basis: Basis | None = None,
) -> Compressed:
    """Make a model smaller.

    Args:
        model: The model.
        vocabulary: Its n-grams with their counts.
        asked: What is wanted.
        log: Gets the steps ``prune``, ``narrow`` and ``quantise``, those that there are.
        measure: Decides whether a size is kept.
        held_out: For limits; without it the choice is by size alone.
        rankings: Of this model and vocabulary, where there are some already.
        basis: The same; ``held_out`` must have it.

    Raises:
        ConfigError: Nothing keeps the limits; says what comes nearest.
    """
    tried: list[Form] = []
    rankings = rankings or Rankings(model, vocabulary)
    if asked.limits:
        search = Search(
            asked.keep_by,
            rankings[asked.keep_by],
            _shapes(model, asked),
            SizeEstimate.of(model, vocabulary),
            held_out,
        )
        made = _searched(_Maker(model, vocabulary, rankings, basis), search, asked.limits, measure)
        tried = search.tried
    else:
        keep = rows_of_share(len(vocabulary), asked.keep_share or 1.0)
        shape = Shape(asked.width or model.width, asked.dtype or model.table_type)
        made = _Maker(model, vocabulary, rankings, basis).make(asked.keep_by, keep, shape)
    if made.pruned is not model:
        log.measure("prune", made.pruned, made.vocabulary)
    if made.narrow is not made.pruned:
        log.measure("narrow", made.narrow, made.vocabulary)
    if made.final is not made.narrow:
        log.measure("quantise", made.final, made.vocabulary)
    return Compressed(made.final, made.vocabulary, tried)


def _shapes(model: FoldedModel, asked: Compression) -> list[Shape]:
    """Return the shapes to choose from; what a model has lost does not come back in a larger."""
    types: tuple[TableType, ...] = get_args(TableType)
    dtypes = types[types.index(model.table_type) :] if asked.dtype is None else (asked.dtype,)
    columns = widths(model) if asked.width is None else [asked.width]
    return [Shape(width, dtype) for width in columns for dtype in dtypes]


def _searched(
    maker: _Maker,
    search: Search,
    limits: Limits,
    measure: Measure,
) -> _Made:
    """Make the best form under limits; its size is measured, and not only estimated."""
    form = search.best(limits)
    limit = limits.max_bytes
    fitting: _Made | None = None
    for _ in range(_ATTEMPTS):
        made = maker.make(form.rule, form.keep, form.shape)
        if limit is None:
            return made
        real = measure(made.final, made.vocabulary)
        search.size = search.size.like(made.vocabulary)
        unforeseen = max(0, real - search.size.bytes(form.keep, form.shape))
        better = search.largest(form.shape, limit - unforeseen)
        if real <= limit:
            search.check(form, limits)
            fitting = made
            if better is None or better.keep - form.keep <= form.keep // _CLOSE:
                break
        elif better is None or better.keep >= form.keep - form.keep // _STEP:
            # The estimate is at its end; what is missing may be the slots doubling.
            fewer = form.keep - 1 - form.keep // _STEP
            if fewer < 1:
                break
            better = search.form(fewer, form.shape)
        form = better
    if fitting is None:
        raise ConfigError(f"no model was found that takes at most {limit:,} bytes")
    return fitting
