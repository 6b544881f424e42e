"""The readable oracle against scikit-learn, and the kernels against the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from ngram_cases import specs, texts, vectorizer

from sparsedistill.errors import ConfigError
from sparsedistill.text import oracle
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import TOKEN_PATTERNS, NgramSpec
from sparsedistill.text.strings import hash_strings
from sparsedistill.text.tokens import token_hashes


@given(texts, specs)
@settings(deadline=None, max_examples=300)
def test_the_oracle_finds_the_ngrams_that_count_vectorizer_finds(text, spec):
    analyze = vectorizer(spec).build_analyzer()
    assert sorted(oracle.ngrams(text, spec)) == sorted(analyze(text))


@given(texts, specs)
@settings(deadline=None, max_examples=1500)
def test_the_kernels_hash_the_tokens_that_the_oracle_finds(text, spec):
    hashes, ends = token_hashes(TextBuffer.from_strings(["x y", text, "z"]), spec)
    expected = [oracle.token_hash(token) for token in oracle.tokens(text, spec)]
    assert hashes[ends[1] : ends[2]].tolist() == expected


@pytest.mark.parametrize("spec", [NgramSpec(t) for t in TOKEN_PATTERNS], ids=list(TOKEN_PATTERNS))
def test_each_code_point_is_read_as_python_reads_it(spec):
    # Alone, and between cased characters and sigmas, which is where its properties show.
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    rows = [
        " ".join(f"{chr(c)} A{chr(c)}Σ AΣ{chr(c)} Σ{chr(c)}b" for c in codes[at : at + 4096])
        for at in range(0, len(codes), 4096)
    ]
    if spec.tokenizer == "character":
        rows = rows[:8]  # the same table and the same walk: the first 32,768 will do
    hashes, ends = token_hashes(TextBuffer.from_strings(rows), spec)
    # Hashing a million tokens in Python takes minutes: the strings are hashed by the kernel that
    # the next test compares with the oracle.
    expected = TextBuffer.from_strings([t for row in rows for t in oracle.tokens(row, spec)])
    np.testing.assert_array_equal(hashes, hash_strings(expected)[0])
    assert ends[-1] == len(expected)


@given(texts, specs)
@settings(deadline=None, max_examples=300)
def test_hashing_strings_gives_hash_order_and_what_each_begins_with(text, spec):
    ngrams = oracle.ngrams(text, spec)
    hashes, orders, prefixes = hash_strings(TextBuffer.from_strings(ngrams))
    assert hashes.tolist() == [oracle.ngram_hash(ngram) for ngram in ngrams]
    assert orders.tolist() == [ngram.count(" ") + 1 for ngram in ngrams]
    assert sorted(prefixes.tolist()) == sorted(
        oracle.ngram_hash(" ".join(ngram.split(" ")[:n]))
        for ngram in ngrams
        for n in range(1, ngram.count(" ") + 1)
    )


def test_the_definition_of_the_hash_has_not_changed():
    # These numbers are in every saved vocabulary: to change them, change HASH_NAME, too.
    assert oracle.HASH_NAME == "token-words-splitmix-2"
    assert [oracle.ngram_hash(s) for s in ("the", "of the", "straßenbahnen x")] == [
        0xF9B90172A1A5E4AA,
        0x440C652A2C0E0FC4,
        0x42A669A4C684F836,
    ]


def test_differences_in_two_words_of_a_token_do_not_cancel():
    # These two once had one hash, and so had half of all pairs of their pattern.
    assert oracle.token_hash("vooegif1wdv2hec3") != oracle.token_hash("vooegifqwdvrhecs")


def test_each_bit_of_a_token_flips_half_of_the_bits_of_its_hash():
    rng = np.random.default_rng(0)
    flipped = np.zeros(64)
    trials = 0
    for _ in range(200):
        token = bytearray(rng.integers(97, 123, rng.integers(2, 12)).astype(np.uint8).tobytes())
        before = oracle.ngram_hash(token.decode())
        token[rng.integers(len(token))] ^= 1
        after = oracle.ngram_hash(token.decode())
        flipped += [(before ^ after) >> bit & 1 for bit in range(64)]
        trials += 1
    assert 0.35 < (flipped / trials).min() <= (flipped / trials).max() < 0.65


def test_order_of_tokens_and_place_of_spaces_matter_to_the_hash():
    strings = ["ab cd", "cd ab", "abcd", "ab cd ab", "ab ab cd", "abc d"]
    assert len({oracle.ngram_hash(s) for s in strings}) == len(strings)


def test_invalid_utf8_is_read_within_its_row():
    data = np.frombuffer(b"ab\xe4\xb8cd\xff\xf4\x8f", np.uint8)
    buffer = TextBuffer(data, np.array([0, 4, 6, 8, 9]))
    hashes, ends = token_hashes(buffer, NgramSpec())
    assert ends.tolist() == [0, 1, 2, 2, 2]
    assert hashes.tolist() == [oracle.token_hash("ab"), oracle.token_hash("cd")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("words", 1, 4), "unknown tokenizer 'words'"),
        (("word", 0, 4), "0 to 4"),
        (("word", 3, 2), "3 to 2"),
        (("word", 1, 8), "1 to 8"),
        (("word", 1, 2.0), "integers"),
    ],
)
def test_a_spec_that_cannot_work_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        NgramSpec(*arguments)


def test_a_spec_survives_json_and_refuses_what_is_none():
    assert NgramSpec.from_json(NgramSpec("character", 2, 3).to_json()) == NgramSpec(
        "character", 2, 3
    )
    for value in (None, [], {"tokenizer": "word"}, {"tokenizer": [], "min_n": 1, "max_n": 2}):
        with pytest.raises(ConfigError):
            NgramSpec.from_json(value)
