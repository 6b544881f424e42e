"""Students: Deep Averaging Networks that learn from the teacher's logits, or from labels.

One artifact is one variant with one seed:

* ``kd``: imitates the teacher on the corpus and on ``train`` (the paper's DAN (KD));
* ``kd_private``: on the corpus alone, as where ``train`` may not leave its house;
* ``scratch``: learns the labels of ``train`` and sees no teacher.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sparsedistill.class_weights import class_weights
from sparsedistill.objectives import objective
from sparsedistill.students import DAN
from sparsedistill.training.loop import Checkpointing, fit
from sparsedistill.training.memory_plan import check_memory
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.logits import check_alignment, check_given
from tasks.progress import measured
from tasks.shards import open_input, read_shard
from tasks.stage import Job, Made, Progress, Stage, single_input
from tasks.student_config import StudentConfig
from tasks.student_examples import labelled_examples, taught_examples
from tasks.student_file import FILE, write_student

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sparsedistill.bag_source import MappedBags
    from sparsedistill.objectives import Objective
    from sparsedistill.training.loop import Examples, TrainingResult
    from storage import Input
    from tasks.student_config import Variant

KIND, VERSION = "student", 2


def jobs(
    config: StudentConfig,
    *,
    vocabulary: Made,
    features: Mapping[str, Sequence[Made]],
    logits: Mapping[str, Sequence[Made]],
    splits: Mapping[str, Made],
    teacher: Made | None,
    alignment_tolerance: float,
    memory: int,
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
        memory: Bytes that a student may take.
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
                if config.label_share and variant == "kd":
                    inputs |= {"train": (splits["train"].as_input(),)}
            recipe = Recipe(KIND, VERSION, config=_settings(config, variant, seed), inputs=inputs)
            runtime = {
                "config": config.model_dump(mode="json"),
                "threads": threads,
                "memory": memory,
                "alignment_tolerance": alignment_tolerance,
            }
            found.append(Job(recipe, runtime, label=f"{variant} seed {seed}"))
    return found


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Train one student and keep its best weights."""
    config = StudentConfig.model_validate(job.runtime["config"])
    variant: Variant = job.recipe.config["variant"]  # type: ignore[assignment]
    seed = int(job.recipe.config["seed"])  # type: ignore[arg-type]
    vocabulary = open_input(store, single_input(job.recipe, "vocabulary"))
    rows = int(vocabulary.statistics["rows"])  # type: ignore[arg-type]
    if variant != "scratch":
        _check(job, store)
    examples = _examples(job, store, rows)
    dev_input = single_input(job.recipe, "dev")
    dev = labelled_examples(
        store, dev_input, single_input(job.recipe, "dev_features"), vocabulary_rows=rows
    )
    classes = len(read_shard(store, dev_input).label_names)
    shape, training = config.shape(rows=rows, classes=classes), config.student_training()
    memory = check_memory(
        shape,
        training,
        batch_size=config.training(variant).batch_size,
        examples=len(examples),
        budget=job.runtime["memory"],
    )
    student = DAN(
        shape,
        training=training,
        seed=seed,
        threads=job.runtime["threads"],
    )
    result = fit(
        student,
        examples,
        _objective(config, variant, examples, classes),
        config.training(variant),
        dev=dev,
        seed=seed,
        checkpointing=Checkpointing(store.workspace(job.recipe)),
        progress=lambda done, total: progress(done / total),
        watch=lambda point: measured(KIND, job.recipe.key, job.label, asdict(point)),
    )
    write_student(student, writer.path(FILE))
    writer.statistics.update(
        **training_statistics(result),
        variant=variant,
        seed=seed,
        examples=len(examples),
        memory=asdict(memory),
    )


STAGE = Stage(KIND, VERSION, build)


def training_statistics(result: TrainingResult) -> dict[str, Any]:
    """Return what the manifest says of a training run."""
    return {
        "updates": result.updates,
        "best_update": result.best_update,
        "dev_accuracy": result.best_accuracy,
        "curve": [asdict(point) for point in result.points],
    }


def _examples(job: Job, store: ArtifactStore, rows: int) -> Examples[MappedBags]:
    """Return what the job's student learns from."""
    inputs = job.recipe.inputs
    if "logits" not in inputs:
        train, features = single_input(job.recipe, "train"), single_input(job.recipe, "features")
        return labelled_examples(store, train, features, vocabulary_rows=rows)
    return taught_examples(
        store,
        inputs["features"],
        inputs["logits"],
        vocabulary_rows=rows,
        train=single_input(job.recipe, "train") if "train" in inputs else None,
    )


def _objective(
    config: StudentConfig, variant: Variant, examples: Examples[MappedBags], classes: int
) -> Objective:
    """Return what a variant is asked for; ``examples`` have the labels that classes weigh by."""
    weights, labels = None, examples.targets.labels
    if config.class_weights != "none" and labels is not None:
        weights = class_weights(labels, config.class_weights, classes=classes)
    return objective(
        "hard" if variant == "scratch" else config.objective,
        temperature=config.temperature,
        alpha=1 - config.label_share if variant == "kd" else 1.0,
        weights=weights,
    )


def _inputs(made: Sequence[Made]) -> tuple[Input, ...]:
    return tuple(one.as_input() for one in made)


def _settings(config: StudentConfig, variant: Variant, seed: int) -> dict[str, Any]:
    """Return what of the config decides this student."""
    shape = asdict(config.shape(rows=0, classes=0))
    del shape["rows"], shape["classes"]  # those of the inputs
    labels = {"class_weights": config.class_weights}
    goal: dict[str, Any] = {"objective": "hard", **labels}
    if variant != "scratch":
        goal = {"objective": config.objective, "temperature": config.temperature}
    if variant == "kd" and config.label_share:
        goal |= {"label_share": config.label_share, **labels}
    return {
        "variant": variant,
        "seed": seed,
        **shape,
        **goal,
        **asdict(config.training(variant)),
        **asdict(config.student_training()),
    }


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
