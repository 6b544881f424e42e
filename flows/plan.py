"""What a run would do: every stage, cached or to do, and what it will take. Nothing is run.

The plan walks the DAG as a run does, and looks past an artifact that is missing wherever its
content can be known without making it: the labelled files are read, and so are the sources of the
corpus, to find which shards are new. Past that, a stage whose inputs are still to be made is all to
do. Where the teacher has something to label, it is measured on some rows of the corpus.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import fsspec
from rich.table import Table

from dashboards import format as fmt
from flows.corpus_sample import corpus_sample, stored_shards, train_sample
from flows.estimates import Need, Rows, needs
from flows.pipeline import Pipeline, Step
from sparsedistill.errors import SparseDistillError
from storage import Artifact, ArtifactStore, Input, StorageError
from tasks import corpus, dataset
from tasks.logs import without_secrets
from tasks.teacher import MODEL_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flows.config import DistillConfig
    from flows.teacher_cost import TeacherCost
    from tasks.stage import Job, Made


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a run would do for one stage.

    Attributes:
        stage: Its name.
        cached: Artifacts that are there.
        todo: Artifacts to make; None where that is known only when earlier stages are done.
        rows: Rows that pass through what is to do, as far as they can be known.
        disk: Bytes that what is to do will take, estimated.
        memory: Bytes that one task needs, estimated.
        seconds: Work, projected from earlier runs in this store, or from a measure of the teacher;
            None without either.
    """

    stage: str
    cached: int
    todo: int | None
    rows: int | None
    disk: int | None
    memory: int | None
    seconds: float | None

    @property
    def state(self) -> str:
        """In a word: cached, to do, or partly cached."""
        if self.todo == 0:
            return "cached"
        return "partly cached" if self.cached else "to do"


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run.

    Attributes:
        stages: In order.
        notes: What could not be known, and why.
        teacher: What it takes here; None where it has nothing to do or was not measured.
    """

    stages: tuple[StagePlan, ...]
    notes: tuple[str, ...]
    teacher: TeacherCost | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON."""
        stages = [{**asdict(stage), "state": stage.state} for stage in self.stages]
        measured = None if self.teacher is None else self.teacher.to_json()
        return {"stages": stages, "notes": list(self.notes), "teacher": measured}


@dataclass(frozen=True, slots=True)
class Planned:
    """An artifact that is not made yet, but whose content is known."""

    reference: Input
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def as_input(self) -> Input:
        """Return what a recipe says of it as an input."""
        return self.reference


def make_plan(config: DistillConfig, *, measure: bool = False) -> Plan:
    """Look what a run of this configuration would find, and what it would make.

    Sources that cannot be reached from here are noted, not an error; the corpus is then taken to
    have ``corpus.expected_rows``. Nor is it one that the teacher cannot be measured.

    Args:
        config: Of the run.
        measure: Whether the teacher is measured, which takes seconds, where it has work to do.

    Raises:
        ConfigError: The students would not fit into the memory.
    """
    with _store_to_look_into(config.run.store) as store:
        return _Planner(config, store).plan(measure=measure)


