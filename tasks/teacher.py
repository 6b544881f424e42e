"""The teacher: a transformer fine-tuned on ``train``, or one that was fine-tuned elsewhere.

The artifact is a Hugging Face directory with its tokenizer, whose labels are the task's. Its
accuracy on ``dev`` is measured with the very code that will label the corpus, so that the stored
logits can be held against it before a student is trained.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from pydantic import Field, NonNegativeInt, model_validator

from sparsedistill.metrics import accuracy
from sparsedistill.teacher.checkpoint import (
    Checkpoint,
    load_classifier,
    resolve_checkpoint,
    save_classifier,
)
from sparsedistill.teacher.devices import (
    CPU,
    device_in_turn,
    fine_tuning_device,
    teacher_devices,
)
from sparsedistill.teacher.encoding import LONGEST, LongTexts
from sparsedistill.teacher.finetune import FineTuning, LabelledTexts, fine_tune
from sparsedistill.teacher.labelling import LabellingOptions, Teacher
from sparsedistill.teacher.preflight import check_teacher, task_labels
from sparsedistill.teacher.session import Precision
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.progress import measured
from tasks.shards import Texts, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input
from tasks.work import waiting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KIND, VERSION = "teacher", 2
MODEL_DIRECTORY = "model"
READING = ("max_length", "long_texts", "overlap", "precision")
"""How the teacher reads, here and while it labels: of the manifest's statistics."""


