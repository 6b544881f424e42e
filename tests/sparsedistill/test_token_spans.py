"""Where tokens stand in a text: the same tokens, in the same places, as those that are counted."""

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import TOKEN_PATTERNS, NgramSpec
from sparsedistill.text.spans import token_spans
from sparsedistill.text.tokens import token_hashes

TOKENIZERS = ["word", "whitespace", "character"]
# Letters that lowering changes in length, bytes or by what follows; marks; spaces; other planes.
TRICKY = "aAbİIıŠßΣσς'ẞ𐐀𐐨東京é̇_0 \t\n\r\u2028\u00a0.,-Å🙂\u200d\ufeff"


def spans_by_lowering(text, spec):
    """The pattern over the lowered text, and back through where each character came from."""
    origin = [i for i, character in enumerate(text) for _ in character.lower()]
    found = re.finditer(TOKEN_PATTERNS[spec.tokenizer], text.lower())
    return [(origin[m.start()], origin[m.end() - 1] + 1) for m in found]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(text=st.text(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"]))))
@example("İstanbul, DİYARBAKIR! İİ aİ İa İ")
@example("ΟΔΟΣ ΟΔΟΣ's Σ aΣ.b")
@example("")
@settings(max_examples=300, deadline=None)
def test_spans_are_those_of_the_lowered_text(tokenizer, text):
    spec = NgramSpec(tokenizer, 1, 1)
    assert [tuple(span) for span in token_spans(text, spec).tolist()] == spans_by_lowering(
        text, spec
    )


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(text=st.text(st.one_of(st.sampled_from(TRICKY), st.characters(exclude_categories=["Cs"]))))
@settings(max_examples=300, deadline=None)
def test_there_is_a_span_for_each_token_that_the_kernels_hash(tokenizer, text):
    spec = NgramSpec(tokenizer, 1, 1)
    hashes, _ = token_hashes(TextBuffer.from_strings([text]), spec)
    spans = token_spans(text, spec)
    assert spans.shape == (len(hashes), 2)
    assert (np.diff(spans.reshape(-1)) >= 0).all()
