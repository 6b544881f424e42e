"""Students: Deep Averaging Networks that learn from the teacher's logits, or from labels.

One artifact is one variant with one seed:

* ``kd``: imitates the teacher on the corpus and on ``train`` (the paper's DAN (KD));
* ``kd_private``: on the corpus alone, as where ``train`` may not leave its house;
* ``scratch``: learns the labels of ``train`` and sees no teacher.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from safetensors import safe_open
from safetensors.numpy import save_file

from sparsedistill.bags import Bags
from sparsedistill.errors import DataError
from sparsedistill.objectives import ObjectiveName, objective
from sparsedistill.students import DAN, DANRegularisation, DANShape
from sparsedistill.training.loop import Checkpointing, Examples, TrainingResult, fit
from sparsedistill.training.recipe import Decay, TrainingRecipe
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.features import read_features
from tasks.logits import check_alignment, check_given, read_logits
from tasks.presets import PRESETS, PresetName
from tasks.shards import open_input, positions, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input

if TYPE_CHECKING:
    from storage import Artifact, Input

KIND, VERSION = "student", 1
FILE = "student.safetensors"
Variant = Literal["kd", "kd_private", "scratch"]
VARIANTS: tuple[Variant, ...] = ("scratch", "kd_private", "kd")


class StudentConfig(Table):
    """``[student]``: size and training of the student; ``preset`` gives what is not set here."""

    preset: PresetName = "default"
    seeds: tuple[int, ...] = Field(
        (0,), min_length=1, description="one student each; the best on dev is packaged"
    )
    width: int = Field(ge=1, description="of the embeddings (d_e)")
    hidden: int = Field(ge=1, description="of the hidden layer (d_h), and of the packaged table")
    activation: Literal["relu", "tanh"]
    init_scale: float = Field(gt=0, description="standard deviation of the embeddings' start")
    objective: ObjectiveName
    temperature: float = Field(gt=0)
    epochs: int | None = Field(ge=1)
    updates: int | None = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup: float = Field(ge=0, lt=1)
    decay: Decay
    evaluate_every: int | None = Field(ge=1, description="updates; every epoch where not given")
    feature_dropout: float = Field(ge=0, lt=1)
    dropout: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    betas: tuple[float, float]
    epsilon: float = Field(gt=0)
    baselines: tuple[Variant, ...] = Field(
        ("scratch", "kd_private"), description="students trained only to be compared with"
    )
    scratch_epochs: int = Field(ge=1, description="of the baseline that sees no teacher")
    scratch_batch_size: int = Field(ge=1)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:  # noqa: ANN401 - as pydantic has it
        if not isinstance(given, Mapping):
            return given
        name = given.get("preset", "default")
        preset = dict(next((p for n, p in PRESETS.items() if n == name), PRESETS["default"]))
        if given.get("updates") is not None and "epochs" not in given:
            preset["epochs"] = None
        if given.get("epochs") is not None and "updates" not in given:
            preset["updates"] = None
        return {**preset, **given}

    @model_validator(mode="after")
    def _one_length(self) -> StudentConfig:
        if (self.epochs is None) == (self.updates is None):
            raise ValueError("give either epochs or updates")
        return self

    def training(self, variant: Variant) -> TrainingRecipe:
        """Return the schedule of a variant."""
        scratch = variant == "scratch"
        return TrainingRecipe(
            batch_size=self.scratch_batch_size if scratch else self.batch_size,
            learning_rate=self.learning_rate,
            epochs=self.scratch_epochs if scratch else self.epochs,
            updates=None if scratch else self.updates,
            warmup=self.warmup,
            decay=self.decay,
            evaluate_every=None if scratch else self.evaluate_every,
        )

    def regularisation(self) -> DANRegularisation:
        """Return the dropout, decay and Adam's constants."""
        return DANRegularisation(
            feature_dropout=self.feature_dropout,
            dropout=self.dropout,
            weight_decay=self.weight_decay,
            betas=self.betas,
            epsilon=self.epsilon,
        )


