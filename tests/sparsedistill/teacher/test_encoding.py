"""What the model reads: the tokenizer's own cut and padding, in flat arrays."""

from itertools import pairwise

import numpy as np
import pytest
from helpers.tiny_task import texts
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from sparsedistill.errors import TeacherError
from sparsedistill.teacher.checkpoint import load_classifier
from sparsedistill.teacher.encoding import Encoder, Padding, longest_input

TEXTS = [text for text, _ in texts(20, seed=2)] + ["", "rose", "rose " * 50, "☃ zzz", "A, b. C!"]
NAMES = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="module")
def tokenizer(tiny_classifier):
    return load_classifier(tiny_classifier)[0]


def pieces_of(pieces, name):
    values = pieces.inputs[name]
    return [
        values[start:end].tolist()
        for start, end in zip(pieces.offsets, pieces.offsets[1:], strict=False)
    ]


@pytest.mark.parametrize("longest", [8, 64])
def test_truncation_is_the_tokenizers_own_and_keeps_the_end_token(tokenizer, longest):
    pieces = Encoder(tokenizer, accepted=NAMES, longest=longest).encode(TEXTS)
    expected = tokenizer(TEXTS, truncation=True, max_length=longest)["input_ids"]
    assert pieces_of(pieces, "input_ids") == expected
    assert pieces.rows.tolist() == list(range(len(TEXTS)))
    cut = expected[22]
    assert (len(cut) == longest) == (longest < 52)
    assert cut[-1] == tokenizer.sep_token_id


def test_inputs_that_the_model_does_not_know_are_left_out(tokenizer):
    plain = Encoder(tokenizer, accepted=["input_ids"], longest=64).encode(TEXTS)
    assert set(plain.inputs) == {"input_ids"}


def test_windows_cover_a_text_and_share_the_overlap(tokenizer):
    encoder = Encoder(tokenizer, accepted=NAMES, longest=10, long_texts="windows", overlap=3)
    pieces = encoder.encode(TEXTS)
    whole = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    for row, ids in enumerate(whole):
        mine = [
            one[1:-1]
            for one, of in zip(pieces_of(pieces, "input_ids"), pieces.rows, strict=True)
            if of == row
        ]
        joined = mine[0] + [token for one in mine[1:] for token in one[3:]]
        assert joined == ids
        assert all(one[:3] == before[-3:] for before, one in pairwise(mine))
    assert np.diff(pieces.rows).min() >= 0


def test_windows_need_a_fast_tokenizer(tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(TeacherError, match=r"needs a fast tokenizer .*truncate"):
        Encoder(Slow(), accepted=NAMES, longest=10, long_texts="windows", overlap=3)


@settings(deadline=None, max_examples=50)
@given(
    rows=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=8),
    side=st.sampled_from(["left", "right"]),
)
def test_rectangles_are_what_the_tokenizer_would_pad(tokenizer, rows, side):
    pieces = Encoder(tokenizer, accepted=NAMES, longest=16).encode(TEXTS)
    before = tokenizer.padding_side
    tokenizer.padding_side = side
    try:
        batch = np.array(rows, np.int64)
        inputs, mask = Padding(tokenizer).rectangle(pieces, batch)
        expected = tokenizer(
            [TEXTS[row] for row in rows],
            truncation=True, max_length=16, padding=True, return_tensors="np",
        )  # fmt: skip
    finally:
        tokenizer.padding_side = before
    for name, values in inputs.items():
        np.testing.assert_array_equal(values, expected[name])
    if mask is None:
        assert expected["attention_mask"].all()
    else:
        np.testing.assert_array_equal(mask, expected["attention_mask"])
        assert not mask.all()


def test_no_text_makes_no_piece(tokenizer):
    pieces = Encoder(tokenizer, accepted=NAMES, longest=16).encode([])
    assert len(pieces.rows) == 0
    assert pieces.offsets.tolist() == [0]


def test_positions_behind_the_padding_row_are_not_counted(tokenizer):
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    roberta = RobertaForSequenceClassification(
        RobertaConfig(**shape, intermediate_size=8, vocab_size=20, max_position_embeddings=34)
    )
    assert longest_input(tokenizer, roberta, 512) == 32
    assert longest_input(tokenizer, roberta, 20) == 20
    gpt = GPT2ForSequenceClassification(
        GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20, n_positions=24)
    )
    assert longest_input(tokenizer, gpt, 512) == 24
    assert longest_input(tokenizer, nn.Identity(), 512) == tokenizer.model_max_length
