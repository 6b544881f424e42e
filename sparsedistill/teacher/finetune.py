"""Fine-tuning of the teacher: best epoch on ``dev``, over a small grid and several seeds.

The paper (section 3.2) tries batch sizes 16 and 32 with three learning rates, ten epochs each; a
grid of one point with one seed is one run. A killed run goes on where it was: trials that are done
stay done (``resume.py``), and the one in hand goes on from its last resume point (``trial.py``).
Starts and dropout come from the random state that torch has for the whole process, so only one
teacher may be fine-tuned in a process at a time.
"""

from __future__ import annotations

import gc
import itertools
import logging
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.class_weights import class_weights
from sparsedistill.errors import TeacherError
from sparsedistill.teacher.checkpoint import (
    load_config,
    load_model,
    load_tokenizer,
    name_padding,
)
from sparsedistill.teacher.encoding import LONGEST, longest_input
from sparsedistill.teacher.quiet import quiet_transformers
from sparsedistill.teacher.resume import SEAL, Records, Trial, best_trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Literal

    from sparsedistill.teacher.checkpoint import Checkpoint
    from sparsedistill.teacher.session import Precision
    from sparsedistill.teacher.trial import Rows, Setting

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FineTuning:
    """What is tried.

    Attributes:
        epochs: Passes over ``train``.
        batch_sizes: Each is tried with each learning rate.
        learning_rates: Highest rates; linear decay to zero.
        seeds: Each point of the grid is tried with each of them. Of the head's start, the data
            order and dropout.
        warmup: Share of the updates over which the rate climbs.
        weight_decay: Of AdamW.
        max_length: Tokens of a text that are read.
        dropout: Of every layer that has one; None leaves the checkpoint's own. On a CPU, dropout
            takes half of the time.
        class_weights: ``balanced`` lets a row count the more, the rarer its label is.
        precision: Of the products on a CPU, where float16 is done in float32; weights stay float32.
            A GPU uses bfloat16 if it has it, else float16.
    """

    epochs: int = 10
    batch_sizes: tuple[int, ...] = (16, 32)
    learning_rates: tuple[float, ...] = (1e-5, 2e-5, 5e-5)
    seeds: tuple[int, ...] = (0,)
    warmup: float = 0.06
    weight_decay: float = 0.01
    max_length: int = LONGEST
    dropout: float | None = None
    class_weights: Literal["none", "balanced"] = "none"
    precision: Precision = "float32"


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """Texts and the index of each one's label."""

    texts: Sequence[str]
    labels: Sequence[int]


