"""The truth about tokens, n-grams and their hashes, in readable Python.

The kernels must equal these functions; the tests see to it. They are slow and are not used on a
corpus.

The hash of an n-gram has 64 bits and is built token by token, so that the n-gram one token longer
costs O(1):

* A token's hash runs over its lowered UTF-8 bytes, taken as little-endian 8-byte words, the last
  filled up with zeros. It starts from the number of bytes (so that the fill cannot be mistaken for
  content); each word is xored in and goes through `finalise`. The whole mixer for each word: a
  weaker step lets a difference in one word be cancelled by one in the next.
* The hash of a one-token n-gram is its token's. A longer one is
  `finalise(hash of all but the last token * COMBINE + hash of the last token)`.

`finalise` is the mixer of splitmix64 (variant 13 of D. Stafford): a bijection in which each input
bit flips each output bit with probability near one half. So both steps are bijections of each of
their arguments, and among n different n-grams the chance of any collision is about n**2 / 2**65:
4e-6 for the 12 million n-grams of 50,000 reviews.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sparsedistill.text.ngram_spec import TOKEN_PATTERNS, NgramSpec

# Names the definition in saved files: whoever changes the definition changes the name.
HASH_NAME = "token-words-splitmix-2"

MASK = (1 << 64) - 1
LENGTH = 0x9E3779B97F4A7C15
COMBINE = 0xFF51AFD7ED558CCD
FINAL_1 = 0xBF58476D1CE4E5B9
FINAL_2 = 0x94D049BB133111EB


def tokens(text: str, spec: NgramSpec) -> list[str]:
    """The tokens of a text: of its lowered form, whatever the pattern finds."""
    return _pattern(spec).findall(text.lower())


def ngrams(text: str, spec: NgramSpec) -> list[str]:
    """The n-grams of a text by position of the first token, then by length."""
    words = tokens(text, spec)
    return [
        " ".join(words[start : start + n])
        for start in range(len(words))
        for n in range(spec.min_n, spec.max_n + 1)
        if start + n <= len(words)
    ]


def ngram_hash(ngram: str) -> int:
    """The hash of an n-gram; tokens never hold a space, so it can be split again."""
    first, *rest = ngram.split(" ")
    result = token_hash(first)
    for token in rest:
        result = finalise((result * COMBINE + token_hash(token)) & MASK)
    return result


def token_hash(token: str) -> int:
    """The hash of one token."""
    data = token.encode("utf-8")
    result = len(data) * LENGTH & MASK
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at : at + 8], "little")
        result = finalise(result ^ word)
    return result


def finalise(value: int) -> int:
    """The mixer of splitmix64, a bijection on 64 bits."""
    value = (value ^ value >> 30) * FINAL_1 & MASK
    value = (value ^ value >> 27) * FINAL_2 & MASK
    return value ^ value >> 31


@lru_cache
def _pattern(spec: NgramSpec) -> re.Pattern[str]:
    return re.compile(TOKEN_PATTERNS[spec.tokenizer])
