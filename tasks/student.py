"""Students: Deep Averaging Networks that learn from the teacher's logits, or from labels.

One artifact is one variant with one seed:

* ``kd``: imitates the teacher on the corpus and on ``train`` (the paper's DAN (KD));
* ``kd_private``: on the corpus alone, as where ``train`` may not leave its house;
* ``scratch``: learns the labels of ``train`` and sees no teacher, but for the embeddings that all
  start from where ``start`` says so.

``kd`` alone may start from an earlier student (``tasks.earlier``): it is the one that is packaged.
The others are there to be compared with, and ``kd_private`` may know nothing that ``train`` taught.

Those are DANs. ``kd_bilstm`` and ``kd_cnn`` are their rivals (``tasks.rivals``), which learn what
``kd`` learns.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sparsedistill.class_weights import class_weights
from sparsedistill.objectives import objective
from sparsedistill.students import DAN
from sparsedistill.students.tokens import teacher_embeddings
from sparsedistill.teacher.checkpoint import load_tokenizer
from sparsedistill.training.loop import Checkpointing, fit
from sparsedistill.training.memory_plan import check_memory
from sparsedistill.training.starts import start_from_teacher
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks import rivals
from tasks.earlier import ROLE, earlier_inputs, start_from_earlier, with_earlier
from tasks.logits import check_alignment, check_given
from tasks.progress import measured
from tasks.row_choice import choice_of, choice_settings
from tasks.shards import open_input, read_shard
from tasks.stage import Job, Made, Progress, Stage, single_input
from tasks.student_config import StudentConfig
from tasks.student_examples import (
    Data,
    Setup,
    Taught,
    check_vocabulary,
    labelled_examples,
    taught_examples,
)
from tasks.student_file import FILE, write_student
from tasks.teacher import MODEL_DIRECTORY
from tasks.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sparsedistill.bag_source import MappedBags
    from sparsedistill.objectives import Objective
    from sparsedistill.students import DANShape, Student
    from sparsedistill.training.loop import Examples, TrainingResult
    from storage import Input
    from tasks.earlier import Earlier
    from tasks.shards import TextShard
    from tasks.student_config import Variant

    Inputs = dict[str, tuple[Input, ...]]

KIND, VERSION = "student", 3


def jobs(
    config: StudentConfig,
    *,
    vocabulary: Made,
    texts: Sequence[TextShard],
    features: Mapping[str, Sequence[Made]],
    logits: Mapping[str, Sequence[Made]],
    splits: Mapping[str, Made],
    teacher: Made | None,
    alignment_tolerance: float,
    memory: int,
    threads: int,
    device: str = "cpu",
    earlier: Earlier | None = None,
) -> list[Job]:
    """Return one job for each variant and seed: the baselines, the distilled DAN, its rivals.

    Args:
        config: The table ``[student]``.
        vocabulary: Its size is the table's.
        texts: Shards of the corpus, then ``train``: what rivals read.
        features: Of ``corpus`` (one a shard), ``train``, ``dev``.
        logits: Of ``corpus``, ``train`` and ``dev``, in the same order.
        splits: ``train`` and ``dev`` with their labels.
        teacher: Whose accuracy on ``dev`` the stored logits must reproduce, and whose embeddings
            a table may start from; None for given logits.
        alignment_tolerance: By how much they may miss it.
        memory: Bytes that a student may take.
        threads: Of the kernels and of torch.
        device: Where DANs are trained.
        earlier: The student before this one; None for a student that is made anew.
    """
    runtime = {
        "threads": threads,
        "memory": memory,
        "device": device,
        "alignment_tolerance": alignment_tolerance,
    }

    def recipe(variant: str, seed: int, settings: dict[str, Any], inputs: Inputs) -> Recipe:
        return Recipe(KIND, VERSION, {"variant": variant, "seed": seed, **settings}, inputs)

    def job(of: Recipe, its: StudentConfig = config) -> Job:
        label = f"{of.config['variant']} seed {of.config['seed']}"
        return Job(of, {**runtime, "config": its.model_dump(mode="json")}, label=label)

    found = []
    chosen = choice_settings(config, splits["train"])
    epochs = earlier.epochs if earlier else None
    shorter = config.model_copy(update={"epochs": epochs}) if epochs else config
    before = earlier_inputs(earlier, config, splits["train"].statistics["labels"])
    variants: tuple[Variant, ...] = (*config.baselines, "kd")
    for variant in variants:
        for seed in config.seeds:
            inputs: Inputs = {
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
            if config.start == "teacher" and teacher:
                inputs |= {"teacher": (teacher.as_input(),)}
            choice = {} if variant == "scratch" else chosen
            anew, started = (
                recipe(variant, seed, {**_settings(its, variant), **choice}, inputs)
                for its in (config, shorter)
            )
            one = with_earlier(anew, started, before, earlier)
            found.append(job(one, shorter if ROLE in one.inputs else config))
    if teacher is None:
        return found
    for rival in config.rivals:
        settings = {**rivals.settings(rival, config, teacher), **_goal(config, "kd"), **chosen}
        inputs = rivals.inputs(texts, logits, splits, teacher, labelled=config.label_share > 0)
        found += [job(recipe(rival.variant, seed, settings, inputs)) for seed in config.seeds]
    return found


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Train one student and keep its best weights."""
    config = StudentConfig.model_validate(job.runtime["config"])
    named, seed = job.recipe.config["variant"], int(job.recipe.config["seed"])  # type: ignore[arg-type]
    if named != "scratch":
        _check(job, store)
    rival = next((one for one in config.rivals if one.variant == named), None)
    variant: Variant = "kd" if rival else named  # type: ignore[assignment]
    if rival:
        setup = rivals.prepare(rival, job, store, config)
    else:
        setup = prepare_dan(job, store, config, variant)
    student: Student[MappedBags, Any] = setup.student
    result = fit(
        student,
        setup.examples,
        objective_of(config, variant, setup.examples, setup.classes),
        setup.recipe,
        dev=setup.dev,
        seed=seed,
        checkpointing=Checkpointing(store.workspace(job.recipe)),
        progress=lambda done, total: progress(done / total),
        watch=lambda point: measured(KIND, job.recipe.key, job.label, asdict(point)),
    )
    write_student(setup.student, writer.path(FILE))
    writer.statistics.update(
        **training_statistics(result),
        variant=named,
        seed=seed,
        examples=len(setup.examples),
        memory=asdict(setup.memory),
    )
    if setup.chosen is not None:
        writer.statistics["chosen"] = setup.chosen.to_json()
    if setup.started is not None:
        writer.statistics["started"] = setup.started


