"""What two texts share that differ in case, punctuation, digits and spaces alone: their letters.

Letters are those of Unicode with their marks (the vowels of Devanagari are marks), after NFKC and
case folding. A text without any letter is like no other text: it stands for itself.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.identity import text_digests

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

_LETTERS_AND_MARKS = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc"})
# Marks that choose how a character is drawn: most stand after symbols.
_VARIATION_SELECTORS = frozenset({*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)})


class _OnlyLetters(dict[int, int | None]):
    """For ``str.translate``: a code point that is asked for first is looked up, then known."""

    def __missing__(self, code: int) -> int | None:
        keep = unicodedata.category(chr(code)) in _LETTERS_AND_MARKS
        self[code] = code if keep and code not in _VARIATION_SELECTORS else None
        return self[code]


_ONLY_LETTERS = _OnlyLetters()


def letters(text: str) -> str:
    """Return the letters of a text, case folded and without what lies between them."""
    if text.isascii():
        return text.lower().translate(_ONLY_LETTERS)
    folded = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", folded).translate(_ONLY_LETTERS)


def likeness_digests(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return digests uint64 [rows, 2] that are equal where texts are alike.

    Of a text without letters it is the digest of the text itself, which no letters have.
    """
    found = [letters(text) for text in texts]
    return text_digests(
        TextBuffer.from_strings(
            [
                alike if any(map(str.isalpha, alike)) else text
                for alike, text in zip(found, texts, strict=True)
            ]
        )
    )
