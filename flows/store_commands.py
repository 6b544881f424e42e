"""``store ls | show | verify | lineage``: looking into the artifact store from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fsspec
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from dashboards import format as fmt
from storage import Artifact, ArtifactStore, LineageNode, StorageError

if TYPE_CHECKING:
    import argparse

_SHORT = 12


def ls(options: argparse.Namespace) -> int:
    """List the artifacts, by kind and then by time."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("artifact", "created", "rows", "size", "work"):
        table.add_column(heading, justify="left" if heading in ("artifact", "created") else "right")
    for manifest in _store(options).artifacts(options.kind):
        table.add_row(
            Text(f"{manifest.kind}/{manifest.key[:_SHORT]}"),
            manifest.created[:19].replace("T", " "),
            fmt.count(sum(file.rows or 0 for file in manifest.files) or None),
            fmt.size(manifest.size),
            fmt.duration(manifest.seconds),
        )
    Console().print(table)
    return 0


def show(options: argparse.Namespace) -> int:
    """Print an artifact's manifest."""
    Console().print_json(_artifact(options).manifest.to_json())
    return 0


def verify(options: argparse.Namespace) -> int:
    """Read every file and compare it with its checksum; 1 if something is damaged."""
    store, console = _store(options), Console()
    checked = damaged = 0
    for found in store.verify(options.kind):
        checked += 1
        if found.ok:
            continue
        damaged += 1
        for problem in found.problems:
            console.print(Text(f"{found.kind}/{found.key}: {problem}"))
        if options.remove and not found.newer:
            store.remove(found.kind, found.key)
    done = (
        "removed; the next run makes them again" if options.remove else "see store verify --remove"
    )
    console.print(
        f"{checked} artifacts read, {damaged} damaged" + (f" ({done})" if damaged else "")
    )
    return 1 if damaged else 0


def lineage(options: argparse.Namespace) -> int:
    """Draw what an artifact was made from, back to the sources."""
    node = _store(options).lineage(_artifact(options))
    tree = Tree(_label(node))
    _grow(tree, node, set())
    Console().print(tree)
    return 0


def _store(options: argparse.Namespace) -> ArtifactStore:
    """Open the store that is there; looking must not make an empty one."""
    fs, path = fsspec.core.url_to_fs(options.store)
    if not fs.exists(f"{path}/store.json"):
        raise StorageError(f"there is no store at {options.store}; say with --store where it is")
    return ArtifactStore(options.store)


def _artifact(options: argparse.Namespace) -> Artifact:
    kind, slash, key = options.artifact.partition("/")
    if not slash:
        raise StorageError(f"{options.artifact!r}: write it as kind/key, as `store ls` shows it")
    return _store(options).get(kind, key)


def _label(node: LineageNode) -> Text:
    gone = "" if node.manifest else "  (no longer in the store)"
    return Text(f"{node.kind}/{node.key[:_SHORT]}{gone}")


def _grow(tree: Tree, node: LineageNode, seen: set[tuple[str, str]]) -> None:
    """Add a node's inputs; one that was drawn already is named but not drawn again."""
    for role, children in node.children.items():
        for child in children:
            branch = tree.add(Text(f"{role}: ").append_text(_label(child)))
            if (child.kind, child.key) not in seen:
                seen.add((child.kind, child.key))
                _grow(branch, child, seen)