STAGE = Stage(KIND, VERSION, build)


def training_statistics(result: TrainingResult) -> dict[str, Any]:
    """Return what the manifest says of a training run."""
    return {
        "updates": result.updates,
        "best_update": result.best_update,
        "dev_accuracy": result.best_accuracy,
        "curve": [asdict(point) for point in result.points],
    }


def prepare_dan(job: Job, store: ArtifactStore, config: StudentConfig, variant: Variant) -> Setup:
    """Return a DAN, and what it learns from."""
    data = read_data(job, store)
    shape = config.shape(rows=data.rows, classes=data.classes)
    recipe = config.training(variant)
    memory = check_memory(
        shape,
        config.student_training(),
        batch_size=recipe.batch_size,
        examples=len(data.examples),
        # Of a device's memory, torch says itself when it is not enough.
        budget=job.runtime["memory"] if job.runtime["device"] == "cpu" else None,
    )
    student = make_dan(job, store, config, shape)
    started = start_from_earlier(student, job.recipe, store)
    return Setup(
        student, data.examples, data.dev, recipe, memory, data.classes, data.chosen, started
    )


def read_data(job: Job, store: ArtifactStore) -> Data:
    """Return what the job's DAN learns from."""
    vocabulary = single_input(job.recipe, "vocabulary")
    rows = int(open_input(store, vocabulary).statistics["rows"])  # type: ignore[arg-type]
    inputs = job.recipe.inputs
    check_vocabulary(store, (*inputs["features"], *inputs["dev_features"]), vocabulary)
    split = single_input(job.recipe, "dev")
    features = single_input(job.recipe, "dev_features")
    dev = labelled_examples(store, split, features, vocabulary_rows=rows)
    classes = len(read_shard(store, split).label_names)
    taught = _taught(job, store, rows)
    return Data(taught.examples, dev, rows, classes, taught.chosen)


