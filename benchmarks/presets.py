"""The three presets of the student side by side: same data, same logits, same examples seen.

Peers: the settings of the paper and of its released code, as far as they differ from ours in
anything but size. Table size, width, epochs, batch size and seeds are the same for all; batches are
smaller than the paper's because a run of some hundred thousand examples has too few of 2048.

    python benchmarks/presets.py experiments/trec.toml --epochs 10 --json presets-trec.json

Whatever an earlier run has in the store is used: only students are trained.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.config import load_config
from flows.inline import run_inline
from tasks.environment import environment
from tasks.presets import PRESETS


def main() -> int:
    """Train each preset and print what it reaches."""
    parser = argparse.ArgumentParser(description="Compare the student presets.")
    parser.add_argument("config")
    parser.add_argument("--data")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--evaluate-every", type=int, default=500, metavar="UPDATES")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = [measure(preset, options) for preset in PRESETS]
    about = {**environment(load_config(options.config).run.threads), "config": options.config}
    print_table(rows, about)
    if options.json:
        options.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1), "utf-8")
    return 0


def measure(preset: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return accuracies and training time of one preset."""
    overrides = [
        f'student.preset="{preset}"',
        f"student.epochs={options.epochs}",
        f"student.batch_size={options.batch_size}",
        f"student.width={options.width}",
        f"student.hidden={options.width}",
        f"student.seeds={list(range(options.seeds))}",
        f"student.evaluate_every={options.evaluate_every}",
        "student.baselines=[]",
        "finetune.enabled=false",
        "baseline.enabled=false",
    ]
    run = run_inline(load_config(options.config, overrides=overrides, data=options.data))
    scores = {row["model"]: row for row in run.summary()["results"]}
    students = run.artifacts["student"]
    return {
        "preset": preset,
        "test_accuracy": scores["dan_kd"]["accuracy"],
        "spread": scores["dan_kd"]["accuracy_spread"],
        "dev_accuracy": statistics.mean(float(s.statistics["dev_accuracy"]) for s in students),  # type: ignore[arg-type]
        "agreement": scores["dan_kd"]["agreement"],
        "seconds": statistics.mean(student.manifest.seconds for student in students),
        "examples_seen": int(students[0].statistics["examples"]) * options.epochs,  # type: ignore[call-overload]
    }


def print_table(rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """Print the rows and what they were measured on."""
    table = Table(box=None)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        values = [f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()]
        table.add_row(*values)
    console = Console()
    console.print(table)
    console.print(about)


if __name__ == "__main__":
    sys.exit(main())
