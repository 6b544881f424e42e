"""One fine-tuning of the teacher by transformers' Trainer: a batch size, a rate, a seed.

The order of the rows is a function of seed and epoch, and the Trainer's checkpoints hold the state
of every random generator: a trial that was killed ends, on a CPU, in the same bits as one that was
not. Of what a checkpoint holds, the Trainer loads weights as safetensors and the rest with
``weights_only``, so that nothing in it is run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_pt_utils import get_length_grouped_indices

from sparsedistill.metrics import accuracy
from sparsedistill.onednn import has_onednn
from sparsedistill.students.linear import linear
from sparsedistill.teacher.checkpoint import save_classifier
from sparsedistill.teacher.resume import Trial, TrialFiles, seal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sparsedistill.class_weights import ClassWeights
    from sparsedistill.teacher.finetune import FineTuning
    from sparsedistill.teacher.session import Precision

Rows = list[dict[str, Any]]
"""What the model reads of every row, and its label, by the names of the model's inputs."""

# Where saving takes longer than this share of the time between, there is more time between.
_SHARE_OF_SAVING = 0.1


@dataclass(frozen=True, slots=True)
class Setting:
    """What is tried: a point of the grid, and a seed."""

    batch_size: int
    learning_rate: float
    seed: int

    def __str__(self) -> str:
        return f"batch {self.batch_size}, rate {self.learning_rate:g}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how a trial gets on.

    Attributes:
        update: Called with the updates done.
        look: Called after an epoch with its figures, by name.
    """

    update: Callable[[int], None]
    look: Callable[[dict[str, float]], None]


def run_trial(
    setting: Setting,
    model: Any,  # noqa: ANN401
    tokenizer: Any,  # noqa: ANN401
    *,
    train: Rows,
    dev: Rows,
    weights: ClassWeights | None,
    options: FineTuning,
    on_gpu: bool,
    files: TrialFiles,
    every_seconds: float,
    watch: Watch,
) -> Trial:
    """Fine-tune a model, from its last resume point if it has one; the best is left in ``files``.

    Args:
        setting: What is tried.
        model: As it begins; changed.
        tokenizer: The model's.
        train: To learn from.
        dev: Looked at after every epoch.
        weights: Of a row's loss, by its label.
        options: What all trials share.
        on_gpu: Whether the first GPU does the work, or the CPU.
        files: Of this trial.
        every_seconds: Of work from one resume point to the next; 0 is after every update.
        watch: Is told.
    """
    epoch = -(-len(train) // setting.batch_size)
    resumed = files.last_checkpoint(first_look=epoch)
    order = _Order([len(row["input_ids"]) for row in train], setting)
    keeper = _Keeper(
        files, tokenizer, order, watch, epoch=epoch, every_seconds=every_seconds,
        seconds=resumed[1] if resumed else 0.0,
    )  # fmt: skip
    arguments = _arguments(setting, options, files, on_gpu=on_gpu)
    if arguments.use_cpu and not arguments.bf16:
        _use_onednn(model)
    trainer = _Ordered(
        order,
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=dev,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_loss_func=None if weights is None else _weighted(weights),
        compute_metrics=lambda out: {
            "accuracy": accuracy(np.asarray(out.label_ids), np.asarray(out.predictions).argmax(1))
        },
        callbacks=[keeper],
    )
    # It prints to the terminal what the callbacks tell anyway.
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(resumed[0]) if resumed else None)
    best = files.best()
    assert best is not None  # noqa: S101 - every epoch ends with a look
    return Trial(
        setting.batch_size, setting.learning_rate, setting.seed, best.accuracy, best.epoch,
        round(keeper.seconds, 3),
    )  # fmt: skip


class _Order(Sampler[int]):
    """Rows of like length in a batch, in an order that is a function of seed and epoch."""

    def __init__(self, lengths: Sequence[int], setting: Setting) -> None:
        self.epoch = 0
        self._lengths = lengths
        self._setting = setting

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        words = np.random.SeedSequence((self._setting.seed, self.epoch)).generate_state(1)
        generator = torch.Generator().manual_seed(int(words[0]))
        rows: list[int] = get_length_grouped_indices(  # type: ignore[no-untyped-call]
            self._lengths, self._setting.batch_size, generator=generator
        )
        return iter(rows)


class _Ordered(Trainer):
    """The Trainer with an order of rows that a resumed run can repeat."""

    def __init__(self, order: _Order, **arguments: Any) -> None:  # noqa: ANN401
        super().__init__(**arguments)
        self._order = order

    def _get_train_sampler(self, train_dataset: Any = None) -> _Order:  # noqa: ANN401
        del train_dataset
        return self._order


class _Keeper(TrainerCallback):
    """Keeps the best model and resume points, and tells of progress.

    A resume point at the end of an epoch is put down after the look at ``dev``, never between the
    two: resumed there, the Trainer would leave the look out.
    """

    def __init__(
        self,
        files: TrialFiles,
        tokenizer: Any,  # noqa: ANN401
        order: _Order,
        watch: Watch,
        *,
        epoch: int,
        every_seconds: float,
        seconds: float,
    ) -> None:
        self._files, self._tokenizer, self._order, self._watch = files, tokenizer, order, watch
        self._epoch, self._every = epoch, every_seconds
        self._before = seconds
        self._begin = self._last = time.perf_counter()
        self._cost = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of work so far, those before a resume among them."""
        return self._before + time.perf_counter() - self._begin

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:  # noqa: ANN401
        del args, control, rest
        self._order.epoch = state.global_step // self._epoch

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:  # noqa: ANN401
        del args, rest
        self._watch.update(state.global_step)
        if state.global_step % self._epoch and self._due():
            self._save(control)

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:  # noqa: ANN401
        del args
        found, epoch = float(rest["metrics"]["eval_accuracy"]), state.global_step // self._epoch
        best = self._files.best()
        if best is None or found > best.accuracy:
            self._files.keep_best(
                found, epoch=epoch, update=state.global_step,
                save=lambda path: save_classifier(self._tokenizer, rest["model"], path),
            )  # fmt: skip
        self._watch.look({"epoch": epoch, "dev_accuracy": found})
        if state.global_step < state.max_steps and self._due():
            self._save(control)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:  # noqa: ANN401
        del args, control, rest
        seal(self._files.checkpoint(state.global_step), seconds=self.seconds)
        self._last, begin = time.perf_counter(), self._last
        self._cost = self._last - begin

    def _due(self) -> bool:
        least = max(self._every, self._cost / _SHARE_OF_SAVING) if self._every else 0.0
        return time.perf_counter() - self._last >= least

    def _save(self, control: Any) -> None:  # noqa: ANN401
        self._last = time.perf_counter()
        control.should_save = True


