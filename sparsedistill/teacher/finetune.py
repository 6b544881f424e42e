"""Fine-tuning of the teacher with transformers' Trainer: best epoch on ``dev``, over a small grid.

The paper (section 3.2) tries batch sizes 16 and 32 with three learning rates, ten epochs each; a
grid of one point is one run. Starts, orders and dropout come from the random state that torch has
for the whole process, so only one teacher may be fine-tuned in a process at a time.
"""

from __future__ import annotations

import gc
import itertools
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.errors import TeacherError
from sparsedistill.metrics import accuracy
from sparsedistill.teacher.checkpoint import load_model, load_tokenizer, save_classifier
from sparsedistill.teacher.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sparsedistill.teacher.checkpoint import Checkpoint
    from sparsedistill.teacher.labelling import Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FineTuning:
    """What is tried.

    Attributes:
        epochs: Passes over ``train``.
        batch_sizes: Each is tried with each learning rate.
        learning_rates: Highest rates; linear decay to zero.
        warmup: Share of the updates over which the rate climbs.
        weight_decay: Of AdamW.
        max_length: Tokens of a text that are read.
        seed: Of the head's start, the data order and dropout.
        dropout: Of every layer that has one; None leaves the checkpoint's own. On a CPU, dropout
            takes half of the time.
        precision: Of the products; weights stay float32. A GPU that has bfloat16 always uses it.
    """

    epochs: int = 10
    batch_sizes: tuple[int, ...] = (16, 32)
    learning_rates: tuple[float, ...] = (1e-5, 2e-5, 5e-5)
    warmup: float = 0.06
    weight_decay: float = 0.01
    max_length: int = 512
    seed: int = 0
    dropout: float | None = None
    precision: Precision = "float32"


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the grid and its best accuracy on ``dev``."""

    batch_size: int
    learning_rate: float
    dev_accuracy: float


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
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Trial, ...]:
    """Fine-tune a checkpoint and save the best model and its tokenizer.

    Args:
        checkpoint: To start from.
        train: To learn from.
        dev: Chooses the epoch and the point of the grid.
        label_names: In the order of the label indices.
        options: The grid.
        output: Directory that gets model and tokenizer, as ``save_pretrained`` writes them.
        scratch: Directory for the Trainer's own checkpoints.
        threads: Of torch on the CPU.
        progress: Called with (updates done, updates in all).

    Returns:
        Every trial, in the order tried; the first of the best is the one saved.

    Raises:
        TeacherError: The checkpoint cannot be loaded, or the task has fewer than two labels.
    """
    import torch

    if len(set(label_names)) < 2:
        raise TeacherError(f"a classifier needs two labels or more, not {list(label_names)}")
    if threads:
        torch.set_num_threads(threads)
    grid = list(itertools.product(options.batch_sizes, options.learning_rates))
    updates = [options.epochs * -(-len(train.texts) // batch) for batch, _ in grid]
    tokenizer = load_tokenizer(checkpoint.name, revision=checkpoint.revision)
    data = _encoded(tokenizer, train, options), _encoded(tokenizer, dev, options)
    trials: list[Trial] = []
    for number, (batch_size, rate) in enumerate(grid):
        done = sum(updates[:number])

        def step(steps: int, done: int = done) -> None:
            if progress:
                progress(done + steps, sum(updates))

        with quiet_transformers(), tempfile.TemporaryDirectory(dir=scratch) as directory:
            trainer = _trainer(
                _fresh_model(checkpoint, label_names, options),
                data,
                tokenizer,
                _arguments(options, batch_size, rate, Path(directory)),
                step,
            )
            trainer.train()
            score = float(trainer.state.best_metric or 0.0)
            if not trials or score > max(trial.dev_accuracy for trial in trials):
                save_classifier(tokenizer, trainer.model, output)
            trials.append(Trial(batch_size, rate, score))
        logger.info("teacher: batch %d, rate %g: %.4f on dev", batch_size, rate, score)
        del trainer
        gc.collect()
    return tuple(trials)


def _fresh_model(checkpoint: Checkpoint, label_names: Sequence[str], options: FineTuning) -> Any:  # noqa: ANN401
    """Return the checkpoint with a head for the task, its start a function of the seed."""
    from transformers import set_seed

    set_seed(options.seed)
    return load_model(
        checkpoint.name,
        revision=checkpoint.revision,
        num_labels=len(label_names),
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
        problem_type="single_label_classification",
        **_dropout(checkpoint, options.dropout),
    )


def _dropout(checkpoint: Checkpoint, rate: float | None) -> dict[str, float]:
    """Return every setting of the checkpoint that is a dropout, each architecture's own names."""
    if rate is None:
        return {}
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint.name, revision=checkpoint.revision)
    return {name: rate for name in config.to_dict() if "dropout" in name}


def _encoded(tokenizer: Any, rows: LabelledTexts, options: FineTuning) -> list[dict[str, Any]]:  # noqa: ANN401
    longest = min(options.max_length, tokenizer.model_max_length)
    encoded = tokenizer(list(rows.texts), truncation=True, max_length=longest)
    return [
        {**{name: values[i] for name, values in encoded.items()}, "labels": int(label)}
        for i, label in enumerate(rows.labels)
    ]


def _arguments(options: FineTuning, batch_size: int, rate: float, directory: Path) -> Any:  # noqa: ANN401
    import torch
    from transformers import TrainingArguments

    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(directory),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=64,
        learning_rate=rate,
        lr_scheduler_type="linear",
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        eval_strategy="epoch",
        save_strategy="best",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        train_sampling_strategy="group_by_length",
        seed=options.seed,
        bf16=options.precision == "bfloat16" or (on_gpu and torch.cuda.is_bf16_supported()),
        dataloader_pin_memory=on_gpu,
        use_cpu=not on_gpu,
        disable_tqdm=True,
        report_to=[],
        logging_strategy="no",
    )


def _trainer(
    model: Any,  # noqa: ANN401
    data: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    tokenizer: Any,  # noqa: ANN401
    arguments: Any,  # noqa: ANN401
    step: Callable[[int], None],
) -> Any:  # noqa: ANN401
    from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainerCallback

    class Steps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:  # noqa: ANN401
            del args, control, rest
            step(state.global_step)

    train, dev = data
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=dev,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda out: {
            "accuracy": accuracy(np.asarray(out.label_ids), np.asarray(out.predictions).argmax(1))
        },
        callbacks=[Steps()],
    )
    # It prints to the terminal what `state` has anyway.
    trainer.remove_callback(PrinterCallback)
    return trainer
