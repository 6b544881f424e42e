"""What was tried of the student: one thing changed at a time, the same data and logits for all.

The recipe that things are changed in is the experiment's; the paper's presets stand beside it with
all that is theirs but size. Width, batch size, epochs and seeds are the same for all rows, and so
is the number of examples seen. Students are trained through the library, so that what no
configuration offers (other poolings, more layers) can be tried too; nothing is packaged.

    python benchmarks/student_choices.py experiments/trec.toml --json student-choices-trec.json
    python benchmarks/student_choices.py experiments/sst2.toml --only default temperature

Features and logits that an earlier run has in the store are used; those that are missing are made.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from flows.config import DistillConfig, load_config
from flows.delivery import artifacts_of
from flows.pipeline import Pipeline
from sparsedistill.metrics import accuracy
from sparsedistill.objectives import objective
from sparsedistill.students import DAN
from sparsedistill.teacher.checkpoint import load_model, load_tokenizer
from sparsedistill.training.loop import fit
from sparsedistill.training.starts import start_from_teacher
from storage import Artifact, ArtifactStore
from tasks.environment import environment
from tasks.presets import PRESETS
from tasks.student_config import StudentConfig
from tasks.student_examples import labelled_examples, taught_examples
from tasks.teacher import MODEL_DIRECTORY
from tasks.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sparsedistill.bag_source import MappedBags
    from sparsedistill.training.loop import Examples

    Row = dict[str, Any]

TRIED: Mapping[str, Sequence[Any]] = {
    "activation": ("relu", "tanh"),
    "feature_dropout": (0.0, 0.1, 0.3),
    "dropout": (0.0, 0.1, 0.3),
    "init_scale": (0.01, 0.05, 0.2, 1.0),
    "second_moment": ("element", "row"),
    "table_type": ("float32", "bfloat16"),
    "temperature": (1.0, 2.0, 4.0),
    "pooling": ("mean", "sum", "max", "attentive"),
    "layers": (1, 2),
    "weight_decay": (0.0, 0.01, 0.1),
    "table_decay": (0.0, 0.01, 0.1),
    "label_share": (0.0, 0.2, 0.5),
    "start": ("random", "teacher"),
}
RATES = (0.5, 2.0)


@dataclass(frozen=True, slots=True)
class Choice:
    """A student to be trained.

    Attributes:
        name: What is changed, and to what.
        config: With the change, where a configuration can have it.
        shape: Changes of the student's shape that no configuration offers.
    """

    name: str
    config: StudentConfig
    shape: Mapping[str, Any] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """What is changed."""
        return self.name.split()[0]


@dataclass(frozen=True)
class Task:
    """What all students learn and are measured on.

    Attributes:
        store: Has all of it.
        made: Artifacts by stage.
        threads: Of a student.
        teacher: Directory of the checkpoint whose embeddings a table may start from.
    """

    store: ArtifactStore
    made: Mapping[str, Sequence[Artifact]]
    threads: int
    teacher: Path | None

    @cached_property
    def rows(self) -> int:
        """Rows of the vocabulary."""
        return int(self.made["vocabulary"][0].statistics["rows"])  # type: ignore[call-overload]

    @cached_property
    def classes(self) -> int:
        """Number of labels."""
        labels: Any = self.made["dataset"][0].statistics["labels"]
        return len(labels)

    @cached_property
    def examples(self) -> Examples[MappedBags]:
        """Corpus and `train`, with the labels of `train` for those who look at them."""
        features, logits = (self.made[stage][:-2] for stage in ("features", "logits"))
        taught = taught_examples(
            self.store,
            [one.as_input() for one in features],
            [one.as_input() for one in logits],
            vocabulary_rows=self.rows,
            whole=False,
            train=self.made["dataset"][0].as_input(),
        )
        return taught.examples

    @cached_property
    def held_out(self) -> tuple[Examples[MappedBags], Examples[MappedBags]]:
        """`dev` and `test`."""
        pairs = zip(self.made["dataset"][1:], self.made["features"][-2:], strict=True)
        dev, test = (
            labelled_examples(
                self.store, split.as_input(), bags.as_input(), vocabulary_rows=self.rows
            )
            for split, bags in pairs
        )
        return dev, test


def main() -> int:
    """Train what is asked for and print what it reaches."""
    parser = argparse.ArgumentParser(description="Compare choices of the student.")
    parser.add_argument("config")
    parser.add_argument("--data")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of rows, or of what is changed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="where the config has none")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    sizes = {
        "width": options.width, "hidden": options.width, "batch_size": options.batch_size,
        "epochs": options.epochs, "updates": None, "evaluate_every": None,
    }  # fmt: skip
    config = load_config(options.config, overrides=["baseline.enabled=false"], data=options.data)
    task = make_task(config, options.teacher)
    found = choices(config.student, sizes)
    if task.teacher is None:
        found = [choice for choice in found if choice.config.start != "teacher"]
        print("no teacher at hand: starting from one is left out (--teacher)", file=sys.stderr)
    rows = [measure(one, task, options.seeds) for one in asked_for(found, options.only)]
    about = {
        **environment(task.threads), **sizes,
        "config": options.config, "seeds": options.seeds, "vocabulary": task.rows,
        "examples_seen": len(task.examples) * options.epochs,
    }  # fmt: skip
    print_table(rows, about)
    if options.json:
        options.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1), "utf-8")
    return 0


def choices(student: StudentConfig, sizes: Mapping[str, Any]) -> list[Choice]:
    """Return the recipe as it is, each thing changed in it alone, and the other presets."""
    recipe = {**student.model_dump(exclude_defaults=True), **sizes}
    base = StudentConfig.model_validate(recipe)
    at_rest = base.shape(rows=1, classes=2)
    found = [Choice("default", base)]
    for key, values in TRIED.items():
        known = key in StudentConfig.model_fields
        for value in values:
            name = f"{key} {value}"
            if known and value != getattr(base, key):
                found.append(Choice(name, StudentConfig.model_validate({**recipe, key: value})))
            elif not known and value != getattr(at_rest, key):
                found.append(Choice(name, base, {key: value}))
    for factor in RATES:
        rate = base.learning_rate * factor
        changed = StudentConfig.model_validate({**recipe, "learning_rate": rate})
        found.append(Choice(f"learning_rate {rate:g}", changed))
    for preset in PRESETS:
        if preset != base.preset:
            theirs = StudentConfig.model_validate({"preset": preset, **sizes})
            found.append(Choice(f"preset {preset}", theirs))
    return found


def asked_for(found: Sequence[Choice], only: Sequence[str] | None) -> list[Choice]:
    """Return the choices of these names, or all."""
    if only is None:
        return list(found)
    for name in only:
        if not any(name in (choice.name, choice.about) for choice in found):
            names = ", ".join(choice.name for choice in found)
            raise SystemExit(f"--only {name}: there is no such choice; there are {names}")
    return [choice for choice in found if {choice.name, choice.about} & set(only)]


def make_task(config: DistillConfig, teacher: Path | None) -> Task:
    """Make what is missing of the stages before the student."""
    store = ArtifactStore(config.run.store)
    made: dict[str, list[Artifact]] = {}
    for step in Pipeline(config).steps:
        if step.name == "student":
            break
        made[step.name] = artifacts_of(
            store, [step.stage.run(job, store) for job in step.jobs(made)]
        )
    if "teacher" in made:
        teacher = made["teacher"][0].directory() / MODEL_DIRECTORY
    return Task(store, made, config.run.threads, teacher)


def measure(choice: Choice, task: Task, seeds: int) -> Row:
    """Return what a choice reaches, over some seeds."""
    runs = [train(choice, task, seed) for seed in range(seeds)]
    row: Row = {"choice": choice.name}
    for part in ("dev", "test"):
        scores = [run[part] for run in runs]
        row[part] = statistics.fmean(scores)
        row[f"{part}_spread"] = statistics.stdev(scores) if seeds > 1 else None
    # Not the mean: the first student of a kind may wait for its kernels to be compiled.
    row["seconds"] = statistics.median(run["seconds"] for run in runs)
    row["best_epoch"] = statistics.fmean(run["epoch"] for run in runs)
    print(" ".join(_text(value) for value in row.values()), file=sys.stderr, flush=True)
    return {**row, "runs": runs}


def train(choice: Choice, task: Task, seed: int) -> Row:
    """Train one student; return its accuracies and how long it took."""
    config, (dev, test) = choice.config, task.held_out
    shape = config.shape(rows=task.rows, classes=task.classes)
    student = DAN(
        replace(shape, **choice.shape),
        training=config.student_training(),
        seed=seed,
        threads=task.threads,
    )
    if config.start == "teacher":
        start(student, task, config, seed)
    goal = objective(config.objective, temperature=config.temperature, alpha=1 - config.label_share)
    begin = time.perf_counter()
    result = fit(student, task.examples, goal, config.training("kd"), dev=dev, seed=seed)
    seconds = time.perf_counter() - begin
    best = next(point for point in result.points if point.update == result.best_update)
    answers = student.predict(test.inputs).argmax(axis=1)
    return {
        "seed": seed,
        "dev": result.best_accuracy,
        "test": accuracy(np.asarray(test.targets.labels), answers),
        "seconds": seconds,
        "epoch": best.epoch,
    }


def start(student: DAN, task: Task, config: StudentConfig, seed: int) -> None:
    """Start a table from the teacher; a checkpoint without a head for the task will do."""
    assert task.teacher is not None
    model = load_model(task.teacher, num_labels=task.classes)
    start_from_teacher(
        student.table,
        read_vocabulary(task.made["vocabulary"][0]),
        tokenizer=load_tokenizer(task.teacher),
        embeddings=model.get_input_embeddings().weight.detach().float().numpy(),
        scale=config.init_scale,
        seed=seed,
        threads=task.threads,
    )


def print_table(rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Print the rows and what they were measured on."""
    table = Table(box=None)
    names = [name for name in rows[0] if name != "runs"]
    for name in names:
        heading = name.replace("_spread", " ±").replace("_", " ")
        table.add_column(heading, justify="left" if name == "choice" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_text(row[name]) for name in names))
    console = Console()
    console.print(table)
    console.print(about)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
