"""The session of a GPU, run on the CPU: padded batches, and a budget found by trying."""

import numpy as np
import pytest
import torch
from helpers.tiny_task import LABELS, texts
from transformers import FNetConfig, FNetForSequenceClassification

from sparsedistill.teacher import labelling
from sparsedistill.teacher.checkpoint import load_classifier, save_classifier
from sparsedistill.teacher.labelling import LabellingOptions, Teacher
from sparsedistill.teacher.session import GpuSession

TEXTS = [text for text, _ in texts(40, seed=3)] + ["", "rose", "rose " * 200]


@pytest.fixture
def on_gpu(monkeypatch, tiny_classifier):
    """A teacher that believes to be on a GPU; the sizes of its batches are noted."""
    sizes = []

    def open_gpu(model, *, precision, **_):
        return GpuSession(model, device="cpu", precision=precision)

    answer = GpuSession.__call__

    def noted(session, inputs, mask):
        sizes.append((inputs["input_ids"].shape, mask is not None))
        return answer(session, inputs, mask)

    monkeypatch.setattr(labelling, "open_session", open_gpu)
    monkeypatch.setattr(GpuSession, "__call__", noted)

    def make(directory=tiny_classifier, **options):
        return Teacher(directory, labels=LABELS, options=LabellingOptions(**options)), sizes

    return make


def test_padded_batches_say_what_batches_of_one_length_say(on_gpu, tiny_classifier, monkeypatch):
    padded, sizes = on_gpu(token_budget=200)
    found = padded.logits(TEXTS)
    monkeypatch.undo()
    plain = Teacher(tiny_classifier, labels=LABELS, options=LabellingOptions(device="cpu"))
    np.testing.assert_allclose(found, plain.logits(TEXTS), atol=1e-5)
    assert any(masked for _, masked in sizes)
    assert all(rows == 1 or rows * tokens <= 200 for (rows, tokens), _ in sizes)


def test_the_most_that_fits_is_found_by_halving(on_gpu, monkeypatch):
    answer, sizes_that_failed = GpuSession.__call__, []

    def small(session, inputs, mask):
        size = inputs["input_ids"].size
        if size > 20_000:
            sizes_that_failed.append(size)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return answer(session, inputs, mask)

    monkeypatch.setattr(GpuSession, "__call__", small)
    asked, _ = on_gpu(max_length=64)
    # Two workers hold a batch each, so half of what fits is one's.
    assert asked.token_budget == 8192
    assert sizes_that_failed == [2 * 65_536, 2 * 32_768, 2 * 16_384]
    assert np.isfinite(asked.logits(TEXTS)).all()


def test_a_model_that_does_not_fit_at_all_says_so(on_gpu, monkeypatch):
    def full(session, inputs, mask):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(GpuSession, "__call__", full)
    with pytest.raises(torch.OutOfMemoryError):
        on_gpu()


def test_half_precision_is_of_the_weights(on_gpu):
    asked, _ = on_gpu(token_budget=200, precision="bfloat16")
    assert {weights.dtype for weights in asked._session._model.parameters()} == {torch.bfloat16}
    assert asked.logits(TEXTS).dtype == np.float32


def test_a_model_that_minds_padding_gets_batches_of_one_length(on_gpu, tiny_classifier, tmp_path):
    """FNet has no attention, so it has no mask either."""
    tokenizer, _ = load_classifier(tiny_classifier)
    config = FNetConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, intermediate_size=16,
        max_position_embeddings=64, num_labels=3, pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)},
        initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    save_classifier(tokenizer, FNetForSequenceClassification(config), tmp_path / "fnet")
    asked, sizes = on_gpu(directory=tmp_path / "fnet", token_budget=200)
    sizes.clear()
    found = asked.logits(TEXTS)
    assert not any(masked for _, masked in sizes)
    one_by_one = np.concatenate([asked.logits([text]) for text in TEXTS])
    np.testing.assert_allclose(found, one_by_one, atol=1e-5)
