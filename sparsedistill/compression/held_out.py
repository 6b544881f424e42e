"""What a pruned or quantised model would score on held-out texts, without making the model.

The texts are looked up once in the full vocabulary. A pruned model sees the same n-grams less those
that it no longer knows, and of the table only the rows that these texts touch are needed: some
thousand of a million. So a trial takes milliseconds, where making the model would take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsedistill.bags import Bags
from sparsedistill.metrics import accuracy
from sparsedistill.ngram_index import NgramIndex

if TYPE_CHECKING:
    import numpy.typing as npt

    from sparsedistill.compression.narrowing import Basis
    from sparsedistill.compression.pruning import Places
    from sparsedistill.folded import FoldedModel, TableType
    from sparsedistill.text.buffers import TextBuffer

# More n-grams than any text has.
_ALL = 1 << 40


class Shape(NamedTuple):
    """Columns of a table and the type of its numbers."""

    width: int
    dtype: TableType


@dataclass(frozen=True, slots=True)
class Score:
    """What a model is worth on held-out texts.

    Attributes:
        accuracy: Share of the texts whose label it finds.
        agreement: Share of the texts that it labels as the full model does.
    """

    accuracy: float
    agreement: float


class HeldOut:
    """Labelled texts on which every form of one model can be tried.

    Attributes:
        rows: Of the full model.
        full: What the full model scores.
    """

    def __init__(
        self,
        model: FoldedModel,
        texts: TextBuffer,
        truth: npt.NDArray[np.int64],
        *,
        basis: Basis | None = None,
        threads: int = 1,
    ) -> None:
        """Look the texts up; narrower tables can be tried with the model's basis."""
        bags = model.index.bags(texts, model.spec, max_ngrams=_ALL, threads=threads)
        self.rows = len(model.index)
        self._touched, places = np.unique(bags.rows, return_inverse=True)
        self._bags = Bags(places.astype(np.int32), bags.offsets)
        self._truth = truth
        index = NgramIndex.build(model.index.hashes[self._touched], np.zeros(0, np.uint64))
        small = replace(model, table=model.stored_rows(self._touched), scale=None, index=index)
        self._basis = basis
        self._whole = Shape(model.width, "float32")
        self._forms: dict[Shape, FoldedModel] = {self._whole: small}
        self._predicted = self.logits(np.arange(self.rows), self.rows).argmax(axis=1)
        self.full = self.score(np.arange(self.rows), self.rows)

    def score(self, ranking: Places, keep: int, shape: Shape | None = None) -> Score:
        """Return what the model with only the ``keep`` most useful rows scores, in that shape."""
        predicted = self.logits(ranking, keep, shape).argmax(axis=1)
        return Score(accuracy(self._truth, predicted), accuracy(self._predicted, predicted))

    def logits(
        self, ranking: Places, keep: int, shape: Shape | None = None
    ) -> npt.NDArray[np.float32]:
        """Return that model's logits, float32[texts, classes]."""
        shape = shape or self._whole
        if shape not in self._forms:
            # Each row is narrowed and quantised by itself, so the rows in use suffice.
            narrow = self._forms[self._whole]
            if self._basis is not None:
                narrow = self._basis.narrowed(narrow, shape.width)
            self._forms[shape] = narrow.converted(shape.dtype)
        model = self._forms[shape]
        return model.bag_logits(self._known(ranking, keep, model.max_ngrams))

    def _known(self, ranking: Places, keep: int, most: int) -> Bags:
        """Return the bags of the n-grams that the pruned model knows, at most so many of each."""
        rows, offsets = self._bags.rows, self._bags.offsets
        known = ranking[self._touched[rows]] < keep
        before = np.concatenate([[0], np.cumsum(known)])
        if np.diff(before[offsets]).max(initial=0) > most:
            first = np.repeat(before[offsets[:-1]], np.diff(offsets))
            known &= before[1:] - first <= most
            before = np.concatenate([[0], np.cumsum(known)])
        return Bags(rows[known], before[offsets])
