"""The teacher's logits: row order, whatever the batches; equal to one row at a time."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.tiny_bert import write_tiny_bert
from helpers.tiny_task import LABELS, WORDS, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.errors import DataError, TeacherError
from sparsedistill.teacher.checkpoint import load_classifier, save_classifier
from sparsedistill.teacher.labelling import (
    LabellingOptions,
    Teacher,
    label_columns,
    token_budget_batches,
)

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


def test_a_cut_text_keeps_its_end_token(lively):
    asked = teacher(lively, max_length=8)
    ids = asked._encode(["rose " * 100, "rose"])["input_ids"]
    end = asked._tokenizer.sep_token_id
    assert [len(row) for row in ids] == [8, 3]
    assert [row[-1] for row in ids] == [end, end]


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


def test_inputs_that_the_model_does_not_know_are_left_out(lively):
    asked = teacher(lively)
    asked._tokenizer.model_input_names = ["input_ids", "attention_mask"]
    expected = asked.logits(TEXTS)
    asked._accepted = {"input_ids", "attention_mask"}
    asked._tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert set(asked._encode(TEXTS)) == {"input_ids"}
    np.testing.assert_allclose(asked.logits(TEXTS), expected, atol=1e-6)


def test_logits_that_are_not_finite_name_row_and_text(lively, tmp_path):
    tokenizer, model = load_classifier(lively)
    word = tokenizer.convert_tokens_to_ids("tulip")
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[word] = float("nan")
    save_classifier(tokenizer, model, tmp_path / "broken")
    with pytest.raises(DataError, match="row 2 are not finite: 'a tulip'"):
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


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    batches = token_budget_batches(np.array(lengths, np.int64), budget)
    rows = [int(row) for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget
    # No batch could have taken the first row of the next one too.
    for batch, following in pairwise(batches):
        assert (len(batch) + 1) * max(lengths[batch[0]], 1) > budget
        assert len(following) > 0