def _arguments(
    setting: Setting, options: FineTuning, files: TrialFiles, *, on_gpu: bool
) -> TrainingArguments:
    bfloat16, float16 = mixed_precision(options.precision, on_gpu=on_gpu)
    arguments = TrainingArguments(
        output_dir=str(files.directory),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=setting.batch_size,
        per_device_eval_batch_size=64,
        learning_rate=setting.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=options.warmup,
        weight_decay=options.weight_decay,
        eval_strategy="epoch",
        save_strategy="no",
        save_total_limit=2,
        seed=setting.seed,
        bf16=bfloat16,
        fp16=float16,
        dataloader_pin_memory=on_gpu,
        use_cpu=not on_gpu,
        disable_tqdm=True,
        report_to=[],
        logging_strategy="no",
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # or each would get a batch, and the batch size would be another
    return arguments


def mixed_precision(precision: Precision, *, on_gpu: bool) -> tuple[bool, bool]:
    """Return whether products are in bfloat16, and whether in float16.

    A GPU that would only imitate bfloat16 has float16; on a CPU float16 saves nothing.
    """
    if not on_gpu:
        return precision == "bfloat16", False
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return bfloat16, not bfloat16


def _weighted(weights: ClassWeights) -> Callable[..., torch.Tensor]:
    """Return the loss of a batch in which a row counts by its label."""

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:  # noqa: ANN401
        del num_items_in_batch
        logits: torch.Tensor = outputs["logits"].float()
        by_label = logits.new_tensor(weights)[labels]
        return (nn.functional.cross_entropy(logits, labels, reduction="none") * by_label).mean()

    return loss


def _use_onednn(model: nn.Module) -> None:
    """Have a model's linear layers multiply, forward and backward, by the faster library."""

    def by_onednn(layer: nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(values: torch.Tensor) -> torch.Tensor:
            flat = linear(values.reshape(-1, layer.in_features), layer.weight, layer.bias)
            return flat.view(*values.shape[:-1], layer.out_features)

        return forward

    for layer in model.modules():
        if type(layer) is nn.Linear and layer.bias is not None and has_onednn(layer.weight):
            layer.forward = by_onednn(layer)  # type: ignore[assignment]
