"""Which texts are alike: letters against an oracle, and what a deduplicator makes of it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.deduplication import Deduplicator, Kept
from sparsedistill.text.identity import text_digests
from sparsedistill.text.likeness import letters, likeness_digests

# Few words in many clothes, so that texts that are alike turn up by themselves.
words = st.sampled_from(["rose", "Rose", "soil", "Straße", "STRASSE", "東京", "naïve"])
signs = st.text("0123456789 \t.,!?-…·£€", max_size=4)
dressed = st.lists(st.tuples(words, signs), max_size=3).map(
    lambda parts: "".join(word + sign for word, sign in parts)
)
texts_of_a_corpus = st.lists(st.one_of(dressed, signs).filter(lambda t: t != ""), max_size=14)


def alike(one: str, other: str) -> bool:
    first, second = likeness_digests([one, other])
    return bool((first == second).all())


def slow_letters(text: str) -> str:
    """Category by category, without the table."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(
        c
        for c in folded
        if unicodedata.category(c) in {"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc"}
        and not unicodedata.name(c, "").startswith("VARIATION SELECTOR")
    )


@given(st.text())
def test_letters_are_those_of_the_oracle(text: str):
    assert letters(text) == slow_letters(text)


@given(st.text(), signs.filter(bool))
def test_signs_and_digits_between_letters_change_nothing(text: str, sign: str):
    assert letters(sign.join(text)) == letters("".join(f" {c}" for c in text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is AI?", "what is ai"),
        ("Top 10 tips!", "top 7 tips"),
        ("  a  b ", "ab"),
        ("ﬁne", "FINE"),
        ("Straße", "STRASSE"),
        ("caf\u00e9", "CAFE\u0301"),
        ("good ❤\ufe0f", "good"),
        ("ＦＵＬＬ", "full"),
    ],
)
def test_texts_that_differ_in_case_and_signs_are_alike(one: str, other: str):
    assert alike(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("not bad", "bad"),
        ("12", "13"),
        (":-)", ":-("),
        ("1\ufe0f\u20e3", "2\ufe0f\u20e3"),
        ("की", "का"),  # one letter, another vowel sign
        ("naïve", "naive"),
        ("...", ""),
    ],
)
def test_texts_of_other_letters_or_of_none_are_not_alike(one: str, other: str):
    assert not alike(one, other)


def keep(directory: Path, texts: list[str], held_out: list[str]) -> Kept:
    """What stays of texts, as the corpus stage asks for it."""
    (directory / "alike").mkdir()
    with Deduplicator(directory) as equal, Deduplicator(directory / "alike") as near:
        equal.add(text_digests(TextBuffer.from_strings(texts)))
        near.add(likeness_digests(texts))
        kept = equal.decide(text_digests(TextBuffer.from_strings(held_out)))
        return kept.without_alike(near.decide(likeness_digests(held_out)))


def stands_for(text: str) -> str:
    return letters(text) or text


@settings(deadline=None, max_examples=60)
@given(texts_of_a_corpus, st.lists(dressed, max_size=2))
def test_the_first_of_alike_texts_stays_and_none_alike_to_what_is_held_out(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], held_out: list[str]
):
    kept = keep(tmp_path_factory.mktemp("rows"), texts, held_out)
    seen, mask = {stands_for(text) for text in held_out}, []
    for text in texts:
        mask.append(stands_for(text) not in seen)
        seen.add(stands_for(text))
    assert kept.mask.tolist() == mask
    assert sum(mask) + kept.duplicates + kept.held_out + kept.near_duplicates == len(texts)
    distinct = set(texts)
    assert kept.duplicates == len(texts) - len(distinct)
    assert kept.held_out == len(distinct & set(held_out))


@settings(deadline=None, max_examples=30)
@given(texts_of_a_corpus, texts_of_a_corpus)
def test_texts_that_are_added_change_nothing_of_those_before(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], more: list[str]
):
    """A corpus that grew keeps its shards."""
    before = keep(tmp_path_factory.mktemp("before"), texts, [])
    after = keep(tmp_path_factory.mktemp("after"), texts + more, [])
    np.testing.assert_array_equal(after.mask[: len(texts)], before.mask)
