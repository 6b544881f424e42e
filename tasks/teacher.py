"""The teacher: a transformer fine-tuned on ``train``, or one that was fine-tuned elsewhere.

The artifact is a Hugging Face directory with its tokenizer, whose labels are the task's. Its
accuracy on ``dev`` is measured with the very code that will label the corpus, so that the stored
logits can be held against it before a student is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from sparsedistill.metrics import accuracy
from sparsedistill.teacher.checkpoint import (
    Checkpoint,
    load_classifier,
    resolve_checkpoint,
    save_classifier,
)
from sparsedistill.teacher.finetune import FineTuning, LabelledTexts, fine_tune
from sparsedistill.teacher.labelling import LabellingOptions, Precision, Teacher
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.shards import Texts, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input

KIND, VERSION = "teacher", 1
MODEL_DIRECTORY = "model"


class TeacherConfig(Table):
    """``[teacher]``: which transformer, and how it is fine-tuned."""

    checkpoint: str = Field(description="directory, or name on the Hugging Face hub")
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    finetune: bool = Field(True, description="false: the checkpoint is taken as it is")
    epochs: int = Field(10, ge=1)
    batch_sizes: tuple[int, ...] = Field((16, 32), min_length=1)
    learning_rates: tuple[float, ...] = Field((1e-5, 2e-5, 5e-5), min_length=1)
    warmup: float = Field(0.06, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    max_length: int = Field(512, ge=8, description="tokens of a text that the teacher reads")
    seed: int = 0
    dropout: float | None = Field(
        None, ge=0, lt=1, description="while fine-tuning; the checkpoint's own if not given"
    )
    precision: Precision = Field("float32", description="of products, here and while labelling")


def jobs(
    config: TeacherConfig, *, base: str | None, train: Made, dev: Made, threads: int
) -> list[Job]:
    """Return the one job of the teacher.

    Raises:
        ConfigError: There is no such checkpoint, or the hub cannot be asked for it.
    """
    checkpoint = resolve_checkpoint(_located(config.checkpoint, base), revision=config.revision)
    settings = config.model_dump(mode="json", exclude={"checkpoint", "revision"})
    if not config.finetune:
        settings = config.model_dump(mode="json", include={"finetune", "max_length", "precision"})
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
    }
    return [Job(recipe, runtime)]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Fine-tune (or take over) the checkpoint, then label ``dev`` with it."""
    config = TeacherConfig.model_validate(job.runtime["config"])
    dev = read_shard(store, single_input(job.recipe, "dev"))
    checkpoint = Checkpoint(
        name=job.runtime["checkpoint"],
        revision=job.runtime["revision"],
        digest=str(job.recipe.config["checkpoint"]),
    )
    output = writer.path(f"{MODEL_DIRECTORY}/config.json").parent
    if config.finetune:
        train = read_shard(store, single_input(job.recipe, "train"))
        scratch = store.workspace(job.recipe)
        trials = _fine_tune(config, checkpoint, train, dev, output, scratch, job, progress)
        writer.statistics["trials"] = trials
    else:
        save_classifier(*load_classifier(checkpoint.name, revision=checkpoint.revision), output)
    writer.statistics.update(_on_dev(output, dev, config, job.runtime["threads"]))


STAGE = Stage(KIND, VERSION, build)


def _located(checkpoint: str, base: str | None) -> str:
    """Return the directory under ``base`` if there is one, else the name as it is."""
    if base is not None and "://" not in base and (Path(base) / checkpoint).is_dir():
        return str(Path(base) / checkpoint)
    return checkpoint


def _fine_tune(
    config: TeacherConfig,
    checkpoint: Checkpoint,
    train: Texts,
    dev: Texts,
    output: Path,
    scratch: Path,
    job: Job,
    progress: Progress,
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
            warmup=config.warmup,
            weight_decay=config.weight_decay,
            max_length=config.max_length,
            seed=config.seed,
            dropout=config.dropout,
            precision=config.precision,
        ),
        output=output,
        scratch=scratch,
        threads=job.runtime["threads"],
        progress=lambda done, total: progress(done / total),
    )
    return [
        {
            "batch_size": t.batch_size,
            "learning_rate": t.learning_rate,
            "dev_accuracy": t.dev_accuracy,
        }
        for t in trials
    ]


def _labelled(texts: Texts) -> LabelledTexts:
    assert texts.labels is not None  # noqa: S101 - splits of the dataset have labels
    return LabelledTexts(list(texts.texts), texts.labels.tolist())


def _on_dev(output: Path, dev: Texts, config: TeacherConfig, threads: int) -> dict[str, Any]:
    """Return accuracy on dev, and whether float16 keeps every one of its labels."""
    teacher = Teacher(
        output,
        labels=dev.label_names,
        options=LabellingOptions(
            max_length=config.max_length, threads=threads, precision=config.precision
        ),
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
        "max_length": config.max_length,
        "precision": config.precision,
    }
