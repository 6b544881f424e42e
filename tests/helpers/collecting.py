"""Rules of a store of models in small, and what tests of its garbage collection do all the time."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from storage import ArtifactStore, Collection, Manifest, Recipe, Rules


def kept_models(manifests):
    return {(m.kind, m.key): "a model" for m in manifests if m.kind == "model"}


def parts_of(manifest: Manifest):
    return [("part", key) for key in manifest.statistics.get("parts", ())]


RULES = Rules(
    roots=kept_models,
    owns=parts_of,
    unfollowed=frozenset({"earlier"}),
    root_kinds=frozenset({"model"}),
    parts={"whole": "part"},
)


def recipe(kind: str, number: int = 0, **inputs) -> Recipe:
    return Recipe(kind, 1, {"n": number}, {r: (a.as_input(),) for r, a in inputs.items()})


def collect(store: ArtifactStore, *, older_than: float = 0, **options) -> Collection:
    return store.collect(RULES, **{"delete": True, "older_than": older_than, **options})


def freed(collection: Collection, what: str = "artifact") -> set:
    return {(one.kind, one.name) for one in collection.freed if one.what == what}


def names(*artifacts) -> set:
    return {(artifact.kind, artifact.key) for artifact in artifacts}


def fail(store: ArtifactStore, used) -> None:
    """A run that uses artifacts and does not end well."""
    with suppress(KeyboardInterrupt), store.lease("weekly") as lease:
        lease.use(used)
        raise KeyboardInterrupt


def age(root: Path, artifact, seconds: float) -> None:
    """Have an artifact on a local disk look older."""
    for path in (root / artifact.kind / artifact.key).iterdir():
        stat = path.stat()
        os.utime(path, (stat.st_atime, stat.st_mtime - seconds))


def killed_collections_start_from(store: ArtifactStore) -> None:
    def make(recipe: Recipe):
        with store.create(recipe) as writer:
            for name in "ab":
                writer.path(name).write_text(name)
        return writer.artifact

    make(recipe("features", 1, data=make(recipe("data", 1))))
    make(recipe("model", data=make(recipe("data"))))
    (store.workspace(recipe("student")) / "checkpoint").write_text("x")