class TeacherConfig(Table):
    """``[teacher]``: which transformer, and how it is fine-tuned."""

    checkpoint: str = Field(description="directory, or name on the Hugging Face hub")
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    finetune: bool = Field(True, description="false: the checkpoint is taken as it is")
    label_names: dict[str, str] = Field(
        default_factory=dict,
        description="the task's label by the checkpoint's, where names differ; without fine-tuning",
    )
    epochs: int = Field(10, ge=1)
    batch_sizes: tuple[int, ...] = Field((16, 32), min_length=1)
    learning_rates: tuple[float, ...] = Field((1e-5, 2e-5, 5e-5), min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field(
        (0,), min_length=1, description="each setting is tried with each; the best on dev is taken"
    )
    warmup: float = Field(0.06, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="of what labels ask for, while fine-tuning"
    )
    dropout: float | None = Field(
        None, ge=0, lt=1, description="while fine-tuning; the checkpoint's own if not given"
    )
    max_length: int | None = Field(
        None, ge=8, description="tokens that the teacher reads at once; at most 512 if not given"
    )
    long_texts: LongTexts = Field(
        "truncate", description="windows: the mean over windows of max_length; not in fine-tuning"
    )
    overlap: int = Field(64, ge=0, description="tokens that a window shares with the one before")
    precision: Precision = Field("float32", description="of products, here and while labelling")

    @model_validator(mode="after")
    def _names_of_a_head_that_stays(self) -> TeacherConfig:
        if self.label_names and self.finetune:
            raise ValueError(
                "label_names is for a checkpoint that is taken as it is: set finetune = false, or "
                "leave label_names out, as fine-tuning makes a new head with the task's labels"
            )
        return self

    @property
    def longest(self) -> int:
        """Tokens that are read at once where the model has positions for so many."""
        return self.max_length or LONGEST


def jobs(
    config: TeacherConfig,
    *,
    base: str | None,
    train: Made,
    dev: Made,
    threads: int,
    devices: Sequence[str] | None = None,
) -> list[Job]:
    """Return the one job of the teacher.

    Raises:
        ConfigError: There is no such checkpoint, or the hub cannot be asked for it.
    """
    checkpoint = resolve_checkpoint(_located(config.checkpoint, base), revision=config.revision)
    unread = {"overlap"} if config.long_texts == "truncate" else set()
    settings = config.model_dump(mode="json", exclude={"checkpoint", "revision", *unread})
    if not config.finetune:
        taken = {"finetune", "label_names", *READING} - unread
        settings = config.model_dump(mode="json", include=taken)
    recipe = Recipe(
        KIND,
        VERSION,
        config={**settings, "checkpoint": checkpoint.digest, "labels": train.statistics["labels"]},
        inputs={"train": (train.as_input(),) if config.finetune else (), "dev": (dev.as_input(),)},
    )
    runtime = {
        "config": config.model_dump(mode="json"),
        "checkpoint": checkpoint.name,
        "revision": checkpoint.revision,
        "threads": threads,
        "devices": None if devices is None else list(devices),
    }
    return [Job(recipe, runtime)]


def preflight(job: Job) -> None:
    """Refuse a checkpoint that cannot become this teacher, in seconds.

    Raises:
        TeacherError: It cannot; the message says why, and what to do.
    """
    config = TeacherConfig.model_validate(job.runtime["config"])
    check_teacher(
        _checkpoint(job),
        labels=cast("list[str]", job.recipe.config["labels"]),
        finetune=config.finetune,
        max_length=config.max_length,
        long_texts=config.long_texts,
        overlap=config.overlap,
        label_names=config.label_names,
    )


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Fine-tune (or take over) the checkpoint, then label ``dev`` with it."""
    config = TeacherConfig.model_validate(job.runtime["config"])
    dev = read_shard(store, single_input(job.recipe, "dev"))
    checkpoint = _checkpoint(job)
    output = writer.path(f"{MODEL_DIRECTORY}/config.json").parent
    with waiting("device", device_in_turn(_devices(job))) as device:
        if config.finetune:
            train = read_shard(store, single_input(job.recipe, "train"))
            scratch = store.workspace(job.recipe)
            trials = _fine_tune(
                config, checkpoint, train, dev, output, scratch, job, progress, device=device
            )
            writer.statistics["trials"] = trials
        else:
            _take_over(checkpoint, dev.label_names, config.label_names, output)
        threads = job.runtime["threads"]
        writer.statistics.update(_on_dev(output, dev, config, threads=threads, device=device))


STAGE = Stage(KIND, VERSION, build)


def _located(checkpoint: str, base: str | None) -> str:
    """Return the directory under ``base`` if there is one, else the name as it is."""
    if base is not None and "://" not in base and (Path(base) / checkpoint).is_dir():
        return str(Path(base) / checkpoint)
    return checkpoint


def _devices(job: Job) -> tuple[str, ...]:
    """Return where the teacher may be made: of several GPUs the Trainer takes the first."""
    devices = teacher_devices(job.runtime["devices"])
    return (fine_tuning_device(devices),) if job.recipe.config["finetune"] else devices


def _checkpoint(job: Job) -> Checkpoint:
    return Checkpoint(
        name=job.runtime["checkpoint"],
        revision=job.runtime["revision"],
        digest=str(job.recipe.config["checkpoint"]),
    )


def _take_over(
    checkpoint: Checkpoint, labels: Sequence[str], label_names: Mapping[str, str], output: Path
) -> None:
    """Save a checkpoint as it is, its labels under the task's names."""
    tokenizer, model = load_classifier(checkpoint.name, revision=checkpoint.revision)
    renamed = task_labels(model.config.id2label, labels, label_names)
    if label_names:
        model.config.id2label = renamed
        model.config.label2id = {name: index for index, name in renamed.items()}
    save_classifier(tokenizer, model, output)


def _fine_tune(
    config: TeacherConfig,
    checkpoint: Checkpoint,
    train: Texts,
    dev: Texts,
    output: Path,
    scratch: Path,
    job: Job,
    progress: Progress,
    *,
    device: str,
) -> list[dict[str, Any]]:
    trials = fine_tune(
        checkpoint,
        train=_labelled(train),
        dev=_labelled(dev),
        label_names=dev.label_names,
        options=FineTuning(
            epochs=config.epochs,
            batch_sizes=config.batch_sizes,
            learning_rates=config.learning_rates,
            seeds=config.seeds,
            warmup=config.warmup,
            weight_decay=config.weight_decay,
            max_length=config.longest,
            dropout=config.dropout,
            class_weights=config.class_weights,
            precision=config.precision,
        ),
        output=output,
        scratch=scratch,
        threads=job.runtime["threads"],
        on_gpu=device != CPU,
        progress=lambda done, total: progress(done / total),
        measured=lambda label, figures: measured(KIND, job.recipe.key, label, figures),
    )
    return [asdict(trial) for trial in trials]


def _labelled(texts: Texts) -> LabelledTexts:
    assert texts.labels is not None  # noqa: S101 - splits of the dataset have labels
    return LabelledTexts(list(texts.texts), texts.labels.tolist())


def _on_dev(
    output: Path, dev: Texts, config: TeacherConfig, *, threads: int, device: str
) -> dict[str, Any]:
    """Return accuracy on dev, and whether float16 keeps every one of its labels."""
    reading = {**config.model_dump(include=set(READING)), "max_length": config.longest}
    teacher = Teacher(
        output,
        labels=dev.label_names,
        options=LabellingOptions(threads=threads, device=device, **reading),
    )
    logits = teacher.logits(list(dev.texts))
    with np.errstate(over="ignore"):
        rounded = logits.astype(np.float16)
    assert dev.labels is not None  # noqa: S101
    return {
        "labels": list(dev.label_names),
        "dev_accuracy": accuracy(dev.labels, logits.argmax(axis=1)),
        "float16_accuracy": accuracy(dev.labels, rounded.argmax(axis=1)),
        "float16_finite": bool(np.isfinite(rounded).all()),
        "parameters": teacher.parameters,
        **reading,
        "max_length": teacher.max_length,
    }
