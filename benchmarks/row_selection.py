"""What choosing rows of the corpus is worth: `least_margin`, `balance`, `near_duplicates`.

Every student sees the same number of examples, so that one with fewer rows sees each more often;
labelled `train` is always whole, and the vocabulary is that of all rows. Beside a choice that
leaves out a tenth of the rows or more stands a student on as many rows drawn at random: what a
choice is worth is the difference to that one, not to all rows.

    python benchmarks/row_selection.py experiments/trec.toml --json row-selection-trec.json
    python benchmarks/row_selection.py experiments/sst2.toml --only all least_margin

Features and logits that an earlier run has in the store are used; those that are missing are made.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from student_choices import Task, make_task, print_table

from flows.config import load_config
from sparsedistill.bag_source import BagPart, MappedBags
from sparsedistill.metrics import accuracy
from sparsedistill.objectives import objective
from sparsedistill.row_choice import RowChoice
from sparsedistill.students import DAN
from sparsedistill.targets import Targets
from sparsedistill.training.loop import Examples, fit
from tasks.environment import environment
from tasks.features import read_features
from tasks.logit_file import read_logits
from tasks.shards import positions
from tasks.student_config import StudentConfig
from tasks.student_examples import taught_examples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Row = dict[str, Any]

MARGINS = (0.2, 0.5, 0.9)
LEAST_SHARE_FOR_CONTROL = 0.1


@dataclass(frozen=True, slots=True)
class Trial:
    """Rows to learn from.

    Attributes:
        name: What is chosen by.
        choice: Margin and balance; None for all rows.
        overrides: Of the configuration, where other rows are made from the start.
    """

    name: str
    choice: RowChoice | None = None
    overrides: tuple[str, ...] = field(default=())

    @property
    def about(self) -> str:
        """The key of the configuration."""
        return self.name.split()[0]


def main() -> int:
    """Train on what is asked for and print what it reaches."""
    parser = argparse.ArgumentParser(description="Compare choices of rows to learn from.")
    parser.add_argument("config")
    parser.add_argument("--data")
    parser.add_argument("--store", help="in place of the configuration's")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of rows, or of keys")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="over all rows")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    task = task_of(options)
    found = [
        trial
        for trial in trials(task)
        if options.only is None or {trial.name, trial.about} & set(options.only)
    ]
    if not found:
        names = ", ".join(trial.name for trial in trials(task))
        raise SystemExit(f"--only {' '.join(options.only)}: there are {names}")
    updates = options.epochs * math.ceil(len(task.examples) / options.batch_size)
    student = schedule(load(options).student, options, updates)
    rows: list[Row] = []
    for trial in found:
        its = task_of(options, *trial.overrides) if trial.overrides else task
        rows += measure(trial, its, student, options.seeds)
    about = {
        **environment(task.threads), "config": options.config, "seeds": options.seeds,
        "width": options.width, "batch_size": options.batch_size, "updates": updates,
        "examples_of_all_rows": len(task.examples),
    }  # fmt: skip
    print_table(rows, about)
    if options.json:
        options.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1), "utf-8")
    return 0


def load(options: argparse.Namespace, *overrides: str) -> Any:  # noqa: ANN401
    """Return the configuration, less what is not needed here."""
    store = [f"run.store={options.store}"] if options.store else []
    asked = ["baseline.enabled=false", *store, *overrides]
    return load_config(options.config, overrides=asked, data=options.data)


def task_of(options: argparse.Namespace, *overrides: str) -> Task:
    """Make what is missing of the stages before the student."""
    return make_task(load(options, *overrides), None)


def schedule(student: StudentConfig, options: argparse.Namespace, updates: int) -> StudentConfig:
    """Return the experiment's recipe at these sizes, as long for few rows as for all."""
    changed = {
        "width": options.width, "hidden": options.width, "batch_size": options.batch_size,
        "epochs": None, "updates": updates, "evaluate_every": updates // options.epochs,
    }  # fmt: skip
    return StudentConfig.model_validate({**student.model_dump(exclude_defaults=True), **changed})


