"""A bidirectional LSTM over subwords, the paper's first baseline (section 4.1).

Two layers of 128, 256 or 512 units each way over the teacher's embeddings, and a linear head over
the greatest value of each unit in the text, as in Adhikari et al. (2019), whom the paper follows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sparsedistill.students.hybrid import Forms
    from sparsedistill.students.subwords import Drop, PaddedTexts

_GATES = 4
_DIRECTIONS = ("ahead", "back")


@dataclass(frozen=True, slots=True)
class BiLSTM:
    """Sizes of a bidirectional LSTM, and its forward pass; a ``Network``.

    Attributes:
        rows: Rows of the embedding table: the tokens that the tokenizer knows.
        width: Width of the embeddings.
        hidden: Units of each direction of each layer.
        classes: Number of labels.
        init_scale: Standard deviation of the embeddings' normal start.
        layers: One above the other.
    """

    rows: int
    width: int
    hidden: int
    classes: int
    init_scale: float
    layers: int = 2

    def weights(self) -> Forms:
        """Return type and shape of every weight, by name."""
        found: Forms = {"table": (np.float32, (self.rows, self.width))}
        gates = _GATES * self.hidden
        for layer in range(1, self.layers + 1):
            inputs = self.width if layer == 1 else 2 * self.hidden
            for direction in _DIRECTIONS:
                name = f"lstm_{layer}_{direction}"
                found[f"{name}_input_weight"] = (np.float32, (gates, inputs))
                found[f"{name}_state_weight"] = (np.float32, (gates, self.hidden))
                found[f"{name}_bias"] = (np.float32, (gates,))
        found["head_weight"] = (np.float32, (self.classes, 2 * self.hidden))
        found["head_bias"] = (np.float32, (self.classes,))
        return found

    def logits(self, dense: Mapping[str, Tensor], texts: PaddedTexts, drop: Drop) -> Tensor:
        """Return logits, float32 [texts, classes]."""
        # One mask for all tokens of a text (Gal and Ghahramani, 2016).
        kept = drop(torch.ones_like(texts.vectors[:, 0]), layer=0)
        states = texts.vectors * kept[:, None]
        reversed_places = _reversed_places(texts)
        for layer in range(1, self.layers + 1):
            ahead = self._one_way(dense, f"lstm_{layer}_ahead", states)
            turned = _at(states, reversed_places)
            back = _at(self._one_way(dense, f"lstm_{layer}_back", turned), reversed_places)
            states = torch.cat([ahead, back], dim=2)
        pooled = drop(texts.greatest(states), layer=1)
        return F.linear(pooled, dense["head_weight"], dense["head_bias"])

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return asdict(self)

    def _one_way(self, dense: Mapping[str, Tensor], name: str, states: Tensor) -> Tensor:
        """Return the states of a layer that reads in one direction, [texts, longest, hidden].

        What comes after a text changes nothing before it, so padding needs no packing; packed
        sequences take torch time quadratic in the length, and do not get to oneDNN's LSTM.
        """
        bias = dense[f"{name}_bias"]
        start = states.new_zeros(1, len(states), self.hidden)
        weights = [
            dense[f"{name}_input_weight"],
            dense[f"{name}_state_weight"],
            bias,
            torch.zeros_like(bias),
        ]
        found: Tensor = torch.lstm(
            states, (start, start), weights, True, 1, 0.0, torch.is_grad_enabled(), False, True
        )[0]
        return found


def _reversed_places(texts: PaddedTexts) -> Tensor:
    """Return where in the batch each token of the texts, read from their ends, is: int64 [all]."""
    count, longest = texts.inside.shape
    place = torch.arange(longest)
    last = texts.lengths[:, None] - 1
    turned = torch.where(texts.inside, last - place, place)
    return (turned + longest * torch.arange(count)[:, None]).flatten()


def _at(states: Tensor, places: Tensor) -> Tensor:
    return states.flatten(0, 1).index_select(0, places).view_as(states)
