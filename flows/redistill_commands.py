"""``redistill`` at the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from dashboards.terminal import results_table
from flows.config import DistillConfig, load_config
from flows.delivery import Delivery, RunResult, deliver
from flows.redistillation import Redistilled, candidate, left_alone, redistill
from flows.terminal import StageBars

if TYPE_CHECKING:
    import argparse

    from tasks.earlier import Earlier


def run(options: argparse.Namespace) -> int:
    """Distil again where something has changed, and print what became of it."""
    config = load_config(options.config, overrides=options.overrides, data=options.data)
    out, console = options.out or f"runs/{config.name}", Console()
    with StageBars(console).shown():
        if options.no_prefect:
            done = redistill_inline(config, out, force=options.force)
        else:
            from flows.run_commands import quiet_prefect

            with quiet_prefect() as served:
                done = _redistill_with_prefect(config, out, force=options.force, served=served)
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


def _redistill_with_prefect(
    config: DistillConfig, out: str, *, force: bool, served: bool
) -> Redistilled:
    # A server of the run's own takes seconds to start, to be told that there is nothing to do.
    unchanged = None if served or force else left_alone(config, out=out)
    if unchanged is not None:
        return unchanged
    from flows.deployed import redistill_with_prefect

    return redistill_with_prefect(config, out, force=force)


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