def trials(task: Task) -> list[Trial]:
    """Return all rows, each choice alone, and both."""
    train: Any = task.made["dataset"][0].statistics["rows_per_label"]
    even, as_train = (1,) * task.classes, tuple(train)
    return [
        Trial("all"),
        *(Trial(f"least_margin {margin}", RowChoice(margin)) for margin in MARGINS),
        Trial("balance even", RowChoice(weights=even)),
        Trial("balance train", RowChoice(weights=as_train)),
        Trial("near_duplicates drop", overrides=("corpus.near_duplicates=drop",)),
    ]


def measure(trial: Trial, task: Task, student: StudentConfig, seeds: int) -> list[Row]:
    """Return what a choice reaches over some seeds, and what as many rows at random do."""
    labelled = sum(int(str(one.statistics["rows"])) for one in task.made["logits"][:-3])
    runs, kept = [], labelled
    for seed in range(seeds):
        examples = task.examples
        if trial.choice is not None:
            examples, kept = chosen(task, trial.choice, seed)
        runs.append(train(task, examples, student, seed))
    found = [told(trial.name, kept, runs)]
    if labelled - kept >= LEAST_SHARE_FOR_CONTROL * labelled:
        runs = [
            train(task, drawn(task, kept / labelled, seed), student, seed) for seed in range(seeds)
        ]
        found.append(told("  as many at random", kept, runs))
    return found


def chosen(task: Task, choice: RowChoice, seed: int) -> tuple[Examples[MappedBags], int]:
    """Return the rows of a choice and ``train``, and how many are of the corpus."""
    features, logits = (task.made[stage][:-2] for stage in ("features", "logits"))
    taught = taught_examples(
        task.store,
        [one.as_input() for one in features],
        [one.as_input() for one in logits],
        vocabulary_rows=task.rows,
        whole=False,
        choice=RowChoice(choice.least_margin, choice.weights, seed),
        train_shards=1,
    )
    assert taught.chosen is not None
    return taught.examples, sum(taught.chosen.to_json()["kept"])


def drawn(task: Task, share: float, seed: int) -> Examples[MappedBags]:
    """Return ``train`` and a share of the corpus drawn at random."""
    rng = np.random.default_rng(seed)
    features, logits = (task.made[stage][:-2] for stage in ("features", "logits"))
    parts, targets = [], []
    for number, (one, other) in enumerate(zip(features, logits, strict=True)):
        (ids, bags), (logit_ids, values) = read_features(one), read_logits(other)
        where = positions(ids, logit_ids)
        known = np.flatnonzero(where >= 0)
        if number < len(features) - 1:
            known = known[rng.random(len(known)) < share]
        parts.append(BagPart(bags, known))
        targets.append(values[where[known]])
    return Examples(
        MappedBags(parts, vocabulary_rows=task.rows), Targets(logits=np.concatenate(targets))
    )


def train(task: Task, examples: Examples[MappedBags], config: StudentConfig, seed: int) -> Row:
    """Train one student; return its accuracies and how long it took."""
    dev, test = task.held_out
    student = DAN(
        config.shape(rows=task.rows, classes=task.classes),
        training=config.student_training(),
        seed=seed,
        threads=task.threads,
    )
    goal = objective(config.objective, temperature=config.temperature, alpha=1.0)
    begin = time.perf_counter()
    result = fit(student, examples, goal, config.training("kd"), dev=dev, seed=seed)
    seconds = time.perf_counter() - begin
    truth, answers = np.asarray(test.targets.labels), student.predict(test.inputs).argmax(axis=1)
    recalls = [accuracy(truth[truth == k], answers[truth == k]) for k in np.unique(truth)]
    return {
        "seed": seed,
        "dev": result.best_accuracy,
        "test": accuracy(truth, answers),
        "worst_class": min(recalls),
        "seconds": seconds,
    }


def told(name: str, kept: int, runs: Sequence[Mapping[str, Any]]) -> Row:
    """Return the row of a table; the worst class is that of least recall on test."""
    row: Row = {"choice": name, "corpus_rows": kept}
    for part in ("test", "dev"):
        scores = [run[part] for run in runs]
        row[part] = statistics.fmean(scores)
        row[f"{part}_spread"] = statistics.stdev(scores) if len(runs) > 1 else None
    row["worst_class"] = statistics.fmean(run["worst_class"] for run in runs)
    row["seconds"] = statistics.median(run["seconds"] for run in runs)
    print(*row.values(), file=sys.stderr, flush=True)
    return {**row, "runs": list(runs)}


if __name__ == "__main__":
    sys.exit(main())
