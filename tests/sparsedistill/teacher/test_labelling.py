"""The teacher's logits: row order, whatever the batches; equal to one row at a time."""

import shutil
import threading

import numpy as np
import pytest
import torch
from helpers.tiny_bert import write_tiny_bert
from helpers.tiny_task import LABELS, WORDS, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from sparsedistill.errors import ConfigError, DataError, TeacherError
from sparsedistill.teacher import labelling
from sparsedistill.teacher.checkpoint import load_classifier, save_classifier
from sparsedistill.teacher.encoding import NO_TOKENS
from sparsedistill.teacher.journal import Journal
from sparsedistill.teacher.labelling import LabellingOptions, Teacher, label_columns
from sparsedistill.teacher.session import CpuSession
from sparsedistill.text.buffers import TextBuffer

TEXTS = [text for text, _ in texts(30, seed=9)] + ["", "rose", "rose " * 200, "☃ zzz", "A, b. C!"]


@pytest.fixture(scope="module")
def lively(tiny_classifier, tmp_path_factory):
    """The tiny classifier with larger weights: as made, it says nearly the same of every text."""
    tokenizer, model = load_classifier(tiny_classifier)
    with torch.no_grad():
        for weights in model.parameters():
            weights *= 8 if weights.ndim > 1 else 1
    directory = tmp_path_factory.mktemp("lively") / "m"
    save_classifier(tokenizer, model, directory)
    return directory


def teacher(directory, *, labels=LABELS, **options):
    return Teacher(directory, labels=labels, options=LabellingOptions(**options))


def one_by_one(directory, max_length):
    tokenizer, model = load_classifier(directory)
    with torch.no_grad():
        rows = [
            model.eval()(
                **tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
            ).logits[0]
            for text in TEXTS
        ]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("max_length", [8, 64])
@pytest.mark.parametrize("budget", [1, 64, 300, 10**6])
def test_logits_do_not_depend_on_the_token_budget(lively, budget, max_length):
    logits = teacher(lively, token_budget=budget, max_length=max_length).logits(TEXTS)
    np.testing.assert_allclose(logits, one_by_one(lively, max_length), atol=1e-5)
    assert np.ptp(logits, axis=0).min() > 0.1  # rows that all look alike would prove nothing


def test_logits_come_in_the_order_of_the_tasks_labels(lively):
    backwards = teacher(lively, labels=LABELS[::-1]).logits(TEXTS)
    np.testing.assert_allclose(backwards[:, ::-1], teacher(lively).logits(TEXTS), atol=1e-6)


def test_no_more_tokens_are_read_than_the_teacher_has_positions_for(lively):
    # The model's 64 positions; asking for the default of 512 must not run past them.
    assert np.isfinite(teacher(lively, max_length=512).logits(["rose " * 300])).all()


def test_no_text_gives_no_logits(lively):
    assert teacher(lively).logits([]).shape == (0, len(LABELS))


def test_progress_adds_up_to_the_rows(lively):
    seen = []
    teacher(lively, token_budget=100).logits(TEXTS, progress=seen.append)
    assert sum(seen) == len(TEXTS)
    assert len(seen) > 1


def test_logits_that_are_not_finite_name_row_and_text(lively, tmp_path):
    tokenizer, model = load_classifier(lively)
    word = tokenizer.convert_tokens_to_ids("tulip")
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[word] = float("nan")
    save_classifier(tokenizer, model, tmp_path / "broken")
    with pytest.raises(DataError, match="row 2: the teacher's logits are not finite: 'a tulip'"):
        teacher(tmp_path / "broken").logits(["rose", "soil", "a tulip", "seed"])


def test_labelling_writes_nothing_to_the_terminal(lively, capfd):
    teacher(lively).logits(TEXTS)
    assert capfd.readouterr() == ("", "")


def test_a_teacher_of_other_labels_is_refused_with_both_lists(lively):
    with pytest.raises(TeacherError, match=r"'garden', 'kitchen', 'railway'.*'neg', 'pos'"):
        teacher(lively, labels=["pos", "neg"])


def test_a_teacher_of_one_label_is_refused(tmp_path):
    with pytest.raises(TeacherError, match="one label"):
        teacher(write_tiny_bert(tmp_path / "m", WORDS, labels=["only"]), labels=["only"])


