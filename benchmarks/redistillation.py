"""Is a student better made anew when the corpus has grown, or from the last student's rows?

The corpus is cut: a student is made of its first rows, then others of all rows, anew and from that
student, each with several numbers of epochs. What is told is accuracy on ``dev`` while it is
distilled, and on ``test`` before and after fine-tuning: means over the seeds.

    python benchmarks/redistillation.py experiments/trec.toml --rows 250000 --store STORE

Of the earlier student the best seed on ``dev`` is taken over, by all seeds, as ``redistill`` does.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from flows.config import load_config
from flows.current import model_of
from flows.inline import run_inline
from flows.redistillation import earlier_of
from storage import ArtifactStore

if TYPE_CHECKING:
    from flows.config import DistillConfig
    from flows.delivery import RunResult
    from tasks.earlier import Earlier


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("config", help="TOML file of the run")
    parser.add_argument("--rows", type=int, required=True, help="of the corpus, before it grows")
    parser.add_argument("--epochs", type=int, nargs="+", default=[5, 2, 1])
    parser.add_argument("--store", required=True)
    parser.add_argument("--data")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    overrides = [
        *options.overrides,
        f"run.store={json.dumps(options.store)}",
        "student.baselines=[]",
        "baseline.enabled=false",
        "evaluation.teacher_texts=8",
    ]

    def config(*more: str) -> DistillConfig:
        return load_config(options.config, overrides=[*overrides, *more], data=options.data)

    console = Console(width=150)
    first = run_inline(config(f"corpus.max_rows={options.rows}"))
    found = [_told(first, start="anew", epochs=0)]
    store = ArtifactStore(options.store)
    for epochs in options.epochs:
        for start in ("anew", "current"):
            given = config(f"student.epochs={epochs}", f'redistill.start="{start}"')
            earlier: Earlier = earlier_of(
                model_of(first.artifacts["report"][0], store), given, store
            )
            found.append(_told(run_inline(given, earlier=earlier), start=start, epochs=epochs))
            console.print(found[-1])
    table = Table(*found[0], box=None)
    for row in found:
        table.add_row(*(str(value) for value in row.values()))
    console.print(table)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1), "utf-8")


def _told(result: RunResult, *, start: str, epochs: int) -> dict[str, Any]:
    curves = [one.statistics for one in result.artifacts["student"]]
    results = {row["model"]: row for row in result.summary()["results"]}
    return {
        "corpus": result.artifacts["corpus"][0].statistics["rows"],
        "start": start,
        "epochs": epochs or "as configured",
        "dev_first": _mean([one["curve"][0]["dev_accuracy"] for one in curves]),  # type: ignore[index,call-overload]
        "dev_best": _mean([one["dev_accuracy"] for one in curves]),
        "best_update": [one["best_update"] for one in curves],
        "test": _mean([results["dan_kd"]["accuracy"]]),
        "test, fine-tuned": _mean([results["dan_kd_ft"]["accuracy"]]),
        "agreement": _mean([results["dan_kd_ft"]["agreement"]]),
    }


def _mean(values: list[Any]) -> str:
    return "–" if None in values else f"{100 * statistics.mean(values):.2f}"


if __name__ == "__main__":
    main()
