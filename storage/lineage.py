"""Where an artifact came from, and what no kept artifact needs any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from storage.manifest import Manifest

Name: TypeAlias = tuple[str, str]
"""Kind and key."""

Load: TypeAlias = Callable[[Sequence[Name]], Sequence[Manifest | None]]
"""Reads many manifests at once; None for one that is missing or damaged."""


@dataclass(frozen=True, slots=True)
class LineageNode:
    """An artifact and what it was made from.

    Attributes:
        kind: Of the artifact, like key.
        manifest: None when the artifact is gone (or damaged): its own inputs are unknown then.
        children: The inputs, by role and in their order. An input reached twice is the same node.
    """

    kind: str
    key: str
    manifest: Manifest | None
    children: Mapping[str, tuple[LineageNode, ...]] = field(default_factory=dict)


def trace(start: Iterable[Manifest], load: Load) -> dict[Name, Manifest | None]:
    """All artifacts that the given ones were made from, themselves included.

    Breadth first, one `load` a generation: a vocabulary has as many inputs as the corpus shards.
    """
    known: dict[Name, Manifest | None] = {(m.kind, m.key): m for m in start}
    frontier: list[Manifest] = [m for m in known.values() if m is not None]
    while frontier:
        names = sorted({name for m in frontier for name in _inputs(m)} - known.keys())
        loaded = load(names)
        known.update(zip(names, loaded, strict=True))
        frontier = [m for m in loaded if m is not None]
    return known


def tree(root: Manifest, known: Mapping[Name, Manifest | None]) -> LineageNode:
    """The lineage of one artifact, from what `trace` found."""
    made: dict[Name, LineageNode] = {}

    def node(name: Name, above: frozenset[Name]) -> LineageNode:
        if name in made:
            return made[name]
        # Keys are digests, so only an altered manifest can lead back to itself.
        manifest = None if name in above else known.get(name)
        inputs = manifest.inputs if manifest else {}
        children = {
            role: tuple(node((i.kind, i.key), above | {name}) for i in items)
            for role, items in inputs.items()
        }
        made[name] = LineageNode(*name, manifest, children)
        return made[name]

    return node((root.kind, root.key), frozenset())


def _inputs(manifest: Manifest) -> list[Name]:
    return [(i.kind, i.key) for items in manifest.inputs.values() for i in items]
