"""What tells one text from another: a 128-bit digest of its bytes, the first half of it its id.

Ids tie a text to its logits and features; whole digests find exact duplicates. Both are functions
of the bytes alone, the same on every machine.

A digest is two lanes of 64 bits. A lane starts from the number of bytes and the lane's constant;
each little-endian 8-byte word (the last filled up with zeros) is xored in and mixed with the
finaliser of splitmix64. The whole mixer for every word, because a cheaper step (one multiplication
and one shift) carries a change in a word's top bits to known places, the same in both lanes, where
a change in the next word can undo it: ordinary texts that differ in three letters then collide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.jit import kernel

if TYPE_CHECKING:
    import numpy.typing as npt

    from sparsedistill.text.buffers import TextBuffer

_LANES = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)


@kernel
def _digest_lane(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    lane: np.uint64,
    out: npt.NDArray[np.uint64],
) -> None:
    for row in range(len(out)):
        at, last = offsets[row], offsets[row + 1]
        value = np.uint64(last - at) ^ lane
        # At least one round, so that the ids of empty texts are as mixed as the others.
        while True:
            word = np.uint64(0)
            for k in range(min(8, last - at)):
                word |= np.uint64(data[at + k]) << np.uint64(8 * k)
            value ^= word
            value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
            value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
            # The lane's constant again: zero is a fixed point of the mixer.
            value = (value ^ value >> np.uint64(31)) + lane
            at += 8
            if at >= last:
                break
        out[row] = value


def text_digests(texts: TextBuffer) -> npt.NDArray[np.uint64]:
    """Return the digest of every text, uint64 [rows, 2]."""
    return np.stack([_lane(texts, lane) for lane in _LANES], axis=1)


def text_ids(texts: TextBuffer) -> npt.NDArray[np.uint64]:
    """Return the id of every text, uint64 [rows]: the first half of its digest."""
    return _lane(texts, _LANES[0])


def _lane(texts: TextBuffer, lane: int) -> npt.NDArray[np.uint64]:
    out = np.empty(len(texts), np.uint64)
    _digest_lane(texts.data, texts.offsets, np.uint64(lane), out)
    return out
