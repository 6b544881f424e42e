"""``store ls | show | verify | lineage | gc``: the artifact store from the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from dashboards import format as fmt
from dashboards.console import plain_console
from flows.garbage import rules
from storage import Artifact, ArtifactStore, LineageNode, NoStoreError, StorageError

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

_SHORT = 12
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def ls(options: argparse.Namespace) -> int:
    """List the artifacts, by kind and then by time."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("artifact", "created", "rows", "size", "work"):
        table.add_column(heading, justify="left" if heading in ("artifact", "created") else "right")
    store = _store(options)
    _check_kind(store, options.kind)
    for manifest in store.artifacts(options.kind):
        table.add_row(
            Text(f"{manifest.kind}/{manifest.key[:_SHORT]}"),
            Text(fmt.clean(manifest.created[:19].replace("T", " "))),
            fmt.count(sum(file.rows or 0 for file in manifest.files) or None),
            fmt.size(manifest.size),
            fmt.duration(manifest.seconds),
        )
    plain_console().print(table)
    return 0


def show(options: argparse.Namespace) -> int:
    """Print an artifact's manifest."""
    plain_console().print_json(_artifact(options).manifest.to_json())
    return 0


def verify(options: argparse.Namespace) -> int:
    """Read every file and compare it with its checksum; 1 if something is not as it should be."""
    store, console = _store(options), plain_console()
    _check_kind(store, options.kind)
    checked = damaged = newer = 0
    for found in store.verify(options.kind):
        checked += 1
        newer += found.newer
        damaged += not (found.ok or found.newer)
        for problem in found.problems:
            console.print(fmt.clean(f"{found.kind}/{found.key}: {problem}"))
    done = " (a run that needs them makes them again)" if damaged else ""
    console.print(f"{checked - newer} artifacts read, {damaged} damaged{done}")
    if newer:
        console.print(f"{newer} not read: a newer version of sparsedistill wrote them")
    return 1 if damaged or newer else 0


def gc(options: argparse.Namespace) -> int:
    """Say what no kept run needs, and why the rest stays; remove it where asked."""
    store, console = _store(options), plain_console()
    found = store.collect(
        rules(store, keep_runs=options.keep_runs),
        delete=options.delete,
        older_than=_seconds("--older-than", options.older_than),
        unfinished=_seconds("--unfinished", options.unfinished),
    )
    _print_sums(
        console,
        "freed" if options.delete else "would be freed",
        [(" ".join(filter(None, (one.kind, one.what))), one.bytes) for one in found.freed],
    )
    _print_sums(console, "kept, because of", [(one.why, one.bytes) for one in found.kept])
    size = fmt.size(sum(one.bytes for one in found.freed))
    if options.delete:
        console.print(f"{size} freed")
    elif found.freed:
        console.print(f"nothing was removed: --delete frees {size}")
    else:
        console.print("nothing to remove")
    return 0


def _print_sums(console: Console, heading: str, items: list[tuple[str, int]]) -> None:
    if not items:
        return
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(heading)
    table.add_column("number", justify="right")
    table.add_column("size", justify="right")
    for name in dict.fromkeys(sorted(name for name, _ in items)):
        sizes = [size for each, size in items if each == name]
        table.add_row(Text(fmt.one_line(name)), fmt.count(len(sizes)), fmt.size(sum(sizes)))
    console.print(table)
    console.print()


def _seconds(option: str, given: str) -> float:
    match = _DURATION.fullmatch(given)
    if not match:
        raise StorageError(f"{option} {given!r} is no time; write it as 36h, 2d or 0")
    return float(match[1]) * _UNITS[match[2]]


def lineage(options: argparse.Namespace) -> int:
    """Draw what an artifact was made from, back to the sources."""
    node = _store(options).lineage(_artifact(options))
    tree = Tree(_label(node))
    _grow(tree, node, set())
    plain_console().print(tree)
    return 0


def open_store(url: str) -> ArtifactStore:
    """Open the store that is there; looking must not make an empty one."""
    try:
        return ArtifactStore(url, make=False)
    except NoStoreError as error:
        raise StorageError(f"{error}; say with --store where it is") from error


def _store(options: argparse.Namespace) -> ArtifactStore:
    return open_store(options.store)


def _check_kind(store: ArtifactStore, kind: str | None) -> None:
    """Refuse a kind of which there is nothing: most likely it is misspelt."""
    kinds = store.kinds()
    if kind is not None and kind not in kinds:
        there = f"there are {', '.join(sorted(kinds))}" if kinds else "the store is empty"
        raise StorageError(f"no artifact is of kind {kind!r}; {there}")


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
