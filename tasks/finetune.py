"""Fine-tuning of a distilled student on the labels of ``train``: the paper's DAN (KD+FT).

It is kept only where it helps on ``dev``: the paper's own table has two tasks that it hurts.
Otherwise the artifact holds the student as it was distilled.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from sparsedistill.errors import DataError
from sparsedistill.metrics import accuracy
from sparsedistill.objectives import Hard
from sparsedistill.students import DANRegularisation
from sparsedistill.training.loop import Examples, fit
from sparsedistill.training.recipe import TrainingRecipe
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.features import read_features
from tasks.shards import open_input, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input
from tasks.student import read_student, training_statistics, write_student

if TYPE_CHECKING:
    from collections.abc import Mapping

KIND, VERSION = "finetune", 1


class FinetuneConfig(Table):
    """``[finetune]``: whether and how the distilled student learns the labels of ``train``."""

    enabled: bool = True
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rates: tuple[float, ...] = Field((3e-4, 1e-4, 3e-5), min_length=1)


def jobs(
    config: FinetuneConfig,
    students: list[Made],
    *,
    features: dict[str, list[Made]],
    splits: dict[str, Made],
    regularisation: DANRegularisation,
    threads: int,
) -> list[Job]:
    """Return one job for each distilled student.

    Args:
        config: The table ``[finetune]``.
        students: The distilled ones.
        features: Of ``train`` and ``dev``, one each.
        splits: ``train`` and ``dev``.
        regularisation: Dropout, decay and Adam's constants, as the students were trained with.
        threads: Of the kernels and of torch.
    """
    return [
        Job(
            Recipe(
                KIND,
                VERSION,
                config={
                    **config.model_dump(mode="json"),
                    **asdict(regularisation),
                    "seed": student.statistics["seed"],
                },
                inputs={
                    "student": (student.as_input(),),
                    "train": (splits["train"].as_input(),),
                    "dev": (splits["dev"].as_input(),),
                    "train_features": (features["train"][0].as_input(),),
                    "dev_features": (features["dev"][0].as_input(),),
                },
            ),
            runtime={"threads": threads},
            label=f"seed {student.statistics['seed']}",
        )
        for student in students
    ]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Fine-tune one student with each learning rate; keep the best, or the student as it was."""
    import torch

    torch.set_num_threads(job.runtime["threads"])
    settings = job.recipe.config
    config = FinetuneConfig.model_validate({k: settings[k] for k in FinetuneConfig.model_fields})
    examples = _examples(job, store, "train")
    dev = _examples(job, store, "dev")
    truth = dev.targets.astype(np.int64)
    distilled = open_input(store, single_input(job.recipe, "student"))
    regularisation = _regularisation(settings)
    seed = int(settings["seed"])  # type: ignore[arg-type]
    best = read_student(distilled)
    before = best_accuracy = accuracy(truth, best.predict(dev.bags).argmax(axis=1))
    chosen: dict[str, Any] = {"helped": False}
    for number, rate in enumerate(config.learning_rates if config.enabled else ()):
        student = read_student(
            distilled, regularisation=regularisation, seed=seed, threads=job.runtime["threads"]
        )
        recipe = TrainingRecipe(
            batch_size=config.batch_size, learning_rate=rate, epochs=config.epochs, decay="linear"
        )
        result = fit(student, examples, Hard(), recipe, dev=dev, seed=seed)
        if result.best_accuracy > best_accuracy:
            best, best_accuracy = student, result.best_accuracy
            chosen = {"helped": True, "learning_rate": rate, **training_statistics(result)}
        progress((number + 1) / len(config.learning_rates))
    write_student(best, writer)
    chosen |= {"seed": seed, "dev_accuracy_before": before, "dev_accuracy": best_accuracy}
    writer.statistics.update(chosen)


STAGE = Stage(KIND, VERSION, build)


def _examples(job: Job, store: ArtifactStore, split: str) -> Examples:
    texts = read_shard(store, single_input(job.recipe, split))
    _, bags = read_features(open_input(store, single_input(job.recipe, f"{split}_features")))
    if texts.labels is None:
        raise DataError(f"{split} has no labels")
    return Examples(bags, texts.labels)


def _regularisation(settings: Mapping[str, Any]) -> DANRegularisation:
    values = {field.name: settings[field.name] for field in fields(DANRegularisation)}
    return DANRegularisation(**{**values, "betas": tuple(values["betas"])})
