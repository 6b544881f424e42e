"""Fine-tuning of a distilled student on the labels of ``train``: the paper's DAN (KD+FT).

It is kept only where it helps on ``dev``: the paper's own table has two tasks that it hurts.
Otherwise the artifact holds the student as it was distilled. A kill costs the rates that were done:
fine-tuning is short beside distilling, and keeping the best of each rate would not be.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from sparsedistill.metrics import accuracy
from sparsedistill.objectives import objective
from sparsedistill.students import StudentTraining
from sparsedistill.training.loop import Checkpointing, fit
from sparsedistill.training.recipe import TrainingRecipe
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.shards import open_input
from tasks.stage import Job, Made, Progress, Stage, Table, single_input
from tasks.student import training_statistics, weights_of
from tasks.student_examples import labelled_examples
from tasks.student_file import FILE, read_shape, read_student, write_student

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sparsedistill.bag_source import MappedBags
    from sparsedistill.training.loop import Examples

KIND, VERSION = "finetune", 2


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
    training: StudentTraining,
    class_weights: str,
    threads: int,
) -> list[Job]:
    """Return one job for each distilled student.

    Args:
        config: The table ``[finetune]``.
        students: The distilled ones.
        features: Of ``train`` and ``dev``, one each.
        splits: ``train`` and ``dev``.
        training: Dropout, decay and Adam's constants, as the students were trained with.
        class_weights: Of the losses, as the students' own were.
        threads: Of the kernels and of torch.
    """
    return [
        Job(
            Recipe(
                KIND,
                VERSION,
                config={
                    **config.model_dump(mode="json"),
                    **asdict(training),
                    "class_weights": class_weights,
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
    settings = job.recipe.config
    config = FinetuneConfig.model_validate({k: settings[k] for k in FinetuneConfig.model_fields})
    distilled = open_input(store, single_input(job.recipe, "student")).path(FILE)
    shape = read_shape(distilled)
    rows, classes = shape.rows, shape.classes
    examples = _examples(job, store, "train", rows)
    dev = _examples(job, store, "dev", rows)
    seed = int(settings["seed"])  # type: ignore[arg-type]
    goal = objective("hard", weights=weights_of(str(settings["class_weights"]), examples, classes))
    before = best_accuracy = _accuracy(distilled, dev, threads=job.runtime["threads"])
    chosen: dict[str, Any] = {"helped": False}
    best = writer.path(FILE)
    shutil.copyfile(distilled, best)
    for number, rate in enumerate(config.learning_rates if config.enabled else ()):
        student = read_student(
            distilled, training=_training(settings), seed=seed, threads=job.runtime["threads"]
        )
        recipe = TrainingRecipe(
            batch_size=config.batch_size, learning_rate=rate, epochs=config.epochs, decay="linear"
        )
        directory = store.workspace(job.recipe) / f"rate-{number}"
        directory.mkdir(exist_ok=True)
        result = fit(
            student,
            examples,
            goal,
            recipe,
            dev=dev,
            seed=seed,
            checkpointing=Checkpointing(directory),
        )
        if result.best_accuracy > best_accuracy:
            best_accuracy = result.best_accuracy
            chosen = {"helped": True, "learning_rate": rate, **training_statistics(result)}
            write_student(student, best)
        shutil.rmtree(directory)  # several gigabytes, of a large student
        progress((number + 1) / len(config.learning_rates))
    chosen |= {"seed": seed, "dev_accuracy_before": before, "dev_accuracy": best_accuracy}
    writer.statistics.update(chosen)


STAGE = Stage(KIND, VERSION, build)


def _examples(job: Job, store: ArtifactStore, split: str, rows: int) -> Examples[MappedBags]:
    texts, features = single_input(job.recipe, split), single_input(job.recipe, f"{split}_features")
    return labelled_examples(store, texts, features, vocabulary_rows=rows)


def _accuracy(student: Path, dev: Examples[MappedBags], *, threads: int) -> float:
    """Return the accuracy on ``dev`` of a student as it was written."""
    truth = np.asarray(dev.targets.labels)
    return accuracy(
        truth, read_student(student, threads=threads).predict(dev.inputs).argmax(axis=1)
    )


def _training(settings: Mapping[str, Any]) -> StudentTraining:
    values = {field.name: settings[field.name] for field in fields(StudentTraining)}
    return StudentTraining(**{**values, "betas": tuple(values["betas"])})
