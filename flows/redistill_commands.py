"""``redistill``, ``current``, ``promote`` and ``rollback`` at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dashboards import format as fmt
from dashboards.terminal import results_table
from flows import current as decisions
from flows.config import DistillConfig, load_config
from flows.delivery import Delivery, RunResult, deliver, deliver_model
from flows.redistillation import Redistilled, candidate, redistill
from flows.store_commands import open_store
from flows.terminal import StageBars

if TYPE_CHECKING:
    import argparse

    from flows.current import Decision
    from storage import ArtifactStore
    from tasks.earlier import Earlier

_SHORT = 12


def run(options: argparse.Namespace) -> int:
    """Distil again where something has changed, and print what became of it."""
    config = load_config(options.config, overrides=options.overrides, data=options.data)
    out, console = options.out or f"runs/{config.name}", Console()
    with StageBars(console).shown():
        if options.no_prefect:
            done = redistill_inline(config, out, force=options.force)
        else:
            from flows.run_commands import quiet_prefect

            with quiet_prefect():
                from flows.deployed import redistill_with_prefect

                done = redistill_with_prefect(config, out, force=options.force)
    _tell(done, config, out, console)
    return 0


def redistill_inline(config: DistillConfig, out: str, *, force: bool = False) -> Redistilled:
    """Distil again in this process; see ``flows.redistillation.redistill``."""

    def make(config: DistillConfig, earlier: Earlier | None) -> RunResult:
        from flows.inline import run_inline

        result = run_inline(config, earlier=earlier)
        deliver(result, candidate(out))
        return result

    return redistill(config, out=out, run=make, force=force)


def show(options: argparse.Namespace) -> int:
    """Print the decisions about a run's models, and which one is current."""
    name, store = _named(options)
    made, console = decisions.history(store, name), Console()
    there = decisions.current(made)
    if there is None:
        console.print(f"{name} has no current model in {store.url}", highlight=False)
        return 1
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("", "when", "decision", "model", "accuracy", "why"):
        table.add_column(heading, justify="right" if heading in ("", "accuracy") else "left")
    for one in made:
        table.add_row(
            f"{'→ ' if one is there else ''}{one.number}",
            one.when[:16].replace("T", " "),
            one.verdict.replace("_", " "),
            one.model.package.key[:_SHORT],
            fmt.exact_share(one.model.accuracy),
            Text(one.why),
            style="bold" if one is there else None,
        )
    console.print(table)
    package = there.model.package
    console.print(f"\ncurrent  {package.kind}/{package.key}", highlight=False)
    return 0


def promote(options: argparse.Namespace) -> int:
    """Make a model the current one by hand."""
    name, store = _named(options)
    return _decided(decisions.promote(store, name, report=options.report), store, options.out)


def rollback(options: argparse.Namespace) -> int:
    """Make an earlier model the current one again."""
    name, store = _named(options)
    return _decided(decisions.rollback(store, name, to=options.to), store, options.out)


def _decided(decision: Decision, store: ArtifactStore, out: str | None) -> int:
    console = Console()
    package = decision.model.package
    console.print(f"{decision.why}: package/{package.key[:_SHORT]} is current", highlight=False)
    if out is not None:
        report = decision.model.references["report"]
        delivery = deliver_model(
            store.get(report.kind, report.key), store.get(package.kind, package.key), out
        )
        console.print(f"model    {delivery.model}", highlight=False)
    return 0


def _named(options: argparse.Namespace) -> tuple[str, ArtifactStore]:
    """Return the name of a run and its store: those of a configuration, or as they are given."""
    name, url = options.name, options.store
    if name.endswith(".toml") or Path(name).is_file():
        config = load_config(name)
        name, url = config.name, url or config.run.store
    return name, open_store(url or ".sparsedistill/store")


def _tell(done: Redistilled, config: DistillConfig, out: str, console: Console) -> None:
    if done.result is not None:
        console.print()
        console.print(results_table(done.result.summary()))
        console.print()
    console.print(f"{done.outcome}: {done.why}", highlight=False)
    if done.outcome in ("kept", "overtaken"):
        console.print(f"the new model is in {Delivery.below(candidate(out)).model}; ", end="")
        console.print(f"`sparsedistill promote {config.name}` makes it current", highlight=False)
    console.print(f"model   {Delivery.below(out).model}", highlight=False)
