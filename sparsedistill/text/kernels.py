"""The compiled loops over text: UTF-8 bytes to lowered tokens and their hashes.

`oracle.py` says in plain Python what they compute. They work on the arrays of a `TextBuffer`, make
no Python object and hold no lock. Counting (`partitions.py`) and looking up (`ngram_index.py`) go
on from the hashes of the tokens, one block of rows at a time, while those lie in the cache.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sparsedistill.jit import kernel
from sparsedistill.text import oracle, unicode
from sparsedistill.text.buffers import frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.text.ngram_spec import TokenizerName

    Int = int | np.int64

# Numba makes a float of uint64 with int64, so everything that meets a hash is uint64.
LENGTH = np.uint64(oracle.LENGTH)
COMBINE = np.uint64(oracle.COMBINE)
FINAL_1 = np.uint64(oracle.FINAL_1)
FINAL_2 = np.uint64(oracle.FINAL_2)
ALL = np.uint64(oracle.MASK)

CODE_MASK = (1 << unicode.DELTA_BITS) - 1
CASED = 1 << unicode.CASED_BIT
IGNORABLE = 1 << unicode.IGNORABLE_BIT
SIGMA, FINAL_SIGMA, SMALL_SIGMA = unicode.SIGMA, unicode.FINAL_SIGMA, unicode.SMALL_SIGMA
DOTTED_I, DOT_ABOVE = unicode.DOTTED_I, unicode.DOT_ABOVE

# What a character does to the token being read.
OUTSIDE, INSIDE, LAST = 0, 1, 2
# In `Rules.ascii`: a byte of a longer character, or no part of a token.
WIDE, SEPARATOR = 0x80, 0xFF
SPACE = 0x20


class Rules(NamedTuple):
    """A tokeniser as the kernels take it.

    Attributes:
        ascii: uint8[256], the lowered byte, or `SEPARATOR`; `WIDE` for what is not ASCII.
        pages: uint16[4352] and
        entries: uint32[n, 256] of the Unicode table.
        bit: Which flag of an entry tells token characters from others, and
        inside: its value inside a token.
        shortest: Characters in the shortest token, and
        longest: in the longest.
    """

    ascii: NDArray[np.uint8]
    pages: NDArray[np.uint16]
    entries: NDArray[np.uint32]
    bit: int
    inside: int
    shortest: int
    longest: int


class Scratch(NamedTuple):
    """Room for one row's tokens; a token's bytes begin at a multiple of 8.

    Attributes:
        lowered: uint8, and
        words: the same memory as uint64.
        begins: int64[tokens], where each token begins in `lowered`, and
        ends: int64[tokens], where it ends.
        hashes: uint64[tokens].
    """

    lowered: NDArray[np.uint8]
    words: NDArray[np.uint64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    hashes: NDArray[np.uint64]


@cache
def rules(tokenizer: TokenizerName) -> Rules:
    """The rules of a tokeniser by name."""
    table = unicode.shipped_table()
    bit, inside = {
        "word": (unicode.WORD_BIT, 1),
        "whitespace": (unicode.SPACE_BIT, 0),
        "character": (unicode.WORD_BIT, 1),
    }[tokenizer]
    first = table.entries[table.pages[0], :128]
    lower = (np.arange(128) + first) & CODE_MASK
    ascii_bytes = np.where(first >> bit & 1 == inside, lower, SEPARATOR)
    return Rules(
        ascii=frozen(np.concatenate([ascii_bytes, np.full(128, WIDE)]), np.uint8),
        pages=frozen(table.pages, np.uint16),
        entries=frozen(table.entries, np.uint32),
        bit=bit,
        inside=inside,
        shortest=2 if tokenizer == "word" else 1,
        longest=1 if tokenizer == "character" else 1 << 62,
    )


@kernel
def finalise(value: np.uint64) -> np.uint64:
    """See `oracle.finalise`."""
    value = (value ^ (value >> np.uint64(30))) * FINAL_1
    value = (value ^ (value >> np.uint64(27))) * FINAL_2
    return value ^ (value >> np.uint64(31))


@kernel
def combine(ngram: np.uint64, token: np.uint64) -> np.uint64:
    """The hash of an n-gram one token longer."""
    return finalise(ngram * COMBINE + token)


@kernel
def hash_token(words: NDArray[np.uint64], begin: Int, end: Int) -> np.uint64:
    """The hash of a token whose bytes begin on a word; what follows its end is masked."""
    result = np.uint64(end - begin) * LENGTH
    at = begin >> 3
    left = end - begin
    while left > 8:
        result = finalise(result ^ words[at])
        at += 1
        left -= 8
    if left > 0:
        result = finalise(result ^ (words[at] & (ALL >> np.uint64(64 - 8 * left))))
    return result


@kernel
def hash_short(word: np.uint64, size: Int) -> np.uint64:
    """The hash of a token of 1 to 8 bytes, from these bytes; see `hash_token`."""
    return finalise((np.uint64(size) * LENGTH) ^ word)


@kernel
def decode(data: NDArray[np.uint8], at: Int, stop: Int) -> tuple[np.int64, Int]:
    """The code point at `at` and where the next begins; -1 for bytes that are no UTF-8."""
    lead = np.int64(data[at])
    if lead < 0x80:
        return lead, at + 1
    if lead >= 0xF0:
        size, code = 4, lead & 0x07
    elif lead >= 0xE0:
        size, code = 3, lead & 0x0F
    else:
        size, code = 2, lead & 0x1F
    if lead < 0xC0 or at + size > stop:
        return np.int64(-1), at + 1
    for i in range(at + 1, at + size):
        code = (code << 6) | np.int64(data[i] & 0x3F)
    if code > 0x10FFFF:
        return np.int64(-1), at + 1
    return code, at + size


@kernel
def encode(code: Int, lowered: NDArray[np.uint8], at: Int) -> Int:
    """Write a code point at `at`; returns where the next goes."""
    if code < 0x80:
        lowered[at] = code
        return at + 1
    if code < 0x800:
        lowered[at] = 0xC0 | code >> 6
        lowered[at + 1] = 0x80 | code & 0x3F
        return at + 2
    if code < 0x10000:
        lowered[at] = 0xE0 | code >> 12
        lowered[at + 1] = 0x80 | code >> 6 & 0x3F
        lowered[at + 2] = 0x80 | code & 0x3F
        return at + 3
    lowered[at] = 0xF0 | code >> 18
    lowered[at + 1] = 0x80 | code >> 12 & 0x3F
    lowered[at + 2] = 0x80 | code >> 6 & 0x3F
    lowered[at + 3] = 0x80 | code & 0x3F
    return at + 4


@kernel
def entry(code: Int, rules: Rules) -> np.int64:
    """The entry of a code point in the Unicode table; 0 for -1."""
    if code < 0:
        return np.int64(0)
    return np.int64(rules.entries[rules.pages[code >> 8], code & 0xFF])


@kernel
def ends_word(data: NDArray[np.uint8], start: Int, stop: Int, at: Int, rules: Rules) -> bool:
    """Whether the capital sigma at `at` is a final one, as CPython's `str.lower` decides it.

    Neither walk passes another sigma (it is cased), so all walks of a row are linear together.
    """
    cased = np.int64(0)
    i = at
    while i > start:
        i -= 1
        while i > start and data[i] & 0xC0 == 0x80:
            i -= 1
        code, _ = decode(data, i, stop)
        found = entry(code, rules)
        if not found & IGNORABLE:
            cased = found & CASED
            break
    if not cased:
        return False
    i = at + 2
    while i < stop:
        code, i = decode(data, i, stop)
        found = entry(code, rules)
        if not found & IGNORABLE:
            return bool(found & CASED == 0)
    return True


@kernel
def lower_wide(
    data: NDArray[np.uint8],
    bounds: tuple[Int, Int],
    at: Int,
    rules: Rules,
    out: tuple[Scratch, Int],
) -> tuple[int, Int, Int]:
    """Lower the character at `at`, which is not ASCII, into the scratch.

    Args:
        data: Text bytes.
        bounds: Where the row starts and stops.
        at: Where the character begins.
        rules: The tokeniser.
        out: The scratch, and where in `lowered` to write.

    Returns:
        What it does to the token; where the next character begins; where to write next.
    """
    scratch, write = out
    code, after = decode(data, at, bounds[1])
    found = entry(code, rules)
    if code < 0 or (found >> rules.bit) & 1 != rules.inside:
        return OUTSIDE, after, write
    lower: Int = (code + found) & CODE_MASK
    if code == SIGMA and ends_word(data, bounds[0], bounds[1], at, rules):
        lower = FINAL_SIGMA
    write = encode(lower, scratch.lowered, write)
    if code != DOTTED_I:
        return INSIDE, after, write
    if (entry(DOT_ABOVE, rules) >> rules.bit) & 1 != rules.inside:
        return LAST, after, write
    return INSIDE, after, encode(DOT_ABOVE, scratch.lowered, write)


@kernel
def tokenise(data: NDArray[np.uint8], start: Int, stop: Int, rules: Rules, scratch: Scratch) -> int:
    """Fill the scratch with the tokens of one row; returns how many."""
    lowered = scratch.lowered
    tokens = 0
    write: Int = 0
    at: Int = start
    begin: Int = 0
    characters: Int = 0
    # The bytes of a short ASCII token, so that its hash need not wait for them to reach memory.
    word = np.uint64(0)
    wide = False
    while at <= stop:
        # The common case first: a run of ASCII characters inside a token.
        first = at
        limit = min(stop, at + rules.longest - characters)
        while at < limit:
            low = rules.ascii[data[at]]
            if low >= WIDE:
                break
            lowered[write] = low
            word |= np.uint64(low) << np.uint64((write & 7) << 3)
            write += 1
            at += 1
        characters += at - first
        if characters < rules.longest:
            if at < stop and data[at] >= 0x80:
                effect, at, write = lower_wide(data, (start, stop), at, rules, (scratch, write))
                characters += effect != OUTSIDE
                wide = True
                if effect == INSIDE and characters < rules.longest:
                    continue
            else:
                at += 1
        if characters >= rules.shortest:
            scratch.begins[tokens] = begin
            scratch.ends[tokens] = write
            if wide or write - begin > 8:
                scratch.hashes[tokens] = hash_token(scratch.words, begin, write)
            else:
                scratch.hashes[tokens] = hash_short(word, write - begin)
            tokens += 1
            begin = (write + 7) & ~7
        word = np.uint64(0)
        wide = False
        write = begin
        characters = 0
    return tokens


@kernel
def hash_ngrams(
    hashes: NDArray[np.uint64],
    begin: Int,
    until: Int,
    end: Int,
    longest: int,
    ngrams: NDArray[np.uint64],
) -> int:
    """Hash the n-grams of 1 to `longest` tokens that begin at some tokens of a row.

    Args:
        hashes: Of tokens.
        begin: The first of those to begin at, and
        until: where they stop.
        end: Where the row's tokens stop.
        longest: Tokens in the longest n-gram.
        ngrams: For the hashes, by first token, then by length.

    Returns:
        How many were written.
    """
    n = 0
    for first in range(begin, until):
        ngram = hashes[first]
        ngrams[n] = ngram
        n += 1
        for token in range(first + 1, min(end, first + longest)):
            ngram = combine(ngram, hashes[token])
            ngrams[n] = ngram
            n += 1
    return n


@kernel
def make_scratch(offsets: NDArray[np.int64], start: int, stop: int) -> Scratch:
    """Scratch for the longest of the rows `start` to `stop`.

    Memory that no row needs is never touched, so the generous bounds cost nothing: a token is at
    least one byte, and in `lowered` takes at most 8 for each of its own.
    """
    longest = 0
    for row in range(start, stop):
        longest = max(longest, offsets[row + 1] - offsets[row])
    words = np.empty(longest + 2, np.uint64)
    return Scratch(
        words.view(np.uint8),
        words,
        np.empty(longest + 1, np.int64),
        np.empty(longest + 1, np.int64),
        np.empty(longest + 1, np.uint64),
    )


@kernel
def token_rows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rules: Rules,
    hashes: NDArray[np.uint64],
    ends: NDArray[np.int64],
) -> None:
    """Hash the tokens of all rows, end to end; `ends[r + 1]` is where those of row `r` end."""
    rows = len(offsets) - 1
    scratch = make_scratch(offsets, 0, rows)
    ends[0] = 0
    for row in range(rows):
        tokens = tokenise(data, offsets[row], offsets[row + 1], rules, scratch)
        first = ends[row]
        hashes[first : first + tokens] = scratch.hashes[:tokens]
        ends[row + 1] = first + tokens