def jobs(
    config: StudentConfig,
    *,
    vocabulary: Made,
    features: Mapping[str, Sequence[Made]],
    logits: Mapping[str, Sequence[Made]],
    splits: Mapping[str, Made],
    teacher: Made | None,
    alignment_tolerance: float,
    threads: int,
) -> list[Job]:
    """Return one job for each variant and seed, the baselines first.

    Args:
        config: The table ``[student]``.
        vocabulary: Its size is the table's.
        features: Of ``corpus`` (one a shard), ``train``, ``dev``.
        logits: Of ``corpus``, ``train`` and ``dev``, in the same order.
        splits: ``train`` and ``dev`` with their labels.
        teacher: Whose accuracy on ``dev`` the stored logits must reproduce; None for given logits.
        alignment_tolerance: By how much they may miss it.
        threads: Of the kernels and of torch.
    """
    found = []
    for variant in (*config.baselines, "kd"):
        for seed in config.seeds:
            inputs = {
                "vocabulary": (vocabulary.as_input(),),
                "dev": (splits["dev"].as_input(),),
                "dev_features": _inputs(features["dev"]),
            }
            if variant == "scratch":
                inputs |= {"train": (splits["train"].as_input(),)}
                inputs |= {"features": _inputs(features["train"])}
            else:
                parts = ("corpus",) if variant == "kd_private" else ("corpus", "train")
                inputs |= {
                    "features": tuple(i for part in parts for i in _inputs(features[part])),
                    "logits": tuple(i for part in parts for i in _inputs(logits[part])),
                    "dev_logits": _inputs(logits["dev"]),
                    "teacher": (teacher.as_input(),) if teacher else (),
                }
            recipe = Recipe(KIND, VERSION, config=_settings(config, variant, seed), inputs=inputs)
            runtime = {
                "config": config.model_dump(mode="json"),
                "threads": threads,
                "alignment_tolerance": alignment_tolerance,
            }
            found.append(Job(recipe, runtime, label=f"{variant} seed {seed}"))
    return found


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Train one student and keep its best weights."""
    import torch

    torch.set_num_threads(job.runtime["threads"])
    config = StudentConfig.model_validate(job.runtime["config"])
    variant: Variant = job.recipe.config["variant"]  # type: ignore[assignment]
    seed = int(job.recipe.config["seed"])  # type: ignore[arg-type]
    dev = read_shard(store, single_input(job.recipe, "dev"))
    _, dev_bags = read_features(open_input(store, single_input(job.recipe, "dev_features")))
    if dev.labels is None:
        raise DataError("dev has no labels")
    if variant == "scratch":
        examples = _labelled_examples(job, store)
    else:
        _check(job, store)
        examples = _taught_examples(job, store)
    vocabulary = open_input(store, single_input(job.recipe, "vocabulary"))
    shape = DANShape(
        rows=int(vocabulary.statistics["rows"]),  # type: ignore[arg-type]
        width=config.width,
        hidden=config.hidden,
        classes=len(dev.label_names),
        activation=config.activation,
        init_scale=config.init_scale,
    )
    student = DAN(
        shape, regularisation=config.regularisation(), seed=seed, threads=job.runtime["threads"]
    )
    result = fit(
        student,
        examples,
        objective(
            "hard" if variant == "scratch" else config.objective, temperature=config.temperature
        ),
        config.training(variant),
        dev=Examples(dev_bags, dev.labels),
        seed=seed,
        checkpointing=Checkpointing(store.workspace(job.recipe)),
        progress=lambda done, total: progress(done / total),
    )
    write_student(student, writer)
    writer.statistics.update(
        **training_statistics(result), variant=variant, seed=seed, examples=len(examples.bags)
    )


STAGE = Stage(KIND, VERSION, build)


def write_student(student: DAN, writer: ArtifactWriter) -> None:
    """Write a student's weights and shape."""
    save_file(
        student.weights(),
        writer.path(FILE),
        metadata={"shape": json.dumps(student.shape.to_json(), sort_keys=True)},
    )


def read_student(
    artifact: Artifact,
    *,
    regularisation: DANRegularisation | None = None,
    seed: int = 0,
    threads: int = 1,
) -> DAN:
    """Return a student as it was written, ready to predict, or to be trained further."""
    with safe_open(artifact.path(FILE), framework="numpy") as file:
        shape = DANShape(**json.loads(file.metadata()["shape"]))
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    student = DAN(shape, regularisation=regularisation, seed=seed, threads=threads)
    student.load(arrays)
    return student


def training_statistics(result: TrainingResult) -> dict[str, Any]:
    """Return what the manifest says of a training run."""
    return {
        "updates": result.updates,
        "best_update": result.best_update,
        "dev_accuracy": result.best_accuracy,
        "curve": [asdict(point) for point in result.points],
    }


def _inputs(made: Sequence[Made]) -> tuple[Input, ...]:
    return tuple(one.as_input() for one in made)


def _settings(config: StudentConfig, variant: Variant, seed: int) -> dict[str, Any]:
    """Return what of the config decides this student."""
    training = asdict(config.training(variant))
    model = config.model_dump(mode="json", include={"width", "hidden", "activation", "init_scale"})
    goal = {"objective": "hard"}
    if variant != "scratch":
        goal = config.model_dump(mode="json", include={"objective", "temperature"})
    return {
        "variant": variant,
        "seed": seed,
        **model,
        **goal,
        **training,
        **asdict(config.regularisation()),
    }


def _labelled_examples(job: Job, store: ArtifactStore) -> Examples:
    train = read_shard(store, single_input(job.recipe, "train"))
    _, bags = read_features(open_input(store, single_input(job.recipe, "features")))
    if train.labels is None:
        raise DataError("train has no labels")
    return Examples(bags, train.labels)


def _taught_examples(job: Job, store: ArtifactStore) -> Examples:
    """Return features and logits of all shards, joined by row id; rows without logits left out."""
    bags, targets = [], []
    pairs = zip(job.recipe.inputs["features"], job.recipe.inputs["logits"], strict=True)
    for feature_input, logit_input in pairs:
        ids, shard_bags = read_features(open_input(store, feature_input))
        logit_ids, values = read_logits(open_input(store, logit_input))
        where = positions(ids, logit_ids)
        rows = np.flatnonzero(where >= 0)
        bags.append(shard_bags if len(rows) == len(ids) else shard_bags.take(rows))
        targets.append(values[where[rows]])
    joined: npt.NDArray[np.float32] = np.concatenate(targets)
    if len(joined) == 0:
        raise DataError(
            "no row of the corpus has logits: the files of [logits] path hold none of its texts"
        )
    return Examples(Bags.concat(bags), joined)


def _check(job: Job, store: ArtifactStore) -> None:
    if not job.recipe.inputs["teacher"]:
        check_given(
            open_input(store, single_input(job.recipe, "dev_logits")),
            read_shard(store, single_input(job.recipe, "dev")),
        )
        return
    teacher = open_input(store, single_input(job.recipe, "teacher"))
    check_alignment(
        open_input(store, single_input(job.recipe, "dev_logits")),
        read_shard(store, single_input(job.recipe, "dev")),
        expected=float(teacher.statistics["dev_accuracy"]),  # type: ignore[arg-type]
        tolerance=job.runtime["alignment_tolerance"],
    )
