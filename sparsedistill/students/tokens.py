"""What a teacher lends to a student that reads subwords: its tokenizer and its embeddings.

The tokens of a text are a bag like any other: rows of an embedding table, in the text's order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.bags import Bags
from sparsedistill.teacher.checkpoint import load_model
from sparsedistill.teacher.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

_TOKENIZE_ROWS = 4096


def token_ids(texts: Sequence[str], tokenizer: Any, *, max_length: int) -> Bags:  # noqa: ANN401
    """Return the tokens of every text; none for an empty one.

    Args:
        texts: To be read.
        tokenizer: Of transformers (``sparsedistill.teacher.checkpoint.load_tokenizer``). Its
            special tokens are left out: they are the same in all texts.
        max_length: Tokens of a text that are kept, the first ones.
    """
    parts = []
    for start in range(0, len(texts), _TOKENIZE_ROWS):
        with quiet_transformers():
            found = tokenizer(
                list(texts[start : start + _TOKENIZE_ROWS]),
                add_special_tokens=False,
                truncation=True,
                max_length=max_length,
                return_attention_mask=False,
            )["input_ids"]
        lengths = np.array([len(ids) for ids in found], np.int64)
        rows = np.fromiter((row for ids in found for row in ids), np.int32, int(lengths.sum()))
        parts.append(Bags(rows, np.concatenate([[0], np.cumsum(lengths)])))
    return Bags.concat(parts)


def teacher_embeddings(name: Path | str, *, revision: str | None = None) -> npt.NDArray[np.float32]:
    """Return a fine-tuned teacher's embeddings of its tokens, float32 [tokens, width].

    Raises:
        TeacherError: transformers cannot read it.
    """
    weights = load_model(name, revision=revision).get_input_embeddings().weight
    embeddings: npt.NDArray[np.float32] = weights.detach().float().numpy()
    return embeddings
