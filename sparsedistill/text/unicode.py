"""What lowering and tokenising need to know of each code point, as one small table.

The table is read off the running Python once (`build_table`) and shipped with the library, so that
a model answers the same under every Python version. Two properties tell whether a capital sigma
ends a word: CPython skips the characters that are Case_Ignorable and asks whether the next one is
Cased. Python names neither, so both are probed through `str.lower` itself.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zstandard

if TYPE_CHECKING:
    from numpy.typing import NDArray

# An entry: bits 0 to 20 hold (lower code point - code point) modulo 2**21, then the flags. The
# difference, not the code point: pages that change nothing are then alike and stored once.
DELTA_BITS = 21
WORD_BIT, SPACE_BIT, CASED_BIT, IGNORABLE_BIT = 21, 22, 23, 24

PAGE = 256
PAGES = (sys.maxunicode + 1) // PAGE

SIGMA, FINAL_SIGMA, SMALL_SIGMA = 0x3A3, 0x3C2, 0x3C3
# The one code point whose lower form has two: "i" and a combining dot, no word character.
DOTTED_I, DOT_ABOVE = 0x130, 0x307

SHIPPED = Path(__file__).with_name("unicode.zst")


@dataclass(frozen=True, slots=True, eq=False)
class UnicodeTable:
    """Properties of code point `c`: `entries[pages[c // 256], c % 256]`.

    Attributes:
        version: Of the Unicode character database.
        pages: uint16[4352].
        entries: uint32[distinct pages, 256].
    """

    version: str
    pages: NDArray[np.uint16]
    entries: NDArray[np.uint32]


def build_table() -> UnicodeTable:
    """Read the table off the running Python (about two seconds)."""
    flat = np.fromiter(map(_entry, range(sys.maxunicode + 1)), np.uint32, sys.maxunicode + 1)
    entries, pages = np.unique(flat.reshape(PAGES, PAGE), axis=0, return_inverse=True)
    return UnicodeTable(unicodedata.unidata_version, pages.reshape(-1).astype(np.uint16), entries)


def _entry(code: int) -> int:
    character = chr(code)
    lower = character.lower()
    if len(lower) > 1 and code != DOTTED_I:
        raise NotImplementedError(f"U+{code:04X} has a lower form of {len(lower)} code points")
    # Lowering "A<character>Σ" and "AΣ<character>": a final sigma is one after a cased character
    # and not before one, ignorable characters left out.
    cased = f"AΣ{character}".lower()[1] == chr(SMALL_SIGMA)
    neither = f"A{character}Σ".lower()[-1] == chr(SMALL_SIGMA)
    return (
        (ord(lower[0]) - code) % (1 << DELTA_BITS)
        | (character.isalnum() or character == "_") << WORD_BIT
        | character.isspace() << SPACE_BIT
        | cased << CASED_BIT
        | (not cased and not neither) << IGNORABLE_BIT
    )


def write_table(table: UnicodeTable, path: Path = SHIPPED) -> None:
    """Write the file that `shipped_table` reads; run when the Unicode version is to change."""
    header = {"unicode": table.version, "pages": len(table.entries)}
    content = json.dumps(header).encode() + b"\n" + table.pages.tobytes() + table.entries.tobytes()
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(content))


@cache
def shipped_table() -> UnicodeTable:
    """The table that came with the library."""
    content = zstandard.ZstdDecompressor().decompress(SHIPPED.read_bytes())
    line, _, arrays = content.partition(b"\n")
    header = json.loads(line)
    pages = np.frombuffer(arrays, "<u2", PAGES)
    entries = np.frombuffer(arrays, "<u4", offset=pages.nbytes).reshape(header["pages"], PAGE)
    return UnicodeTable(header["unicode"], pages, entries)
