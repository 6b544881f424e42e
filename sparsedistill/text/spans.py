"""Where the tokens of a text stand in it, as characters: what a page needs to mark them.

The kernels work on lowered bytes, and lowering moves positions: the dotted capital I becomes two
characters, of which the second is part of no word. So the tokens are found again, in the text as
it is, from the same Unicode table and by the same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.text import kernels
from sparsedistill.text.unicode import DOT_ABOVE, DOTTED_I

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.text.kernels import Rules
    from sparsedistill.text.ngram_spec import NgramSpec


def token_spans(text: str, spec: NgramSpec) -> NDArray[np.int64]:
    """Where each token begins and ends in a text, int64[tokens, 2], in characters.

    A character of which only a part is in the token (the dotted capital I) is in the span.
    """
    rules = kernels.rules(spec.tokenizer)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)
    inside = _inside(codes, rules)
    # After its "i" comes a dot; where that is no part of tokens, it ends the token.
    dot = bool(_inside(np.array([DOT_ABOVE]), rules)[0])
    last = np.zeros(len(codes), np.bool_) if dot else codes == DOTTED_I
    if rules.longest == 1:
        last = inside
    starts = np.flatnonzero(inside & ~_shifted(inside & ~last, 1))
    ends = np.flatnonzero(inside & (last | ~_shifted(inside, -1))) + 1
    long_enough = ends - starts >= rules.shortest
    return np.stack([starts, ends], axis=1)[long_enough]


def _inside(codes: NDArray[np.int64], rules: Rules) -> NDArray[np.bool_]:
    entries = rules.entries[rules.pages[codes >> 8], codes & 0xFF]
    inside: NDArray[np.bool_] = (entries >> np.uint32(rules.bit)) & np.uint32(1) == rules.inside
    return inside


def _shifted(flags: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The flag of the character before (1) or after (-1); False where there is none."""
    moved = np.roll(flags, by)
    if len(moved):
        moved[0 if by == 1 else -1] = False
    return moved
