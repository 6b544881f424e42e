"""Bad teachers are refused in seconds, each with what is wrong and what to do."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from helpers.bad_teachers import BAD, TAKEN
from helpers.tiny_bert import write_tiny_bert
from helpers.tiny_task import LABELS, WORDS

from sparsedistill.errors import TeacherError
from sparsedistill.teacher import preflight
from sparsedistill.teacher.checkpoint import resolve_checkpoint
from sparsedistill.teacher.preflight import check_teacher, task_labels


def check(directory: Path, *, finetune: bool = True, max_length: int = 16, **settings: Any) -> None:
    settings.pop("epochs", None)
    check_teacher(
        resolve_checkpoint(str(directory)), labels=LABELS, finetune=finetune,
        max_length=max_length, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_teacher_is_told_what_is_wrong_with_it(name: str, tmp_path: Path) -> None:
    bad = BAD[name]
    with pytest.raises(TeacherError) as refusal:
        check(bad.write(tmp_path / "bad"), **bad.settings)
    message, after = str(refusal.value), 0
    for part in bad.says:
        found = message.find(part, after)
        assert found >= 0, f"{part!r} is not (or too early) in {message!r}"
        after = found


def test_good_teachers_pass(tiny_encoder: Path, tiny_classifier: Path) -> None:
    check(tiny_encoder)
    check(tiny_classifier, finetune=False)
    check(tiny_classifier, finetune=False, max_length=64)


def test_labels_in_another_order_are_good(tmp_path: Path) -> None:
    check(write_tiny_bert(tmp_path, WORDS, labels=LABELS[::-1]), finetune=False)


@pytest.mark.parametrize("order", list(itertools.permutations(LABELS)))
def test_names_are_mapped_by_name_and_keep_their_places(order: tuple[str, ...]) -> None:
    own = {index: name.upper() for index, name in enumerate(order)}
    mapped = task_labels(own, LABELS, {name.upper(): name for name in LABELS})
    assert mapped == dict(enumerate(order))


def test_names_that_are_the_tasks_already_need_no_mapping() -> None:
    own = {0: "railway", 1: "plants", 2: "kitchen"}
    assert task_labels(own, LABELS, {"plants": "garden"})[1] == "garden"


def test_two_labels_cannot_stand_for_one() -> None:
    own = {0: "railway", 1: "plants", 2: "kitchen"}
    with pytest.raises(TeacherError, match="task's are"):
        task_labels(own, LABELS, {"plants": "kitchen"})


def test_positions_behind_a_padding_row_are_not_counted(tmp_path: Path) -> None:
    """RoBERTa has 66 rows of positions, and reads 64 tokens."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

    source = write_tiny_bert(tmp_path / "bert", WORDS)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(tmp_path / "roberta")
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=66, pad_token_id=1,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )  # fmt: skip
    RobertaForSequenceClassification(config).save_pretrained(tmp_path / "roberta")
    check(tmp_path / "roberta", finetune=False, max_length=64)
    with pytest.raises(TeacherError, match=r"reads 64 tokens at most; .* in place of 65"):
        check(tmp_path / "roberta", finetune=False, max_length=65)


def test_a_teacher_that_passed_is_not_read_again(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tiny_encoder, max_length=9)

    def load(*_: object, **__: object) -> None:
        raise AssertionError("it was read again")

    monkeypatch.setattr(preflight, "load_model", load)
    check(tiny_encoder, max_length=9)


def test_a_teacher_that_was_mended_is_read_again(tmp_path: Path) -> None:
    bad = BAD["weights that are no numbers"]
    with pytest.raises(TeacherError, match="finite"):
        check(bad.write(tmp_path), **TAKEN)
    write_tiny_bert(tmp_path, WORDS, labels=LABELS)
    check(tmp_path, **TAKEN)
