"""What comes between the table and the first layer: how the embeddings of a text become one.

Mean and sum are the table's own work. The greatest of each number, and attention (the released code
of the paper has both), need the embedding of every n-gram beside the others of its text: these two,
and no others, make arrays of the size of the occurrences. They are here to be compared with: the
first linear layer cannot be folded through them, so a student that pools like this cannot be
packaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch.nn.functional import embedding_bag

from sparsedistill.bags import Bags
from sparsedistill.training.grouping import GroupedBags, group_by_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    from torch import Tensor

    from sparsedistill.training.table import Pooling as TablePooling

Pooling = Literal["mean", "sum", "max", "attentive"]

# Units of the attention, as the released code has by default.
_UNITS = 50
_OWN, _MEAN, _SCORE = (f"attention_{part}_weight" for part in ("own", "mean", "score"))


def of_table(pooling: Pooling) -> TablePooling:
    """Return what the table does; of a single n-gram both are its embedding."""
    return "mean" if pooling == "mean" else "sum"


def is_spread(pooling: Pooling) -> bool:
    """Whether every occurrence is looked up by itself."""
    return pooling in {"max", "attentive"}


def attention_weights(pooling: Pooling, width: int) -> dict[str, tuple[int, int]]:
    """Return outputs and inputs of what a pooling learns itself, by name; no biases."""
    if pooling != "attentive":
        return {}
    return {_OWN: (_UNITS, width), _MEAN: (_UNITS, width), _SCORE: (1, _UNITS)}


@dataclass(frozen=True, slots=True, eq=False)
class SpreadBags(GroupedBags):
    """Texts whose occurrences are looked up one by one: each is a bag of its own.

    Attributes:
        texts: Where the occurrences of each text begin, int64 [texts + 1].
    """

    texts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts) - 1


def group_for(pooling: Pooling, bags: Bags) -> GroupedBags:
    """Return texts as a pooling has the table look them up, also sorted by row."""
    if not is_spread(pooling):
        return group_by_row(bags)
    single = group_by_row(spread(bags))
    return SpreadBags(single.bags, single.touched, single.starts, single.bag_of, bags.offsets)


def spread(bags: Bags) -> Bags:
    """Return every occurrence as a bag of its own."""
    return Bags(bags.rows, np.arange(len(bags.rows) + 1))


@dataclass(frozen=True, slots=True)
class Pool:
    """The pooling of some texts, from what the table gave for them.

    Attributes:
        pooling: Which.
        dense: The student's weights; attention has some of its own.
        texts: Where the occurrences of each text begin, int64 [texts + 1]; None where the table has
            pooled already.
    """

    pooling: Pooling
    dense: Mapping[str, Tensor]
    texts: npt.NDArray[np.int64] | None

    def part(self, first: int, last: int) -> slice:
        """Return which of what the table gave belong to the texts from ``first`` to ``last``."""
        if self.texts is None:
            return slice(first, last)
        return slice(int(self.texts[first]), int(self.texts[last]))

    def __call__(self, values: Tensor, first: int, last: int) -> Tensor:
        """Return a vector for each of some texts, float32 [texts, width]; zero for an empty one.

        Args:
            values: Their part of what the table gave, float32 [occurrences, width].
            first: Number of the first text.
            last: Behind the last.
        """
        if self.texts is None:
            return values
        offsets = torch.from_numpy(self.texts[first : last + 1] - self.texts[first])
        offsets = offsets.to(values.device)
        if self.pooling == "max":
            return _by_text(values, offsets, "max")
        return self._attended(values, offsets)

    def _attended(self, values: Tensor, offsets: Tensor) -> Tensor:
        """Weigh n-grams by a softmax over their text of ``v . tanh(W_g e_i + W_h mean(e))``."""
        text_of = torch.repeat_interleave(offsets.diff())
        about = _by_text(values, offsets, "mean") @ self.dense[_MEAN].T
        scores = torch.tanh(values @ self.dense[_OWN].T + about[text_of]) @ self.dense[_SCORE].T
        highest = _by_text(scores.detach(), offsets, "max")
        shares = torch.exp(scores - highest[text_of])
        shares = shares / _by_text(shares, offsets, "sum")[text_of]
        return _by_text(values, offsets, "sum", shares[:, 0])


def _by_text(values: Tensor, offsets: Tensor, mode: str, shares: Tensor | None = None) -> Tensor:
    """Return the sum, mean or greatest of the occurrences of each text, [texts, ...]."""
    places = torch.arange(len(values), device=values.device)
    return embedding_bag(
        places, values, offsets, mode=mode, include_last_offset=True, per_sample_weights=shares
    )
