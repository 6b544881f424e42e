"""``current``, ``promote`` and ``rollback`` at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dashboards import format as fmt
from dashboards.console import plain_console
from flows import current as decisions
from flows.places import deliver_current
from flows.store_commands import open_store

if TYPE_CHECKING:
    import argparse

    from flows.current import Decision
    from storage import ArtifactStore

_SHORT = 12


def show(options: argparse.Namespace) -> int:
    """Print the decisions about a run's models, and which one is current."""
    name, store = _named(options)
    made, console = decisions.history(store, name), plain_console()
    there = decisions.current(made)
    if there is None:
        console.print(
            f"{name} has no current model in {store.url}; `sparsedistill redistill` makes one"
        )
        return 1
    # The one that made it current, which after a roll-back is not the one that first did.
    last = [one for one in made if one.verdict != "kept"][-1]
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("", "when", "decision", "model", "accuracy", "why"):
        table.add_column(heading, justify="right" if heading in ("", "accuracy") else "left")
    for one in made:
        table.add_row(
            f"{'→ ' if one is last else ''}{one.number}",
            one.when[:16].replace("T", " "),
            one.verdict.replace("_", " "),
            one.model.package.key[:_SHORT],
            fmt.exact_share(one.model.accuracy),
            Text(one.why),
            style="bold" if one is last else None,
        )
    console.print(table)
    package = there.model.package
    console.print(f"\ncurrent  {package.kind}/{package.key}")
    return 0


def promote(options: argparse.Namespace) -> int:
    """Make a model the current one by hand."""
    name, store = _named(options)
    return _decided(decisions.promote(store, name, report=options.report), name, store, options.out)


def rollback(options: argparse.Namespace) -> int:
    """Make an earlier model the current one again."""
    name, store = _named(options)
    return _decided(decisions.rollback(store, name, to=options.to), name, store, options.out)


def _decided(decision: Decision, name: str, store: ArtifactStore, out: str | None) -> int:
    console = plain_console()
    package = decision.model.package
    console.print(f"{decision.why}: package/{package.key[:_SHORT]} is current")
    if out is None:
        console.print("it is delivered by the next `sparsedistill redistill`, or now with --out")
    else:
        console.print(f"model    {deliver_current(store, name, out).model}")
    return 0


def _named(options: argparse.Namespace) -> tuple[str, ArtifactStore]:
    """Return the name of a run and its store: those of a configuration, or as they are given."""
    name, url = options.name, options.store
    if name.endswith(".toml") or Path(name).is_file():
        # Imports all stages, and torch with them: not where a name and a store are given.
        from flows.config import load_config

        config = load_config(name)
        name, url = config.name, url or config.run.store
    return name, open_store(url or ".sparsedistill/store")
