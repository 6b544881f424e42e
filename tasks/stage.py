"""What every stage has in common: a job says what is to be made, a stage makes it if it is missing.

A job is plain data, so it travels to a thread, a process or a Dask worker alike. Its recipe holds
all that decides the artifact; ``runtime`` holds the rest (paths, threads, devices), which may
change between two runs without making anything stale.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from storage.scratch import size_of
from tasks.logs import within
from tasks.progress import advance, finish
from tasks.work import Meter, Work

if TYPE_CHECKING:
    from storage import Artifact, ArtifactStore, ArtifactWriter, Input, Recipe

_LOG = logging.getLogger(__name__)

Progress = Callable[[float], None]
"""Called now and then with the share of the job that is done, 0 to 1."""


class Table(BaseModel):
    """A table of the configuration: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Job:
    """One artifact that is wanted.

    Attributes:
        recipe: Decides the artifact.
        runtime: What its making needs and its result does not depend on.
        label: Which of the stage's artifacts this is, for people: ``train``, ``shard 3``.
        preview: Statistics that are known before it is made, so that a plan can look past it.
    """

    recipe: Recipe
    runtime: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    preview: Mapping[str, Any] | None = None


class Made(Protocol):
    """What later stages need to know of an artifact; one that is only planned has it too."""

    @property
    def statistics(self) -> Mapping[str, Any]:
        """Figures from the manifest."""
        ...

    def as_input(self) -> Input:
        """Return what a recipe says of this artifact as an input."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: where its artifact is, and whether it had been there before.

    Attributes:
        kind: Of the artifact, like key.
        cached: Whether it was there, or was made meanwhile by another run.
        work: What it took here; None where nothing was done for it.
    """

    kind: str
    key: str
    cached: bool
    work: Work | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage: the kind it makes, the version of its code, and the function that makes it.

    Attributes:
        kind: Of its artifacts; also the name of its module, config table and Prefect task.
        version: To be raised whenever the same recipe would give other bytes.
        build: Fills the writer; may leave statistics there.
        complete: Whether all that belongs to an artifact is there, for a stage that makes more than
            the artifact itself.
    """

    kind: str
    version: int
    build: Callable[[Job, ArtifactStore, ArtifactWriter, Progress], None]
    complete: Callable[[Artifact, ArtifactStore], bool] | None = None

    def find_all(self, jobs: Sequence[Job], store: ArtifactStore) -> list[Artifact | None]:
        """Return the artifacts that are there, None for those to be made, in the order of jobs."""
        found = store.find_all([job.recipe for job in jobs])
        if self.complete is None:
            return found
        return [one if one is not None and self.complete(one, store) else None for one in found]

    def run(self, job: Job, store: ArtifactStore) -> Outcome:
        """Make the job's artifact, unless the store has it already."""
        (outcome,) = self.run_all([job], store)
        return outcome

    def run_all(
        self, jobs: Sequence[Job], store: ArtifactStore, *, retries: int = 0
    ) -> list[Outcome]:
        """Make those of the jobs' artifacts that the store has not, one after another.

        Args:
            jobs: In the order of the outcomes; looked for all at once.
            store: Where the artifacts are.
            retries: How often these jobs had been begun before: it was the first of them that is
                missing which failed.
        """
        outcomes = []
        for job, found in zip(jobs, self.find_all(jobs, store), strict=True):
            if found is None:
                outcomes.append(self._make(job, store, retries))
                retries = 0
            else:
                outcomes.append(Outcome(self.kind, found.key, cached=True))
                finish(self.kind, found.key, cached=True)
        return outcomes

    def _make(self, job: Job, store: ArtifactStore, retries: int) -> Outcome:
        """Make an artifact that was missing, when it is this thread's turn at it."""
        key = job.recipe.key
        with within(stage=self.kind, shard=job.label), store.turn(job.recipe) as waited:
            # Another run may have made it since it was looked for.
            (found,) = self.find_all([job], store)
            if found is None:
                work = self._build(job, store, waited, retries)
                _LOG.info(
                    "%s made in %.1f s", f"{self.kind}/{key[:8]}", work.seconds,
                    extra={"fields": {"artifact": f"{self.kind}/{key}", "work": work.to_json()}},
                )  # fmt: skip
            else:
                work = Work(waited={"turn": waited})
        finish(self.kind, key, cached=found is not None)
        return Outcome(self.kind, key, cached=found is not None, work=work)

    def _build(self, job: Job, store: ArtifactStore, waited: float, retries: int) -> Work:
        key = job.recipe.key
        meter = Meter(waited={"turn": waited})
        with meter.running(), store.create(job.recipe, tool_version=tool_version()) as writer:
            self.build(job, store, writer, lambda share: advance(self.kind, key, share))
            rows = _rows(writer.statistics)
            work = meter.work(rows=rows, written=size_of(writer.directory), retries=retries)
            writer.work.update(work.to_json())
        return work


def _rows(statistics: Mapping[str, Any]) -> int | None:
    """Return how many rows an artifact has, or was made from: texts, n-grams, examples."""
    for name in ("rows", "texts", "examples"):
        if isinstance(statistics.get(name), int):
            return int(statistics[name])
    return None


def tool_version() -> str:
    """Return the installed version of sparsedistill, as manifests state it."""
    try:
        return version("sparsedistill")
    except PackageNotFoundError:
        return "0"


def single_input(recipe: Recipe, role: str) -> Input:
    """Return the one input of that role."""
    (only,) = recipe.inputs[role]
    return only
