"""From texts to what the model reads: token ids by row, cut to its length or into windows.

Rows lie behind one another in flat arrays: as lists of Python integers they would take ten times
the memory. Truncation is the tokenizer's own, which keeps the special end token.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparsedistill.errors import TeacherError
from sparsedistill.teacher.batching import stretches
from sparsedistill.text.buffers import TextBuffer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    Inputs = dict[str, npt.NDArray[np.int64]]

LongTexts = Literal["truncate", "windows"]

LONGEST = 512
"""Tokens that are read at once where nobody says how many."""

NO_TOKENS = "has no tokens"

# As Python integers, tokens take much room.
_ROWS_AT_A_TIME = 4096
_SIZE_AT_A_TIME = 4 << 20


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the model reads of some texts: one piece a text, or one a window of it.

    Attributes:
        inputs: The model's inputs by name, piece after piece, int32 [tokens].
        offsets: Where each piece begins, and the end, int64 [pieces + 1].
        rows: Which text each piece is of, ascending, int64 [pieces].
        failures: Texts that could not be cut into tokens, and why.
    """

    inputs: Mapping[str, npt.NDArray[np.int32]]
    offsets: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    failures: Mapping[int, str] = field(default_factory=dict)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of every piece, int64 [pieces]."""
        return np.diff(self.offsets)

    def checksum(self, batch: npt.NDArray[np.int64]) -> int:
        """Return a checksum of 32 bits of some pieces: whose they are, and what is read of them."""
        found = zlib.crc32(self.rows[batch].tobytes())
        for piece in batch:
            part = slice(self.offsets[piece], self.offsets[piece + 1])
            found = zlib.crc32(self.inputs["input_ids"][part].tobytes(), found)
        return found


class Encoder:
    """A tokenizer, and how much of a text the model reads.

    Args:
        tokenizer: Of transformers.
        accepted: Names of the inputs that the model takes; others are left out.
        longest: Tokens of a piece at most, special ones among them.
        long_texts: ``truncate`` cuts the end off a longer text; ``windows`` makes pieces of it.
        overlap: Tokens that a window shares with the one before.

    Raises:
        TeacherError: Windows are asked for, and the tokenizer is a slow one or overlap too large.
    """

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401
        *,
        accepted: Iterable[str],
        longest: int,
        long_texts: LongTexts = "truncate",
        overlap: int = 0,
    ) -> None:
        self._tokenizer = tokenizer
        self._accepted = frozenset(accepted)
        self._how: dict[str, Any] = {"truncation": True, "max_length": longest}
        if long_texts == "windows":
            if not tokenizer.is_fast:
                raise TeacherError(
                    'long_texts = "windows" needs a fast tokenizer (tokenizer.json), and the '
                    'teacher\'s is none; set long_texts = "truncate"'
                )
            if overlap >= longest - tokenizer.num_special_tokens_to_add():
                raise TeacherError(
                    f"windows of {longest} tokens cannot overlap by {overlap}; set a smaller "
                    "[teacher] overlap"
                )
            self._how |= {"return_overflowing_tokens": True, "stride": overlap}

    def encode(self, texts: Sequence[str] | TextBuffer) -> Pieces:
        """Return the pieces of some texts; a text that fails has none, and its reason is kept."""
        parts = [
            self._part(list(texts[start:stop]), start)
            for start, stop in stretches(
                text_sizes(texts), rows=_ROWS_AT_A_TIME, size=_SIZE_AT_A_TIME
            )
        ]
        return _joined(parts or [self._part([], 0)])

    def _part(self, texts: Sequence[str], first: int) -> Pieces:
        try:
            return self._encoded(texts, first) if texts else _nothing()
        except Exception as error:  # a tokenizer may raise anything
            if len(texts) == 1:
                reason = f"cannot be cut into tokens ({type(error).__name__}: {error!s:.200})"
                return _nothing({first: reason})
        return _joined([self._part([text], first + row) for row, text in enumerate(texts)])

    def _encoded(self, texts: Sequence[str], first: int) -> Pieces:
        encoded = self._tokenizer(list(texts), return_attention_mask=False, **self._how)
        rows = encoded.pop("overflow_to_sample_mapping", range(len(texts)))
        of = np.array(rows, np.int64) + first
        lengths = np.array([len(ids) for ids in encoded["input_ids"]], np.int64)
        return Pieces(
            inputs={
                name: np.array([token for piece in pieces for token in piece], np.int32)
                for name, pieces in encoded.items()
                if name in self._accepted
            },
            offsets=np.cumsum([0, *lengths[lengths > 0]], dtype=np.int64),
            rows=of[lengths > 0],
            failures=dict.fromkeys(of[lengths == 0].tolist(), NO_TOKENS),
        )


class Padding:
    """Rectangles out of pieces, as the tokenizer would pad them.

    Args:
        tokenizer: Says with what, and on which side.
    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401
        self._left = tokenizer.padding_side == "left"
        self._value = {
            "input_ids": int(tokenizer.pad_token_id),
            "token_type_ids": int(tokenizer.pad_token_type_id),
        }

    def rectangle(
        self, pieces: Pieces, batch: npt.NDArray[np.int64]
    ) -> tuple[Inputs, npt.NDArray[np.int64] | None]:
        """Return a batch's inputs by name, int64 [pieces, tokens], and its attention mask.

        The mask is None where no piece is shorter than another.
        """
        lengths = pieces.lengths[batch]
        longest = int(lengths.max())
        columns = np.arange(longest)
        if self._left:
            columns = columns - (longest - lengths[:, None])
        else:
            columns = np.broadcast_to(columns, (len(batch), longest))
        there = (columns >= 0) & (columns < lengths[:, None])
        places = np.where(there, pieces.offsets[batch, None] + columns, 0)
        inputs = {
            name: np.where(there, values[places], self._value.get(name, 0)).astype(np.int64)
            for name, values in pieces.inputs.items()
        }
        return inputs, None if there.all() else there.astype(np.int64)


