"""``compare``: several configurations side by side, at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dashboards.comparison import notes
from dashboards.comparison_table import comparison_table
from dashboards.console import plain_console
from flows.comparing import compare
from flows.config import load_config
from flows.delivery import deliver
from flows.run_commands import run as run_one
from flows.terminal import StageBars

if TYPE_CHECKING:
    import argparse

    from flows.config import DistillConfig
    from flows.delivery import RunResult


def run(options: argparse.Namespace) -> int:
    """Run what is missing of all configurations, and print and write them side by side."""
    configs = [
        load_config(file, overrides=options.overrides, data=options.data)
        for file in options.configs
    ]
    console = plain_console()

    def make(config: DistillConfig, name: str) -> RunResult:
        console.print(name, style="bold")
        with StageBars(console).shown():
            result = run_one(config, console, with_prefect=not options.no_prefect)
            # Never to runs/<name>, where the current model may be.
            deliver(result, Path(options.out) / name)
            return result

    made = compare(configs, run=make)
    numbers, page = made.write(options.out)
    console.print()
    console.print(comparison_table(made.document))
    for note in notes(made.document):
        console.print(note)
    console.print(f"\npage     {page}\nnumbers  {numbers}")
    return 0