def fine_tune(
    checkpoint: Checkpoint,
    *,
    train: LabelledTexts,
    dev: LabelledTexts,
    label_names: Sequence[str],
    options: FineTuning,
    output: Path,
    scratch: Path,
    every_seconds: float = 120.0,
    threads: int | None = None,
    on_gpu: bool = False,
    progress: Callable[[int, int], None] | None = None,
    measured: Callable[[str, dict[str, float]], None] | None = None,
) -> tuple[Trial, ...]:
    """Fine-tune a checkpoint and save the best model and its tokenizer.

    Args:
        checkpoint: To start from.
        train: To learn from.
        dev: Chooses the epoch, the point of the grid and the seed.
        label_names: In the order of the label indices.
        options: What is tried.
        output: Directory that gets model and tokenizer, as ``save_pretrained`` writes them.
        scratch: Directory of what survives a kill: called again with the same arguments, this goes
            on from what is there.
        every_seconds: Of work from one resume point to the next, and longer where saving would take
            more than a tenth of the time; 0 is after every update.
        threads: Of torch on the CPU.
        on_gpu: Whether the first GPU does the work, or the CPU.
        progress: Called with (updates done, updates in all).
        measured: Called after every epoch with what is tried and its figures by name.

    Returns:
        Every trial, in the order tried; the first of the best is the one saved.

    Raises:
        TeacherError: The checkpoint cannot be loaded, or the task has fewer than two labels.
        DataError: ``balanced``, and ``train`` lacks a label.
    """
    import torch

    from sparsedistill.teacher.trial import Setting, Watch, run_trial

    if len(set(label_names)) < 2:
        raise TeacherError(f"a classifier needs two labels or more, not {list(label_names)}")
    weights = None
    if options.class_weights != "none":
        labels = np.asarray(train.labels)
        weights = class_weights(labels, options.class_weights, classes=len(label_names))
    if threads:
        torch.set_num_threads(threads)
    grid = [
        Setting(*point)
        for point in itertools.product(options.batch_sizes, options.learning_rates, options.seeds)
    ]
    updates = [options.epochs * -(-len(train.texts) // point.batch_size) for point in grid]
    records = Records(scratch)
    tokenizer = load_tokenizer(checkpoint.name, revision=checkpoint.revision)
    data: tuple[Rows, Rows] | None = None
    trials = records.done()
    for number, setting in enumerate(grid):
        if number in trials:
            continue
        done = sum(updates[:number])

        def update(count: int, done: int = done) -> None:
            if progress:
                progress(done + count, sum(updates))

        def look(figures: dict[str, float], setting: Setting = setting) -> None:
            logger.info("teacher: %s: %s", setting, figures)
            if measured:
                measured(str(setting), figures)

        with quiet_transformers():
            model = _fresh_model(checkpoint, label_names, options, seed=setting.seed, on_gpu=on_gpu)
            name_padding(model, tokenizer)
            data = data or _encoded(tokenizer, model, train, dev, options)
            trial = run_trial(
                setting, model, tokenizer,
                train=data[0], dev=data[1], weights=weights, options=options, on_gpu=on_gpu,
                files=records.files(number), every_seconds=every_seconds,
                watch=Watch(update, look),
            )  # fmt: skip
        records.finish(number, trial)
        del model
        gc.collect()
    trials = records.done()
    winner = best_trial(trials)
    best = None if winner is None else records.files(winner).best()
    assert best is not None  # noqa: S101 - the grid has a point, and it is done
    shutil.copytree(best.directory, output, ignore=shutil.ignore_patterns(SEAL), dirs_exist_ok=True)
    return tuple(trials[number] for number in range(len(grid)))


def _fresh_model(
    checkpoint: Checkpoint,
    label_names: Sequence[str],
    options: FineTuning,
    *,
    seed: int,
    on_gpu: bool,
) -> Any:  # noqa: ANN401
    """Return the checkpoint with a head for the task, its start a function of the seed."""
    from transformers import set_seed

    set_seed(seed)
    return load_model(
        checkpoint.name,
        revision=checkpoint.revision,
        num_labels=len(label_names),
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
        problem_type="single_label_classification",
        **_dropout(checkpoint, options.dropout),
        **_attention(options, on_gpu=on_gpu),
    )


def _dropout(checkpoint: Checkpoint, rate: float | None) -> dict[str, float]:
    """Return every setting of the checkpoint that is a dropout, each architecture's own names."""
    if rate is None:
        return {}
    config = load_config(checkpoint.name, revision=checkpoint.revision)
    return {name: rate for name in config.to_dict() if "dropout" in name}


def _attention(options: FineTuning, *, on_gpu: bool) -> dict[str, str]:
    """Return the attention that is the faster in bfloat16 on a CPU: 1.2 to 1.4 times as fast there.

    With dropout both take the same memory; without, torch's own saves much of it.
    """
    eager = not on_gpu and options.precision == "bfloat16" and options.dropout != 0
    return {"attn_implementation": "eager"} if eager else {}


def _encoded(
    tokenizer: Any,  # noqa: ANN401
    model: Any,  # noqa: ANN401
    train: LabelledTexts,
    dev: LabelledTexts,
    options: FineTuning,
) -> tuple[Rows, Rows]:
    """Return what the model reads; ``dev`` by length, as less padding is less work."""
    longest = longest_input(tokenizer, model, options.max_length)

    def rows(texts: LabelledTexts) -> Rows:
        encoded = tokenizer(list(texts.texts), truncation=True, max_length=longest)
        return [
            {**{name: values[i] for name, values in encoded.items()}, "labels": int(label)}
            for i, label in enumerate(texts.labels)
        ]

    return rows(train), sorted(rows(dev), key=lambda row: -len(row["input_ids"]))
