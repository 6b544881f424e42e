"""Which script a text is written in: that of most of its letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.jit import kernel
from sparsedistill.text.buffers import frozen
from sparsedistill.text.kernels import decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.text.buffers import TextBuffer

SCRIPTS = (
    "none", "latin", "greek", "cyrillic", "hebrew", "arabic", "indic", "thai", "hangul", "kana",
    "han", "emoji", "other",
)  # fmt: skip
"""What `dominant_scripts` tells apart; "none" is a text without a letter."""

# Blocks of Unicode by their first code point, up to the next: coarse, and made for counting.
_BLOCKS = (
    (0x0, "none"), (0x41, "latin"), (0x5B, "none"), (0x61, "latin"), (0x7B, "none"),
    (0xAA, "latin"), (0xAB, "none"), (0xBA, "latin"), (0xBB, "none"), (0xC0, "latin"),
    (0xD7, "none"), (0xD8, "latin"), (0xF7, "none"), (0xF8, "latin"), (0x2B0, "none"),
    (0x370, "greek"), (0x400, "cyrillic"), (0x530, "other"), (0x590, "hebrew"), (0x600, "arabic"),
    (0x700, "other"), (0x750, "arabic"), (0x780, "other"), (0x870, "arabic"), (0x900, "indic"),
    (0xE00, "thai"), (0xE80, "other"), (0x1100, "hangul"), (0x1200, "other"), (0x1C80, "cyrillic"),
    (0x1C90, "other"), (0x1D00, "latin"), (0x1DC0, "none"), (0x1E00, "latin"), (0x1F00, "greek"),
    (0x2000, "none"), (0x2600, "emoji"), (0x27C0, "none"), (0x2C00, "other"), (0x2C60, "latin"),
    (0x2C80, "other"), (0x2DE0, "cyrillic"), (0x2E00, "none"), (0x2E80, "han"), (0x3000, "none"),
    (0x3005, "han"), (0x3008, "none"), (0x3040, "kana"), (0x3100, "other"), (0x3130, "hangul"),
    (0x3190, "other"), (0x31F0, "kana"), (0x3200, "none"), (0x3400, "han"), (0x4DC0, "none"),
    (0x4E00, "han"), (0xA000, "other"), (0xA640, "cyrillic"), (0xA6A0, "other"), (0xA720, "latin"),
    (0xA800, "other"), (0xA8E0, "indic"), (0xA900, "other"), (0xA960, "hangul"), (0xA980, "other"),
    (0xAB30, "latin"), (0xAB70, "other"), (0xAC00, "hangul"), (0xD800, "none"), (0xF900, "han"),
    (0xFB00, "latin"), (0xFB13, "other"), (0xFB1D, "hebrew"), (0xFB50, "arabic"), (0xFE00, "none"),
    (0xFE70, "arabic"), (0xFEFF, "none"), (0xFF21, "latin"), (0xFF3B, "none"), (0xFF41, "latin"),
    (0xFF5B, "none"), (0xFF66, "kana"), (0xFFA0, "hangul"), (0xFFE0, "none"), (0x10000, "other"),
    (0x1F000, "emoji"), (0x1FB00, "none"), (0x20000, "han"), (0x40000, "none"),
)  # fmt: skip
_STARTS = frozen([start for start, _ in _BLOCKS], np.int64)
_NAMES = frozen([SCRIPTS.index(name) for _, name in _BLOCKS], np.int64)


def dominant_scripts(texts: TextBuffer) -> NDArray[np.int64]:
    """The script of most letters of each text, an index of `SCRIPTS`, int64[texts]."""
    found = np.empty(len(texts), np.int64)
    count_letters(texts.data, texts.offsets, _STARTS, _NAMES, found)
    return found


@kernel
def count_letters(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    names: NDArray[np.int64],
    found: NDArray[np.int64],
) -> None:
    """Write the script with the most letters in each row; of two with as many, the first."""
    letters = np.empty(len(starts), np.int64)
    for row in range(len(found)):
        letters[:] = 0
        at, stop = offsets[row], offsets[row + 1]
        while at < stop:
            code, at = decode(data, at, stop)
            if code >= 0:
                letters[names[np.searchsorted(starts, code, side="right") - 1]] += 1
        letters[0] = 0  # what is no letter
        found[row] = letters.argmax()
