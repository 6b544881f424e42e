"""``distill``, ``plan`` and ``report`` at the command line."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from dashboards.console import plain_console
from dashboards.markdown import results_markdown
from dashboards.report import render_report
from dashboards.summary import headline
from dashboards.terminal import results_table
from flows.config import DistillConfig, load_config
from flows.delivery import Delivery, RunResult, deliver
from flows.environment import FOR_SERVERS, environment_by_default
from flows.places import place, promotion_command
from flows.terminal import StageBars
from flows.work_table import work_table
from sparsedistill.errors import DataError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from rich.console import Console

_LOCAL_SERVER = "http://127.0.0.1:4200/api"


def distill(options: argparse.Namespace) -> int:
    """Run a distillation, with bars, and print what came of it."""
    config = configured(options)
    console = plain_console()
    out = options.out or f"runs/{config.name}"
    with StageBars(console).shown():
        result, place = _run(config, out, console, with_prefect=not options.no_prefect)
    delivery = Delivery.below(place)
    summary = result.summary()
    console.print()
    if result.computed():
        console.print(work_table(result.outcomes))
        console.print()
    console.print(results_table(summary))
    console.print(f"\n{headline(summary)}")
    if result.computed() == 0:
        console.print("Nothing had to be computed: every stage was Cached.")
    console.print(f"report  {delivery.report}\nmodel   {delivery.model}")
    if place != out:
        console.print(
            f"{out} keeps the current model; `{promotion_command(config, out)}` puts this one in "
            "its place"
        )
    return 0


def configured(options: argparse.Namespace) -> DistillConfig:
    """Return the configuration of a run as the command line has it."""
    config = load_config(options.config, overrides=options.overrides, data=options.data)
    if not options.log:
        return config
    with Path(options.log).open("a", encoding="utf-8"):  # an error now, not a warning later
        pass
    run = config.run.model_copy(update={"log": options.log})
    return config.model_copy(update={"run": run})


def plan(options: argparse.Namespace) -> int:
    """Print what a run would do."""
    from flows.plan import make_plan, plan_table

    config = load_config(options.config, overrides=options.overrides, data=options.data)
    made = make_plan(config, measure=options.measure)
    if options.json:
        print(json.dumps(made.to_json(), indent=1))  # noqa: T201
        return 0
    console = plain_console()
    console.print(plan_table(made))
    if made.teacher is not None:
        console.print(made.teacher.told())
    for note in made.notes:
        console.print(note)
    return 0


def report(options: argparse.Namespace) -> int:
    """Draw a run's page from its numbers, or print its table as Markdown."""
    try:
        summary = json.loads(Path(options.summary).read_text("utf-8"))
        page = results_markdown(summary) if options.markdown else render_report(summary)
    except (OSError, ValueError) as error:
        raise DataError(f"{options.summary}: {error}") from error
    if options.markdown:
        print(page)  # noqa: T201
        return 0
    Path(options.out).write_text(page, "utf-8")
    print(options.out)  # noqa: T201
    return 0


def _run(
    config: DistillConfig, out: str, console: Console, *, with_prefect: bool
) -> tuple[RunResult, str]:
    """Return what a run made, and where it was delivered."""
    result = run(config, console, with_prefect=with_prefect)
    where = place(result, config, out)
    deliver(result, where)
    return result, where


def run(config: DistillConfig, console: Console, *, with_prefect: bool) -> RunResult:
    """Make what is missing of a run, here or as a flow; deliver nothing."""
    if not with_prefect:
        from flows.inline import run_inline

        return run_inline(config)
    with quiet_prefect() as served:
        if not served:
            start_server(console)
        from flows.prefect_runner import run_with_prefect

        return run_with_prefect(config)


def start_server(console: Console) -> None:
    """Have Prefect start the server of this run alone, before the run's first flow would."""
    console.print("starting a Prefect server for this run; --no-prefect works without one")
    from flows.temporary_server import start_temporary

    start_temporary()


@contextmanager
def quiet_prefect() -> Iterator[bool]:
    """Use the local server if there is one, and leave the terminal to the bars.

    Gives whether a server is there; see `start_server` for where there is none.

    Raises:
        ServerError: Prefect is set to use a server that does not answer.
    """
    # The bars show what happens; Prefect's own lines would break through them.
    with environment_by_default(
        PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="CRITICAL",
        **FOR_SERVERS,
    ):
        logging.getLogger("httpx").setLevel(logging.WARNING)
        from flows.local_server import named_server, using

        named = named_server("give --no-prefect")
        local = None if named else _local_server()
        with using(local) if local else nullcontext():
            yield bool(named or local)


def _local_server() -> str | None:
    """Return the server of `make ui` or of `up` if one is there."""
    from flows.local_server import answers

    return _LOCAL_SERVER if answers(_LOCAL_SERVER, seconds=0.3) else None
