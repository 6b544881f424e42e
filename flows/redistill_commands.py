"""``redistill`` at the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dashboards.console import plain_console
from dashboards.format import clean
from dashboards.terminal import results_table
from flows.delivery import Delivery, RunResult, deliver
from flows.places import candidate, place, promotion_command
from flows.redistillation import Redistilled, left_alone, redistill
from flows.run_commands import configured, quiet_prefect, start_server
from flows.terminal import StageBars
from flows.work_table import work_table

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from flows.config import DistillConfig
    from tasks.earlier import Earlier


def run(options: argparse.Namespace) -> int:
    """Distil again where something has changed, and print what became of it."""
    config = configured(options)
    out, console = options.out or f"runs/{config.name}", plain_console()
    with StageBars(console).shown():
        if options.no_prefect:
            done = redistill_inline(config, out, force=options.force)
        else:
            done = _redistill_with_prefect(config, out, console, force=options.force)
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
    config: DistillConfig, out: str, console: Console, *, force: bool
) -> Redistilled:
    with quiet_prefect() as served:
        if not served:
            # None is started to be told that there is nothing to do.
            unchanged = None if force else left_alone(config, out=out)
            if unchanged is not None:
                return unchanged
            start_server(console)
        from flows.deployed import redistill_with_prefect

        return redistill_with_prefect(config, out, force=force)


def _tell(done: Redistilled, config: DistillConfig, out: str, console: Console) -> None:
    if done.result is not None:
        console.print()
        if done.result.computed():
            console.print(work_table(done.result.outcomes))
            console.print()
        console.print(results_table(done.result.summary()))
        console.print()
    console.print(clean(f"{done.outcome}: {done.why}"))
    if done.result is not None and place(done.result, config, out) != out:
        console.print(
            f"the new model is in {Delivery.below(candidate(out)).model}; "
            f"`{promotion_command(config, out)}` makes it the current one"
        )
    delivery = Delivery.below(out)
    console.print(f"report  {delivery.report}\nmodel   {delivery.model}")