def plan_table(plan: Plan) -> Table:
    """Return the plan as people read it."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("stage", "state", "cached", "to do", "rows", "disk", "memory", "time"):
        table.add_column(heading, justify="left" if heading in ("stage", "state") else "right")
    for stage in plan.stages:
        table.add_row(
            stage.stage,
            stage.state,
            str(stage.cached),
            "?" if stage.todo is None else str(stage.todo),
            *(
                (fmt.count(stage.rows), fmt.size(stage.disk), fmt.size(stage.memory))
                if stage.todo != 0
                else ("", "", "")
            ),
            fmt.duration(stage.seconds) if stage.seconds else "",
            style="dim" if stage.todo == 0 else None,
        )
    return table


@contextmanager
def _store_to_look_into(url: str) -> Iterator[ArtifactStore]:
    """Yield the store of a run, or an empty one where there is none yet: a plan makes none."""
    try:
        fs, root = fsspec.core.url_to_fs(url)
        there = fs.exists(f"{root.rstrip('/')}/store.json")
    except Exception:  # what is wrong is said where the store is opened
        there = True
    if there:
        yield ArtifactStore(url)
        return
    with tempfile.TemporaryDirectory(prefix="sparsedistill-") as scratch:
        yield ArtifactStore(scratch)


class _Planner:
    def __init__(self, config: DistillConfig, store: ArtifactStore) -> None:
        self._config = config
        self._store = store
        self._made: dict[str, Sequence[Made]] = {}
        self._teacher: Job | None = None
        self._notes: list[str] = []
        self._rows = Rows(corpus=config.corpus.expected_rows)

    def plan(self, *, measure: bool) -> Plan:
        stages = [self._look_at(step) for step in Pipeline(self._config).steps]
        cost = None
        if measure and any(stage.stage == "logits" and stage.todo != 0 for stage in stages):
            cost = self._measured()
        if cost is not None:
            stages = [self._costed(stage, cost) for stage in stages]
        return Plan(tuple(stages), tuple(self._notes), cost)

    def _look_at(self, step: Step) -> StagePlan:
        jobs = self._jobs(step)
        if jobs is None:
            return self._stage_plan(step.name, cached=0, todo=None)
        if step.name == "teacher":
            (self._teacher,) = jobs
        found = step.stage.find_all(jobs, self._store)
        missing = [job for job, artifact in zip(jobs, found, strict=True) if artifact is None]
        known = [artifact or self._foresee(job) for job, artifact in zip(jobs, found, strict=True)]
        complete = [made for made in known if made is not None]
        if len(complete) == len(jobs):
            self._made[step.name] = complete
            self._rows.learn(step.name, complete)
            if step.name == corpus.KIND:
                self._rows.measure(self._store, stored_shards(complete[0], self._store))
        return self._stage_plan(
            step.name, cached=len(jobs) - len(missing), todo=len(missing),
            share=self._share(missing, jobs),
        )  # fmt: skip

    def _jobs(self, step: Step) -> list[Job] | None:
        """Return a stage's jobs, or None where they cannot be known yet."""
        if any(need not in self._made for need in step.needs):
            return None
        try:
            return step.jobs(self._made)
        except (SparseDistillError, StorageError) as error:
            self._note(f"{step.name}: {error}")
            return None

    def _foresee(self, job: Job) -> Planned | None:
        """Return a missing artifact as it will be, where that can be known without making it."""
        recipe = job.recipe
        if recipe.kind == corpus.KIND:
            try:
                statistics = corpus.preview(job)
            except (SparseDistillError, StorageError) as error:
                self._note(f"corpus: {error}")
                return None
            return Planned(Input(recipe.kind, recipe.key, recipe.key), statistics)
        if recipe.content is None or job.preview is None:
            return None
        return Planned(Input(recipe.kind, recipe.key, recipe.content), job.preview)

    def _note(self, text: str) -> None:
        """Add what is worth saying; it may quote configurations and files."""
        self._notes.append(fmt.clean(without_secrets(text)))

    def _measured(self) -> TeacherCost | None:
        """Return what the teacher takes; None, and a note, where that cannot be found out."""
        if self._teacher is None:  # its logits are given, or a note says why it is not known
            return None
        from flows.teacher_cost import local_checkpoint, measure_teacher

        runtime = self._teacher.runtime
        corpus_made = self._made.get("corpus", [None])[0]
        teacher_made = self._made.get("teacher", [None])[0]
        try:
            if isinstance(teacher_made, Artifact):
                directory = teacher_made.directory() / MODEL_DIRECTORY
            else:
                directory = local_checkpoint(runtime["checkpoint"], runtime["revision"])
            return measure_teacher(
                self._config,
                directory,
                fine_tuned=isinstance(teacher_made, Artifact) or not runtime["config"]["finetune"],
                classes=self._rows.classes,
                texts=corpus_sample(self._config, corpus_made, self._store),
                train=train_sample(self._config),
            )
        except Exception as error:  # of many kinds: a plan stands without a measure
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            self._note(f"the teacher was not measured: {reason}")
            return None

    def _costed(self, stage: StagePlan, cost: TeacherCost) -> StagePlan:
        """Return a stage with what was measured in place of what was guessed."""
        rows = self._rows
        if stage.todo == 0 or rows.train is None or rows.dev is None:
            return stage
        if stage.stage == "teacher" and self._config.teacher is not None:
            seconds = cost.fine_tuning(self._config.teacher, train=rows.train, dev=rows.dev)
            return replace(stage, seconds=seconds)
        if stage.stage == "logits" and stage.rows and rows.corpus is not None:
            labelled = rows.labelled() or 0
            share = stage.rows / (rows.corpus + labelled)
            return replace(
                stage,
                disk=round(stage.rows * cost.bytes_per_row),
                seconds=share * cost.labelling(corpus=rows.corpus, labelled=labelled),
            )
        return stage

    def _share(self, missing: Sequence[Job], jobs: Sequence[Job]) -> float:
        """Return how much of a stage is missing: by rows, where its jobs are shards of texts."""
        rows: dict[str, int | None] = {
            **{name: getattr(self._rows, name) for name in dataset.SPLITS},
            **{shard.name: shard.rows for one in self._made.get(corpus.KIND, ())
               for shard in corpus.shards(one)},
        }  # fmt: skip
        wanted, there = ([rows.get(job.label) or 0 for job in some] for some in (missing, jobs))
        if all(there):
            return sum(wanted) / max(sum(there), 1)
        return len(missing) / max(len(jobs), 1)

    def _stage_plan(
        self, name: str, *, cached: int, todo: int | None, share: float = 1.0
    ) -> StagePlan:
        if todo == 0:
            return StagePlan(name, cached, 0, 0, 0, 0, None)
        need: Need = needs(name, self._config, self._rows, self._store)
        return StagePlan(
            name,
            cached,
            todo,
            _scaled(need.rows, share),
            _scaled(need.disk, share),
            need.memory,
            None if need.seconds is None else need.seconds * share,
        )


def _scaled(value: int | None, share: float) -> int | None:
    return None if value is None else round(value * share)
