"""``distill``, ``plan`` and ``report`` at the command line."""

from __future__ import annotations

import json
import logging
import os
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from dashboards.markdown import results_markdown
from dashboards.report import render_report
from dashboards.summary import headline
from dashboards.terminal import results_table
from flows.config import DistillConfig, load_config
from flows.delivery import Delivery, RunResult, deliver
from flows.terminal import StageBars
from flows.work_table import work_table
from sparsedistill.errors import DataError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_LOCAL_SERVER = "http://127.0.0.1:4200/api"


def distill(options: argparse.Namespace) -> int:
    """Run a distillation, with bars, and print what came of it."""
    config = load_config(options.config, overrides=options.overrides, data=options.data)
    if options.log:
        with Path(options.log).open("a", encoding="utf-8"):  # an error now, not a warning later
            pass
        run = config.run.model_copy(update={"log": options.log})
        config = config.model_copy(update={"run": run})
    console = Console()
    out = options.out or f"runs/{config.name}"
    with StageBars(console).shown():
        result, place = _run(config, out, with_prefect=not options.no_prefect)
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
    console.print(f"report  {delivery.report}\nmodel   {delivery.model}", highlight=False)
    if place != out:
        console.print(
            f"{out} keeps the current model; `sparsedistill promote {options.config} --out {out}` "
            "puts this one in its place",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return 0


def plan(options: argparse.Namespace) -> int:
    """Print what a run would do."""
    from flows.plan import make_plan, plan_table

    config = load_config(options.config, overrides=options.overrides, data=options.data)
    made = make_plan(config, measure=options.measure)
    if options.json:
        print(json.dumps(made.to_json(), indent=1))  # noqa: T201
        return 0
    console = Console()
    console.print(plan_table(made))
    if made.teacher is not None:
        console.print(made.teacher.told(), highlight=False)
    for note in made.notes:
        console.print(note, highlight=False)
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


def _run(config: DistillConfig, out: str, *, with_prefect: bool) -> tuple[RunResult, str]:
    """Return what a run made, and where it was delivered."""
    from flows.redistillation import place

    result = run(config, with_prefect=with_prefect)
    where = place(result, config, out)
    deliver(result, where)
    return result, where


def run(config: DistillConfig, *, with_prefect: bool) -> RunResult:
    """Make what is missing of a run, here or as a flow; deliver nothing."""
    if not with_prefect:
        from flows.inline import run_inline

        return run_inline(config)
    with quiet_prefect():
        from flows.prefect_runner import run_with_prefect

        return run_with_prefect(config)


@contextmanager
def quiet_prefect() -> Iterator[bool]:
    """Use the local server if there is one, and leave the terminal to the bars.

    Gives whether a server is there: without one, the first flow starts one of its own.

    Raises:
        ServerError: Prefect is set to use a server that does not answer.
    """
    # The bars show what happens; Prefect's own lines would break through them.
    with _environment_by_default(
        PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="CRITICAL",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
    ):
        logging.getLogger("httpx").setLevel(logging.WARNING)
        from prefect.settings import PREFECT_API_URL, temporary_settings

        from flows.local_server import named_server

        named = named_server("give --no-prefect")
        server = named or _local_server()
        with temporary_settings({PREFECT_API_URL: server} if server and not named else {}):
            yield server is not None


@contextmanager
def _environment_by_default(**defaults: str) -> Iterator[None]:
    """Set variables that are not set, for Prefect and the workers of a run, and not for longer."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _local_server() -> str | None:
    """Return the server of `make ui` or of `up` if one is there."""
    try:
        with urllib.request.urlopen(f"{_LOCAL_SERVER}/health", timeout=0.3):  # noqa: S310
            return _LOCAL_SERVER
    except OSError:
        return None
