"""Which n-grams a text has: the tokeniser and the range of lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from sparsedistill.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

TokenizerName = Literal["word", "whitespace", "character"]

# Each tokeniser is scikit-learn's CountVectorizer(lowercase=True, token_pattern=...) with:
TOKEN_PATTERNS: Mapping[TokenizerName, str] = {
    "word": r"(?u)\b\w\w+\b",
    "whitespace": r"(?u)\S+",
    "character": r"(?u)\w",
}

# Orders are kept in three bits of the selection's sort key.
MAX_ORDER = 7


@dataclass(frozen=True, slots=True)
class NgramSpec:
    """The n-grams of `min_n` to `max_n` tokens of the lowered text, joined by one space.

    Attributes:
        tokenizer: "word" (the paper's: two or more word characters), "whitespace", or "character"
            (each word character by itself, for languages without spaces).
        min_n: Tokens in the shortest n-gram, 1 or more.
        max_n: Tokens in the longest, `MAX_ORDER` or less.
    """

    tokenizer: TokenizerName = "word"
    min_n: int = 1
    max_n: int = 4

    def __post_init__(self) -> None:
        if self.tokenizer not in get_args(TokenizerName):
            known = ", ".join(get_args(TokenizerName))
            raise ConfigError(f"unknown tokenizer {self.tokenizer!r:.60}; there are {known}")
        if not (type(self.min_n) is int and type(self.max_n) is int):
            raise ConfigError(
                f"min_n and max_n are integers, not {self.min_n!r:.40}, {self.max_n!r:.40}"
            )
        if not 1 <= self.min_n <= self.max_n <= MAX_ORDER:
            raise ConfigError(
                f"n-gram lengths {self.min_n!s:.20} to {self.max_n!s:.20}: "
                f"need 1 <= min_n <= max_n <= {MAX_ORDER}"
            )

    def to_json(self) -> dict[str, str | int]:
        """As a JSON object."""
        return {"tokenizer": self.tokenizer, "min_n": self.min_n, "max_n": self.max_n}

    @classmethod
    def from_json(cls, value: object) -> NgramSpec:
        """From `to_json()`.

        Raises:
            ConfigError: Not such an object.
        """
        if not isinstance(value, dict) or set(value) != {"tokenizer", "min_n", "max_n"}:
            raise ConfigError(f"an n-gram spec has tokenizer, min_n and max_n; got {value!r:.80}")
        return cls(value["tokenizer"], value["min_n"], value["max_n"])
