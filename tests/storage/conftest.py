"""Stores to test on, and recipes to fill them with."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from storage import Artifact, ArtifactStore, BadRow, Recipe, read_texts

Make = Callable[..., Artifact]


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSEDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def local_store(root: Path) -> ArtifactStore:
    return ArtifactStore(root)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, root: Path) -> ArtifactStore:
    if request.param == "local":
        return ArtifactStore(root)
    return ArtifactStore(f"memory://{secrets.token_hex(8)}/runs")


@pytest.fixture
def recipe() -> Recipe:
    return Recipe("corpus", 1, {"rows": 100})


@pytest.fixture
def make() -> Make:
    def make(store: ArtifactStore, recipe: Recipe, **files: str) -> Artifact:
        with store.create(recipe, tool_version="1.2.3") as writer:
            for name, text in (files or {"data": "some text"}).items():
                writer.path(f"{name}.txt").write_text(text)
        return writer.artifact

    return make


class Reading:
    """All texts of a file, and the rows left out."""

    def __init__(self, path: object, **options: object) -> None:
        self.bad: list[BadRow] = []
        batches = list(read_texts(str(path), on_bad=self.bad.append, **options))  # type: ignore[arg-type]
        self.batch_sizes = [len(batch) for batch in batches]
        self.texts = [text for batch in batches for text in batch]
        self.reasons = [(bad.row, bad.reason) for bad in self.bad]


@pytest.fixture
def read() -> type[Reading]:
    return Reading