def test_a_teacher_without_a_tokenizer_is_refused(lively, tmp_path):
    bare = shutil.copytree(lively, tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(TeacherError, match="no tokenizer"):
        teacher(bare)


def test_columns_are_found_by_name():
    assert label_columns({0: "b", 1: "c", 2: "a"}, ["a", "b", "c"]) == [2, 0, 1]
    with pytest.raises(TeacherError, match=r"\['x'\], the task's are \['x', 'y'\]"):
        label_columns({0: "x", 1: "x"}, ["x", "y"])


@pytest.fixture(scope="module")
def asked(lively):
    return teacher(lively, threads=2, token_budget=120)


@settings(deadline=None, max_examples=30)
@given(rows=st.permutations(range(len(TEXTS))), count=st.integers(1, len(TEXTS)))
def test_a_rows_logits_are_the_same_bits_whatever_rows_are_beside_it(asked, rows, count):
    alone = asked.logits(TEXTS)
    np.testing.assert_array_equal(
        asked.logits([TEXTS[row] for row in rows[:count]]), alone[rows[:count]]
    )


@pytest.mark.parametrize("budget", [8, 64, 5000])
@pytest.mark.parametrize("threads", [1, 3])
def test_neither_threads_nor_budget_change_a_bit_on_a_cpu(lively, asked, threads, budget):
    other = teacher(lively, threads=threads, token_budget=budget)
    np.testing.assert_array_equal(other.logits(TEXTS), asked.logits(TEXTS))


def test_blocks_change_nothing_and_come_in_order(asked, monkeypatch):
    expected = asked.logits(TEXTS)
    monkeypatch.setattr(labelling, "_BLOCK_ROWS", 7)
    np.testing.assert_array_equal(asked.logits(TEXTS), expected)


def test_texts_may_lie_in_a_buffer(asked):
    labelled = asked.label(TextBuffer.from_strings(TEXTS))
    np.testing.assert_array_equal(labelled.logits, asked.logits(TEXTS))
    assert labelled.failures == {}


def windows_of(ids, longest, overlap):
    """A row's tokens between the special ones, cut as the documentation says."""
    room = longest - 2
    starts = range(0, max(len(ids) - overlap, 1), room - overlap)
    return [ids[start : start + room] for start in starts]


@pytest.mark.parametrize("overlap", [0, 3])
def test_windows_are_read_one_by_one_and_their_logits_averaged(lively, overlap):
    tokenizer, model = load_classifier(lively)
    model.eval()
    words = " ".join(text for text, _ in texts(12, seed=4))
    long = [words, "rose", words[:90], ""]
    read = teacher(lively, max_length=10, long_texts="windows", overlap=overlap).logits(long)
    for text, found in zip(long, read, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces = windows_of(ids, 10, overlap)
        with torch.no_grad():
            each = [
                model(torch.tensor([[tokenizer.cls_token_id, *piece, tokenizer.sep_token_id]]))
                for piece in pieces
            ]
        mean = torch.stack([one.logits[0] for one in each]).mean(0)
        np.testing.assert_allclose(found, mean.numpy(), atol=1e-5)
    assert len(windows_of(tokenizer(words)["input_ids"], 10, overlap)) > 5


def test_windows_that_overlap_wholly_are_refused(lively):
    with pytest.raises(TeacherError, match=r"windows of 10 tokens cannot overlap by 8"):
        teacher(lively, max_length=10, long_texts="windows", overlap=8)


@pytest.fixture(scope="module")
def poisoned(lively, tmp_path_factory):
    """Whatever has the word tulip in it gets no number."""
    tokenizer, model = load_classifier(lively)
    word = tokenizer.convert_tokens_to_ids("tulip")
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[word] = float("nan")
    directory = tmp_path_factory.mktemp("poisoned") / "m"
    save_classifier(tokenizer, model, directory)
    return directory


def test_a_row_that_fails_is_told_of_and_costs_no_other_row(poisoned, monkeypatch):
    asked = teacher(poisoned)
    good = ["rose", "soil", "seed and spade", "a rose", "mill"]
    mixed = ["tulip", *good[:2], "a tulip", *good[2:], "tulip " * 100]
    monkeypatch.setattr(labelling, "_BLOCK_ROWS", 3)
    labelled = asked.label(mixed)
    assert labelled.failures == dict.fromkeys([0, 3, 7], labelling.NOT_FINITE)
    np.testing.assert_array_equal(labelled.logits[[1, 2, 4, 5, 6]], asked.logits(good))
    assert np.isnan(labelled.logits[[0, 3, 7]]).all()


def test_a_text_that_cannot_be_cut_into_tokens_is_told_of(lively, monkeypatch):
    asked = teacher(lively)
    expected = asked.logits(["rose", "soil"])
    real = asked._encoder._tokenizer

    def refuse(texts, **how):
        if any("tulip" in text for text in texts):
            raise ValueError("no tulips")
        return real(texts, **how)

    monkeypatch.setattr(asked._encoder, "_tokenizer", refuse)
    labelled = asked.label(["rose", "tulip", "soil"])
    assert labelled.failures == {1: "cannot be cut into tokens (ValueError: no tulips)"}
    np.testing.assert_array_equal(labelled.logits[[0, 2]], expected)
    with pytest.raises(DataError, match=r"row 1: cannot be cut into tokens.*: 'tulip'"):
        asked.logits(["rose", "tulip"])


def test_a_batch_too_large_for_the_memory_is_halved_until_it_fits(asked, monkeypatch):
    expected = asked.logits(TEXTS)
    sizes = []
    real = CpuSession.__call__

    def small_memory(self, inputs, mask):
        ids = inputs["input_ids"]
        if ids.size > 30 and len(ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(ids.size)
        return real(self, inputs, mask)

    monkeypatch.setattr(CpuSession, "__call__", small_memory)
    monkeypatch.setattr(asked, "_fits", None)
    np.testing.assert_array_equal(asked.logits(TEXTS), expected)
    assert asked._fits <= 120  # later batches are cut before they are tried
    assert len(sizes) >= 10


def test_one_text_too_large_for_the_memory_says_what_to_set(asked, monkeypatch):
    def no_memory(self, inputs, mask):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(CpuSession, "__call__", no_memory)
    monkeypatch.setattr(asked, "_fits", None)
    with pytest.raises(
        TeacherError, match=r"one text of \d+ tokens; set a smaller \[teacher\] max"
    ):
        asked.logits(TEXTS)
    monkeypatch.setattr(asked, "_fits", None)


def test_other_errors_of_a_batch_end_the_pass(asked, monkeypatch):
    def broken(self, inputs, mask):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(CpuSession, "__call__", broken)
    with pytest.raises(RuntimeError, match="no such operator"):
        asked.logits(TEXTS)


def test_a_pass_goes_on_from_its_journal(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "_BLOCK_ROWS", 10)
    expected = asked.logits(TEXTS)
    done, lock = [], threading.Lock()
    real = CpuSession.__call__

    def killed_after_five(self, inputs, mask):
        with lock:
            if len(done) == 5:
                raise KeyboardInterrupt
            done.append(len(inputs["input_ids"]))
        return real(self, inputs, mask)

    monkeypatch.setattr(CpuSession, "__call__", killed_after_five)
    with (
        Journal(tmp_path / "j", fingerprint="a") as journal,
        pytest.raises(KeyboardInterrupt),
    ):
        asked.label(TEXTS, journal=journal)
    with Journal(tmp_path / "j", fingerprint="a") as journal:
        kept = len(journal)
        done.clear()
        monkeypatch.setattr(
            CpuSession,
            "__call__",
            lambda self, inputs, mask: (done.append(1), real(self, inputs, mask))[1],
        )
        seen = []
        labelled = asked.label(TEXTS, journal=journal, progress=seen.append)
        np.testing.assert_array_equal(labelled.logits, expected)
        assert kept == 5
        assert sum(seen) == len(TEXTS)
    with Journal(tmp_path / "j", fingerprint="a") as journal:
        assert len(done) == len(journal) - kept > 5


def test_torch_keeps_the_callers_number_of_threads(asked):
    before = torch.get_num_threads()
    asked.logits(TEXTS)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_low_precision_stays_near(lively, asked, precision):
    low = teacher(lively, precision=precision).logits(TEXTS)
    difference = np.abs(low - asked.logits(TEXTS)).max()
    assert 0 < difference < 0.2


def test_float16_is_refused_on_a_cpu(lively):
    with pytest.raises(ConfigError, match=r'"float16" is for GPUs; on a CPU take "bfloat16"'):
        teacher(lively, precision="float16", device="cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("length", [3, 17, 60])
def test_a_row_alone_in_its_batch_has_the_same_bits(precision, length):
    """For a product of one row the libraries have another routine, at sizes no tiny model has."""
    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    model = BertForSequenceClassification(
        BertConfig(**shape, num_hidden_layers=1, vocab_size=500, num_labels=2)
    )
    session = CpuSession(model, precision=precision, threads=1)
    rows = np.random.default_rng(0).integers(5, 500, (8, length))
    together = session({"input_ids": rows}, None)
    alone = [session({"input_ids": rows[i : i + 1]}, None)[0] for i in range(len(rows))]
    np.testing.assert_array_equal(np.stack(alone), together)


def test_a_text_that_the_model_cannot_read_costs_no_other_row(asked, monkeypatch):
    expected = asked.logits(TEXTS)
    real, ids = CpuSession.__call__, asked._encoder.encode([TEXTS[4]]).inputs["input_ids"]

    def choosy(self, inputs, mask):
        if any(np.array_equal(row, ids) for row in inputs["input_ids"]):
            raise ValueError("all examples must have one end")
        return real(self, inputs, mask)

    monkeypatch.setattr(CpuSession, "__call__", choosy)
    labelled = asked.label(TEXTS)
    reason = "the teacher cannot read it (ValueError: all examples must have one end)"
    assert labelled.failures == {4: reason}
    others = [row for row in range(len(TEXTS)) if row != 4]
    np.testing.assert_array_equal(labelled.logits[others], expected[others])
    assert np.isnan(labelled.logits[4]).all()


def test_a_text_that_is_alone_in_its_block_may_fail_as_well(asked, monkeypatch):
    monkeypatch.setattr(labelling, "_BLOCK_ROWS", 1)
    monkeypatch.setattr(CpuSession, "__call__", refusing_every_third(CpuSession.__call__))
    assert 0 < len(asked.label(TEXTS).failures) < len(TEXTS)


def test_a_reason_is_the_same_after_a_kill(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(CpuSession, "__call__", refusing_every_third(CpuSession.__call__))
    with Journal(tmp_path / "j", fingerprint="a") as journal:
        first = asked.label(TEXTS, journal=journal)
    with Journal(tmp_path / "j", fingerprint="a") as journal:
        again = asked.label(TEXTS, journal=journal)
    assert first.failures == again.failures
    assert 0 < len(first.failures) < len(TEXTS)
    np.testing.assert_array_equal(first.logits, again.logits)


def refusing_every_third(answer):
    def refuse(self, inputs, mask):
        if (inputs["input_ids"].sum(axis=1) % 3 == 0).any():
            raise ValueError("divisible")
        return answer(self, inputs, mask)

    return refuse


def test_too_many_texts_that_cannot_be_read_are_the_models_fault(asked, monkeypatch):
    monkeypatch.setattr(labelling, "_MOST_ERRORS", 3)
    monkeypatch.setattr(CpuSession, "__call__", refusing_every_third(CpuSession.__call__))
    with pytest.raises(ValueError, match="divisible"):
        asked.label(TEXTS)


def test_a_text_of_no_tokens_is_told_of(asked, monkeypatch):
    real = asked._encoder._tokenizer

    def bare(texts, **how):
        how["add_special_tokens"] = False
        return real(texts, **how)

    monkeypatch.setattr(asked._encoder, "_tokenizer", bare)
    labelled = asked.label(["rose soil", "", "  ", "a rose"])
    assert labelled.failures == dict.fromkeys([1, 2], NO_TOKENS)
    assert np.isfinite(labelled.logits[[0, 3]]).all()


def test_a_journal_of_other_batches_is_of_no_use(lively, tmp_path):
    """As a GPU's is on a CPU: the numbers are the same, the rows are not."""
    first, other = teacher(lively, token_budget=60), teacher(lively, token_budget=90)
    with Journal(tmp_path / "j", fingerprint="a") as journal:
        first.label(TEXTS, journal=journal)
    with Journal(tmp_path / "j", fingerprint="a") as journal:
        labelled = other.label(TEXTS, journal=journal)
    np.testing.assert_array_equal(labelled.logits, first.logits(TEXTS))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_a_checkpoint_of_half_precision_is_computed_with_in_float32(lively, tmp_path, stored):
    tokenizer, model = load_classifier(lively)
    save_classifier(tokenizer, model.to(stored), tmp_path / "half")
    asked = teacher(tmp_path / "half")
    assert {weights.dtype for weights in asked._session._model.parameters()} == {torch.float32}
    save_classifier(tokenizer, model.float(), tmp_path / "whole")
    np.testing.assert_array_equal(asked.logits(TEXTS), teacher(tmp_path / "whole").logits(TEXTS))


def test_a_decoder_is_told_what_padding_is(tiny_classifier, tmp_path):
    tokenizer, _ = load_classifier(tiny_classifier)
    config = GPT2Config(
        n_embd=8, n_layer=1, n_head=1, vocab_size=len(tokenizer), n_positions=64, num_labels=3,
        id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)},
    )  # fmt: skip
    save_classifier(tokenizer, GPT2ForSequenceClassification(config), tmp_path / "gpt")
    assert np.isfinite(teacher(tmp_path / "gpt").logits(TEXTS)).all()
