"""A run's data, its store and the place of its model, where time goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.tiny_task import run_config, texts

from flows import current as decisions
from flows.config import DistillConfig, parse_config
from flows.current import Decision
from flows.delivery import is_delivered
from flows.redistill_commands import redistill_inline
from flows.redistillation import Redistilled
from storage import ArtifactStore

Tables = Mapping[str, Any]
# Never worse by more than everything: what is measured on forty rows is chance.
ANY = {"redistill": {"margin": 0.99}}


class House:
    """A run's data, store and output, where time goes on."""

    def __init__(self, data: Path, store: Path, out: Path) -> None:
        self.data, self.out = data, out
        self.store = ArtifactStore(store)

    def config(self, **tables: Tables) -> DistillConfig:
        return parse_config(run_config(self.data, Path(self.store.url), **{**ANY, **tables}))

    def redistill(self, *, force: bool = False, **tables: Tables) -> Redistilled:
        return redistill_inline(self.config(**tables), str(self.out), force=force)

    def grow(self, seed: int = 3) -> None:
        with (self.data / "corpus.txt").open("a") as file:
            file.writelines(f"{text}\n" for text, _ in texts(900, seed=seed)[-150:])

    def decisions(self) -> list[Decision]:
        return decisions.history(self.store, "tiny")

    def current(self) -> str:
        found = decisions.current(self.decisions())
        assert found is not None
        return found.model.package.key

    def is_out(self, package: str) -> bool:
        return is_delivered(self.store.get("package", package), self.out)
