"""What students over subwords take from a teacher."""

import numpy as np

from sparsedistill.students.tokens import teacher_embeddings, token_ids
from sparsedistill.teacher.checkpoint import load_classifier


def test_tokens_are_the_tokenizers_without_special_ones_and_cut_at_the_end(tiny_classifier):
    tokenizer, _ = load_classifier(tiny_classifier)
    texts = ["good film", "", "a bad bad film " * 40]
    found = token_ids(texts, tokenizer, max_length=20)
    expected = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))[:20] for text in texts]
    assert [tokens.tolist() for tokens in found] == expected
    assert [len(tokens) > 0 for tokens in found] == [True, False, True]


def test_more_texts_than_are_read_together_keep_their_order(tiny_classifier):
    tokenizer, _ = load_classifier(tiny_classifier)
    texts = ["ab"[row % 2] * (1 + row % 3) for row in range(5000)]
    found = token_ids(texts, tokenizer, max_length=8)
    assert len(found) == len(texts)
    for row in (0, 4095, 4096, 4999):
        alone = token_ids([texts[row]], tokenizer, max_length=8)
        assert found[row].tolist() == alone[0].tolist()
    assert len(token_ids([], tokenizer, max_length=8)) == 0


def test_embeddings_are_the_teachers_one_row_a_token(tiny_classifier):
    tokenizer, model = load_classifier(tiny_classifier)
    found = teacher_embeddings(tiny_classifier)
    assert found.dtype == np.float32
    assert len(found) == len(tokenizer)
    np.testing.assert_array_equal(found, model.get_input_embeddings().weight.detach().numpy())
