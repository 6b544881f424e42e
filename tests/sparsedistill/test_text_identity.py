"""Digests: a function of the bytes alone, the same for ever, different for different texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.identity import text_digests, text_ids

LANES = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)
MASK = 2**64 - 1
# Stored in every shard: a change of these breaks the tie between texts, logits and features.
GOLDEN = [
    ("", 0x805821F2FA6849C4, 0x2B37B90476034575),
    ("a", 0x006A10497F709D36, 0xC7E9724CC79BDA56),
    ("a\x00", 0xED952331F6B519C6, 0x0F99EB5E7002BD5F),
    ("hello, world", 0x5172C7A08C54FDAF, 0xC901272811CF7B3E),
    ("Grüße aus Zürich, 你好 🙂", 0xE05D91587E7C52E7, 0x6B47E30729728E9D),
]


def slow_digest(text):
    data, lanes = text.encode(), []
    for lane in LANES:
        value = len(data) ^ lane
        for at in range(0, max(len(data), 1), 8):
            value ^= int.from_bytes(data[at : at + 8], "little")
            value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
            value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
            value = (value ^ value >> 31) + lane & MASK
        lanes.append(value)
    return lanes


def digests(texts):
    return text_digests(TextBuffer.from_strings(texts)).tolist()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(max_size=40), max_size=6))
def test_digests_are_those_of_the_slow_oracle(texts):
    assert digests(texts) == [slow_digest(text) for text in texts]


def test_digests_never_change():
    assert digests([text for text, *_ in GOLDEN]) == [list(lanes) for _, *lanes in GOLDEN]


def test_a_digest_is_of_the_bytes_and_not_of_what_lies_around_them():
    texts = TextBuffer.from_strings(["x", "a common text", "a common text", "y"])
    whole, part = text_digests(texts), text_digests(texts.slice(1, 3))
    assert (part[0] == part[1]).all()
    np.testing.assert_array_equal(part, whole[1:3])


def test_an_id_is_the_first_half_of_the_digest():
    texts = TextBuffer.from_strings([text for text, *_ in GOLDEN])
    np.testing.assert_array_equal(text_ids(texts), text_digests(texts)[:, 0])
    assert len(text_ids(TextBuffer.from_strings([]))) == 0


def test_zero_bytes_at_the_end_are_not_lost_in_the_filling_of_the_last_word():
    assert len({tuple(d) for d in digests(["\x00" * n for n in range(20)])}) == 20


def test_generated_texts_do_not_collide_even_in_half_a_digest():
    texts = [f"{w} number {i} of {i % 7} {w}" for i in range(50_000) for w in ("A", "a", "b", "ab")]
    found = text_digests(TextBuffer.from_strings(texts))
    assert len(np.unique(found[:, 0])) == len(np.unique(found[:, 1])) == len(texts) == 200_000


@pytest.mark.parametrize(("near", "far"), [(4, 11), (3, 10), (0, 7), (4, 12)])
def test_a_change_of_one_word_is_not_undone_by_a_change_of_the_next(near, far):
    # With one multiplication and one shift a word, a quarter of such pairs had equal digests.
    rng = np.random.default_rng(0)
    for _ in range(300):
        first = rng.integers(ord("a"), ord("z"), 24).astype(np.uint8)
        first[[7, 15]] = ord("1")
        second = first.copy()
        second[[7, 15]] = ord("q")
        second[8 + near] ^= 2
        one, other = digests([first.tobytes().decode(), second.tobytes().decode()])
        assert one[0] != other[0]
        assert one[1] != other[1]


def test_every_bit_of_a_text_moves_about_half_the_bits_of_both_lanes():
    base = bytes(range(65, 65 + 20))
    flipped = [bytearray(base) for _ in range(20 * 7)]
    for number, text in enumerate(flipped):
        text[number // 7] ^= 1 << number % 7
    found = text_digests(
        TextBuffer.from_strings([base.decode(), *(bytes(f).decode() for f in flipped)])
    )
    moved = np.bitwise_count(found[1:] ^ found[0])
    assert 31 < moved.mean() < 33
    assert moved.min() > 12
