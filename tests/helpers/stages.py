"""Runs the stages of a configuration up to a given one, and reads what they wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.tiny_task import run_config

from flows.config import DistillConfig, parse_config
from flows.pipeline import Pipeline
from storage import Artifact, ArtifactStore
from tasks.stage import Job


class Workshop:
    """The stages over one directory of data and one store.

    Keys of ``tables`` are set in every configuration it makes.
    """

    def __init__(self, data: Path, store: Path, **tables: Mapping[str, Any]) -> None:
        self.data = data
        self.store = ArtifactStore(store)
        self._tables = tables

    def config(self, **tables: Mapping[str, Any] | None) -> DistillConfig:
        """The configuration; a table that is None is left out."""
        names = {*self._tables, *tables} - {name for name, t in tables.items() if t is None}
        merged = {n: {**self._tables.get(n, {}), **(tables.get(n) or {})} for n in names}
        given = run_config(self.data, Path(self.store.url), **merged)
        for name in [name for name, table in tables.items() if table is None]:
            del given[name]
        return parse_config(given)

    def make(self, stage: str, **tables: Mapping[str, Any] | None) -> dict[str, list[Artifact]]:
        """Make a stage and what it needs; returns the artifacts by stage."""
        made, _ = self._walk(stage, tables, last=True)
        return made

    def jobs(self, stage: str, **tables: Mapping[str, Any] | None) -> list[Job]:
        """Make what a stage needs; returns its jobs."""
        _, jobs = self._walk(stage, tables, last=False)
        return jobs

    def keys(self, stage: str, **tables: Mapping[str, Any] | None) -> list[str]:
        """Keys that the stage's artifacts have."""
        return [job.recipe.key for job in self.jobs(stage, **tables)]

    def _walk(
        self, stage: str, tables: Mapping[str, Mapping[str, Any] | None], *, last: bool
    ) -> tuple[dict[str, list[Artifact]], list[Job]]:
        steps = {step.name: step for step in Pipeline(self.config(**tables)).steps}
        wanted, found = [stage], {stage}
        while wanted:
            more = set(steps[wanted.pop()].needs) - found
            found |= more
            wanted += more
        made: dict[str, list[Artifact]] = {}
        jobs: list[Job] = []
        for name, step in steps.items():
            if name not in found:
                continue
            if step.check is not None:
                step.check(made)
            jobs = step.jobs(made)
            if name == stage and not last:
                return made, jobs
            outcomes = [step.stage.run(job, self.store) for job in jobs]
            made[name] = [self.store.get(one.kind, one.key) for one in outcomes]
        return made, jobs