def make_dan(job: Job, store: ArtifactStore, config: StudentConfig, shape: DANShape) -> DAN:
    """Return a DAN before its first update."""
    student = DAN(
        shape,
        training=config.student_training(),
        seed=int(job.recipe.config["seed"]),  # type: ignore[arg-type]
        threads=job.runtime["threads"],
        device=job.runtime["device"],
    )
    if config.start == "teacher":
        _start_from_teacher(student, job, store)
    return student


def _taught(job: Job, store: ArtifactStore, rows: int) -> Taught:
    """Return what the job's student learns from."""
    inputs = job.recipe.inputs
    if "logits" not in inputs:
        train, features = single_input(job.recipe, "train"), single_input(job.recipe, "features")
        return Taught(labelled_examples(store, train, features, vocabulary_rows=rows), None)
    return taught_examples(
        store,
        inputs["features"],
        inputs["logits"],
        vocabulary_rows=rows,
        whole=bool(inputs["teacher"]),
        train=single_input(job.recipe, "train") if "train" in inputs else None,
        choice=choice_of(job.recipe),
        train_shards=1 if job.recipe.config["variant"] == "kd" else 0,
    )


def objective_of(
    config: StudentConfig, variant: Variant, examples: Examples[MappedBags], classes: int
) -> Objective:
    """Return what a variant is asked for; ``examples`` have the labels that classes weigh by."""
    return objective(
        "hard" if variant == "scratch" else config.objective,
        temperature=config.temperature,
        alpha=1 - config.label_share if variant == "kd" else 1.0,
        weights=weights_of(config.class_weights, examples, classes),
    )


def weights_of(how: str, examples: Examples[MappedBags], classes: int) -> tuple[float, ...] | None:
    """Return the weights that losses from labels have, by label; None where all weigh the same."""
    if how == "none" or examples.targets.labels is None:
        return None
    return class_weights(examples.targets.labels, "balanced", classes=classes)


def _start_from_teacher(student: DAN, job: Job, store: ArtifactStore) -> None:
    teacher = open_input(store, single_input(job.recipe, "teacher")).directory() / MODEL_DIRECTORY
    start_from_teacher(
        student.table,
        read_vocabulary(open_input(store, single_input(job.recipe, "vocabulary"))),
        tokenizer=load_tokenizer(teacher),
        embeddings=teacher_embeddings(teacher),
        scale=student.shape.init_scale,
        seed=int(job.recipe.config["seed"]),  # type: ignore[arg-type]
        threads=job.runtime["threads"],
    )


def _inputs(made: Sequence[Made]) -> tuple[Input, ...]:
    return tuple(one.as_input() for one in made)


def _settings(config: StudentConfig, variant: Variant) -> dict[str, Any]:
    """Return what of the config decides a DAN, beside its seed."""
    shape = asdict(config.shape(rows=0, classes=0))
    del shape["rows"], shape["classes"]  # those of the inputs
    return {
        "start": config.start,
        **shape,
        **_goal(config, variant),
        **asdict(config.training(variant)),
        **asdict(config.student_training()),
    }


def _goal(config: StudentConfig, variant: Variant) -> dict[str, Any]:
    """Return what of the config decides what a variant is asked for."""
    labels = {"class_weights": config.class_weights}
    goal: dict[str, Any] = {"objective": "hard", **labels}
    if variant != "scratch":
        goal = {"objective": config.objective, "temperature": config.temperature}
    if variant == "kd" and config.label_share:
        goal |= {"label_share": config.label_share, **labels}
    return goal


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