def text_sizes(texts: Sequence[str] | TextBuffer) -> Sequence[int]:
    """Return about how large each text is: bytes in a buffer, characters in a list."""
    if isinstance(texts, TextBuffer):
        return np.diff(texts.offsets).tolist()  # type: ignore[no-any-return]
    return [len(text) for text in texts]


def longest_input(tokenizer: Any, model: Any, max_length: int) -> int:  # noqa: ANN401
    """Return how many tokens of a text are read: what is asked for, or what the model can.

    A table of positions with a padding row (RoBERTa's) begins to count behind that row, of which
    the model's configuration says nothing.
    """
    from torch import nn

    tables = [
        module
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    room = [t.num_embeddings - (0 if t.padding_idx is None else t.padding_idx + 1) for t in tables]
    config = getattr(model, "config", None)
    stated = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    room += [int(limit) for limit in stated if limit and limit > 0]
    return min(max_length, int(tokenizer.model_max_length), *room)


def _nothing(failures: Mapping[int, str] | None = None) -> Pieces:
    return Pieces(
        inputs={"input_ids": np.empty(0, np.int32)},
        offsets=np.zeros(1, np.int64),
        rows=np.empty(0, np.int64),
        failures=failures or {},
    )


def _joined(parts: Sequence[Pieces]) -> Pieces:
    full = [part for part in parts if len(part.rows)] or parts[:1]
    return Pieces(
        inputs={
            name: np.concatenate([part.inputs[name] for part in full]) for name in full[0].inputs
        },
        offsets=np.cumsum([0, *np.concatenate([part.lengths for part in full])], dtype=np.int64),
        rows=np.concatenate([part.rows for part in full]),
        failures={row: why for part in parts for row, why in part.failures.items()},
    )
