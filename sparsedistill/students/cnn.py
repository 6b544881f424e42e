"""A convolution over subwords, the paper's second baseline (section 4.1).

One layer with a window of 7 tokens over the teacher's embeddings, ReLU, and a linear head over the
greatest value of each unit in the text, as in Kim (2014). The paper says 128 units in the text and
256 in its table, whose number of parameters is that of 256.
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


@dataclass(frozen=True, slots=True)
class CNN:
    """Sizes of a convolution over tokens, and its forward pass; a ``Network``.

    Attributes:
        rows: Rows of the embedding table: the tokens that the tokenizer knows.
        width: Width of the embeddings.
        hidden: Units.
        classes: Number of labels.
        init_scale: Standard deviation of the embeddings' normal start.
        window: Tokens that a unit sees together; before and after a text it sees zeros.
    """

    rows: int
    width: int
    hidden: int
    classes: int
    init_scale: float
    window: int = 7

    def weights(self) -> Forms:
        """Return type and shape of every weight, by name."""
        return {
            "table": (np.float32, (self.rows, self.width)),
            "window_weight": (np.float32, (self.hidden, self.width, self.window)),
            "window_bias": (np.float32, (self.hidden,)),
            "head_weight": (np.float32, (self.classes, self.hidden)),
            "head_bias": (np.float32, (self.classes,)),
        }

    def logits(self, dense: Mapping[str, Tensor], texts: PaddedTexts, drop: Drop) -> Tensor:
        """Return logits, float32 [texts, classes]."""
        # One mask for all tokens of a text: its zeros past the end stay zeros.
        kept = drop(torch.ones_like(texts.vectors[:, 0]), layer=0)
        states = F.conv1d(
            (texts.vectors * kept[:, None]).transpose(1, 2),
            dense["window_weight"],
            dense["window_bias"],
            padding=self.window // 2,
        )
        # An even window fits in once more than there are tokens.
        states = states[:, :, : texts.vectors.shape[1]].transpose(1, 2)
        pooled = drop(texts.greatest(torch.relu(states)), layer=1)
        return F.linear(pooled, dense["head_weight"], dense["head_bias"])

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        return asdict(self)
