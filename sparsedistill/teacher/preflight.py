"""What is wrong with a teacher, in seconds: asked before a corpus is read for hours.

Everything that fine-tuning or labelling would stumble over later: labels, tokenizer, architecture,
weights, length. A teacher that passes is not asked again in the same process.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from sparsedistill.errors import TeacherError
from sparsedistill.teacher.checkpoint import load_config, load_model, load_tokenizer
from sparsedistill.teacher.encoding import LONGEST, Encoder, longest_input
from sparsedistill.teacher.labelling import label_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sparsedistill.teacher.checkpoint import Checkpoint
    from sparsedistill.teacher.encoding import LongTexts

_HEAD = "ForSequenceClassification"
_OTHER_PROBLEMS = {
    "regression": "gives a number in place of labels",
    "multi_label_classification": "may give a text several labels",
}


def check_teacher(
    checkpoint: Checkpoint,
    *,
    labels: Sequence[str],
    finetune: bool,
    max_length: int | None,
    long_texts: LongTexts = "truncate",
    overlap: int = 0,
    label_names: Mapping[str, str] | None = None,
) -> None:
    """Refuse a checkpoint that cannot become the teacher of a task.

    Args:
        checkpoint: Which.
        labels: The task's.
        finetune: Whether it gets a new head; else it must be a classifier with the task's labels.
        max_length: Tokens of a text, or of a window of it, that it shall read; None is as many
            as it can.
        long_texts: How it shall read texts that are longer.
        overlap: Tokens that a window shares with the one before.
        label_names: Of its labels, what the task calls them.

    Raises:
        TeacherError: It is no teacher of this task; the message says why, and what to do.
    """
    names = tuple(sorted((label_names or {}).items()))
    _check(checkpoint, tuple(labels), finetune, (max_length, long_texts, overlap), names)


def task_labels(
    id2label: Mapping[int, str], labels: Sequence[str], label_names: Mapping[str, str]
) -> dict[int, str]:
    """Return a teacher's labels by index, under the task's names.

    Args:
        id2label: The teacher's labels, as its config.json has them.
        labels: The task's.
        label_names: Task's names by the teacher's; names that are not in it are the task's already.

    Raises:
        TeacherError: A name is none of the teacher's or the task's; or the labels do not fit, and
            the message shows both lists.
    """
    own = [str(name) for name in id2label.values()]
    for name, target in label_names.items():
        if name not in own:
            raise TeacherError(
                f"[teacher] label_names has {name!r}, which is no label of the teacher; its labels "
                f"are {sorted(own)}"
            )
        if target not in labels:
            raise TeacherError(
                f"[teacher] label_names has {name!r} stand for {target!r}, which is no label of "
                f"the task; its labels are {sorted(labels)}"
            )
    renamed = {int(i): label_names.get(str(name), str(name)) for i, name in id2label.items()}
    try:
        label_columns(renamed, labels)
    except TeacherError as error:
        if len(renamed) != len(labels):
            raise
        raise TeacherError(f"{error}; or map them by name: {_example(own, labels)}") from error
    return renamed


def _example(own: Sequence[str], labels: Sequence[str]) -> str:
    """Return the setting that maps names by case, or shows where to fill in the task's."""
    by_case = {label.casefold(): label for label in labels}
    pairs = ", ".join(f'"{name}" = "{by_case.get(name.casefold(), "...")}"' for name in own)
    return f"[teacher] label_names = {{ {pairs} }}"


@functools.lru_cache(maxsize=16)
def _check(
    checkpoint: Checkpoint,
    labels: tuple[str, ...],
    finetune: bool,
    reading: tuple[int | None, LongTexts, int],
    label_names: tuple[tuple[str, str], ...],
) -> None:
    name, revision = checkpoint.name, checkpoint.revision
    config = load_config(name, revision=revision)
    if not finetune:
        _check_task(name, config)
        task_labels(config.id2label, labels, dict(label_names))
    tokenizer = load_tokenizer(name, revision=revision)
    head: dict[str, Any] = {"num_labels": len(labels)} if finetune else {}
    model = load_model(name, revision=revision, **head)
    _check_tokens(name, tokenizer, model)
    max_length, long_texts, overlap = reading
    longest = longest_input(tokenizer, model, max_length or LONGEST)
    if max_length is not None and longest < max_length:
        raise TeacherError(
            f"{name} reads {longest} tokens at most; set [teacher] max_length = "
            f"{longest} or less, in place of {max_length}"
        )
    Encoder(tokenizer, accepted=(), longest=longest, long_texts=long_texts, overlap=overlap)
    _check_weights(name, model)


def _check_task(name: str, config: Any) -> None:  # noqa: ANN401
    architectures = list(config.architectures or [])
    if architectures and not any(one.endswith(_HEAD) for one in architectures):
        raise TeacherError(
            f"{name} is a {', '.join(architectures)}, a model of another task; set [teacher] "
            f"finetune = true, or give a checkpoint that is a ...{_HEAD}"
        )
    if config.problem_type in _OTHER_PROBLEMS:
        raise TeacherError(
            f"{name} has the problem_type {config.problem_type!r}: it "
            f"{_OTHER_PROBLEMS[config.problem_type]}; a teacher gives one of several labels"
        )


def _check_tokens(name: str, tokenizer: Any, model: Any) -> None:  # noqa: ANN401
    known, used = model.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values())
    if used >= known:
        raise TeacherError(
            f"the tokenizer of {name} has token {used}, and the model knows {known:,} only: it is "
            "the tokenizer of another model, or tokens were added and the embeddings not resized "
            "(resize_token_embeddings)"
        )


def _check_weights(name: str, model: Any) -> None:  # noqa: ANN401
    for weights, values in model.named_parameters():
        if not bool(values.isfinite().all()):
            raise TeacherError(
                f"{name} has values in {weights} that are not finite: its training went wrong, or "
                "the file is damaged"
            )
