"""What every stage has in common: a job says what is to be made, a stage makes it if it is missing.

A job is plain data, so it travels to a thread, a process or a Dask worker alike. Its recipe holds
all that decides the artifact; ``runtime`` holds the rest (paths, threads, devices), which may
change between two runs without making anything stale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from tasks.progress import advance, finish

if TYPE_CHECKING:
    from storage import Artifact, ArtifactStore, ArtifactWriter, Input, Recipe

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
    """What became of a job: where its artifact is, and whether it had been there before."""

    kind: str
    key: str
    cached: bool


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
        key = job.recipe.key
        (found,) = self.find_all([job], store)
        cached = found is not None
        if not cached:
            with store.create(job.recipe, tool_version=tool_version()) as writer:
                self.build(job, store, writer, lambda share: advance(self.kind, key, share))
        finish(self.kind, key, cached=cached)
        return Outcome(self.kind, key, cached=cached)


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
