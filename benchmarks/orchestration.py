"""What orchestration costs apart from the work, with Prefect's server and database on this machine.

* An unchanged run of the whole pipeline over a corpus of many shards (logits given, tiny student):
  seconds from the call to the result, and what was computed, which is nothing. On a local disk with
  each task runner, and on an S3 server (moto) with its requests counted: on a machine that has
  never looked at the store, and on one that has.
* A run of one stage whose shards take a second each. They sleep, so that workers may be more than
  cores, and what is over the ideal (shards x seconds / workers) is orchestration: finding out what
  is missing, starting workers, task runs, publishing artifacts, the last reports to the server.
* For comparison the same shards as Prefect's users are shown it: one mapped task run a shard, and
  Prefect's own cache for the second run.

Of each run, how much Prefect's SQLite database has grown.

    python benchmarks/orchestration.py --shards 1000 --workers 4 --json FILE
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from local_servers import requests, s3_server, server, settled, size
from rich.console import Console
from rich.table import Table

from tasks.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RUNNERS = ("threads", "processes", "dask")
ROWS = {"train": 200, "dev": 100, "test": 100}
ROWS_PER_SHARD = 10
MIB = 1 << 20


def main() -> int:
    """Start a server, measure, print."""
    parser = argparse.ArgumentParser(description="Measure the cost of orchestration.")
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a shard takes")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=RUNNERS)
    parser.add_argument("--repeat", type=int, default=3, help="unchanged runs with each runner")
    parser.add_argument("--no-s3", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestration-") as scratch:
        directory = Path(scratch)
        with server(directory / "prefect") as database:
            found = measure(directory, database, options)
    print_tables(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def measure(directory: Path, database: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All measurements."""
    data = write_data(directory / "data", options.shards)
    found: dict[str, Any] = {
        "environment": {**environment(1), "cores": os.cpu_count()},
        "load_before": os.getloadavg(),
        "shards": options.shards,
        "seconds_a_shard": options.seconds,
        "workers": options.workers,
        "unchanged": {},
        "working": {},
    }
    store = directory / "store"
    found["made_inline"] = make_store(data, store)
    for runner in options.runners:
        settings = {"store": str(store), "runner": runner, "workers": options.workers}
        found["unchanged"][runner] = unchanged(data, settings, database, options.repeat)
    if not options.no_s3:
        found["unchanged_s3"] = unchanged_on_s3(data, store, directory, database, options)
    for runner in options.runners:
        found["working"][runner] = working(directory / runner, runner, database, options)
    found["one_task_a_shard"] = one_task_a_shard(directory / "results", database, options)
    # Above the number of workers: something else was at work, and times are too long.
    found["load_after"] = os.getloadavg()
    return found


def write_data(directory: Path, shards: int) -> Path:
    """Labelled texts, a corpus of so many shards, and logits for all of it, of made-up words."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    directory.mkdir()
    rng = np.random.default_rng(0)
    words = np.array([f"{kind}{number}" for number in range(300) for kind in ("noun", "verb")])
    total = shards * ROWS_PER_SHARD + sum(ROWS.values())
    drawn = words[rng.integers(0, len(words), (total + total // 10, 8))]
    texts = list(dict.fromkeys(" ".join(row) for row in drawn))[:total]
    labels = [number % 2 for number in range(total)]
    start = 0
    for split, rows in ROWS.items():
        with (directory / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            part = slice(start, start + rows)
            writer.writerows(
                (text, "ab"[label]) for text, label in zip(texts[part], labels[part], strict=True)
            )
        start += rows
    (directory / "corpus.txt").write_text("".join(f"{text}\n" for text in texts[start:]), "utf-8")
    logits = rng.standard_normal((total, 2))
    logits[np.arange(total), labels] += 2
    table = pa.table({"text": texts, "logits": logits.tolist()})
    metadata = {"label_names": json.dumps(["a", "b"])}
    pq.write_table(table.replace_schema_metadata(metadata), directory / "logits.parquet")
    return directory


def configuration(data: Path, run: dict[str, Any]) -> Any:  # noqa: ANN401 (imported late)
    """The run over these files."""
    from flows.config import parse_config

    return parse_config(
        {
            "name": "orchestration",
            "data": str(data),
            "dataset": {split: f"{split}.csv" for split in ROWS},
            "corpus": {"sources": ["corpus.txt"], "rows_per_shard": ROWS_PER_SHARD},
            "logits": {"path": "logits.parquet"},
            "vocabulary": {"size": 2000},
            "student": {"width": 4, "hidden": 4, "epochs": 1, "baselines": [], "batch_size": 512},
            "finetune": {"epochs": 1, "learning_rates": [1e-3]},
            "baseline": {"enabled": False},
            "evaluation": {"teacher_texts": 2},
            "run": {"threads": 1, **run},
        }
    )


def make_store(data: Path, store: Path) -> dict[str, Any]:
    """Make everything, without Prefect."""
    from flows.inline import run_inline

    start = time.monotonic()
    result = run_inline(configuration(data, {"store": str(store)}))
    again = time.monotonic()
    assert run_inline(configuration(data, {"store": str(store)})).computed() == 0
    return {
        "artifacts": result.computed(),
        "seconds": again - start,
        "unchanged_seconds": time.monotonic() - again,
    }


def unchanged(data: Path, run: dict[str, Any], database: Path, repeat: int) -> dict[str, Any]:
    """The same run again, where everything is there."""
    from flows.prefect_runner import run_with_prefect

    config = configuration(data, run)
    seconds, computed, grown = [], 0, []
    with tempfile.TemporaryDirectory(prefix="out-") as out:
        for _ in range(repeat):
            before = size(database)
            start = time.monotonic()
            computed += run_with_prefect(config, out).computed()
            seconds.append(time.monotonic() - start)
            grown.append(settled(database) - before)
    assert computed == 0, "an unchanged run computed something"
    return {"seconds": seconds, "computed": computed, "database_bytes": grown}


def unchanged_on_s3(
    data: Path, store: Path, scratch: Path, database: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """The same on an object store, and the requests that it gets."""
    import fsspec

    log = scratch / "moto.log"
    with s3_server(log):
        fs = fsspec.filesystem("s3")
        fs.mkdir("orchestration")
        fs.put(f"{store}/", "orchestration/store/", recursive=True)
        os.environ["SPARSEDISTILL_CACHE"] = str(scratch / "cache")
        run = {"store": "s3://orchestration/store", "runner": "threads", "workers": options.workers}
        found = {}
        for when in ("first", "later"):
            before = requests(log)
            found[when] = unchanged(data, run, database, 1)
            found[when]["requests"] = dict(requests(log) - before)
    return found


def working(
    store: Path, runner: str, database: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """A stage of shards that sleep."""
    from prefect import flow

    from flows.prefect_runner import run_pipeline

    pipeline = Sleeping(store, runner, options)

    @flow(name="sleeping", persist_result=False)
    def sleeping() -> int:
        return run_pipeline(pipeline).computed()

    return timed(sleeping, database, options, expected=options.shards)


def one_task_a_shard(storage: Path, database: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The peer: a task run a shard, cached by Prefect."""
    from prefect import flow, task
    from prefect.cache_policies import INPUTS
    from prefect.filesystems import LocalFileSystem
    from prefect.task_runners import ThreadPoolTaskRunner

    storage.mkdir()
    keep = LocalFileSystem(basepath=str(storage))
    keep.save("orchestration", overwrite=True)

    executed = count()

    @task(cache_policy=INPUTS, persist_result=True, result_storage=keep)
    def shard(number: int) -> int:
        next(executed)
        time.sleep(options.seconds)
        return number

    @flow(
        name="one-task-a-shard",
        task_runner=ThreadPoolTaskRunner(max_workers=options.workers),
        persist_result=False,
    )
    def mapped() -> int:
        return len(shard.map(range(options.shards)).result())

    found = timed(mapped, database, options, expected=options.shards)
    again = time.monotonic()
    before = size(database)
    mapped()
    assert next(executed) == options.shards, "the peer's second run computed something"
    found["unchanged_seconds"] = time.monotonic() - again
    found["unchanged_database_bytes"] = settled(database) - before
    return found


def timed(
    flow: Callable[[], int], database: Path, options: argparse.Namespace, *, expected: int
) -> dict[str, Any]:
    """Seconds of a flow run, and how much of them is not work."""
    before = size(database)
    start = time.monotonic()
    assert flow() == expected
    seconds = time.monotonic() - start
    ideal = options.shards * options.seconds / options.workers
    return {
        "seconds": seconds,
        "ideal_seconds": ideal,
        "share": (seconds - ideal) / seconds,
        "database_bytes": settled(database) - before,
    }


def sleep(job: Any, store: Any, writer: Any, progress: Any) -> None:  # noqa: ANN401, ARG001
    """Take the time that a shard takes, and leave a small file."""
    time.sleep(job.runtime["seconds"])
    writer.path("slept.txt").write_text(job.label)


class Sleeping:
    """A pipeline of one step."""

    def __init__(self, store: Path, runner: str, options: argparse.Namespace) -> None:
        from flows.pipeline import Step
        from storage import Recipe
        from tasks.stage import Job, Stage

        run = {"store": str(store), "runner": runner, "workers": options.workers}
        self.config = configuration(store, {**run, "check_disk": False})
        jobs = [
            Job(
                Recipe("sleep", 1, {"number": number}),
                {"seconds": options.seconds},
                f"shard {number}",
            )
            for number in range(options.shards)
        ]
        self.steps = (Step(Stage("sleep", 1, sleep), (), lambda _: jobs),)

    def direct_needs(self, step: Any) -> Sequence[str]:  # noqa: ANN401, ARG002
        """Nothing."""
        return ()


def print_tables(found: dict[str, Any]) -> None:
    """Print what was measured."""
    console = Console()
    shards, workers = found["shards"], found["workers"]
    made = found["made_inline"]
    table = Table(title=f"{shards:,} shards, {made['artifacts']:,} artifacts: an unchanged run")
    for column in ("with", "seconds", "computed", "database grows by"):
        table.add_column(column, justify="left" if column == "with" else "right")
    table.add_row("no Prefect", f"{made['unchanged_seconds']:.1f}", "0", "")
    runs = {**found["unchanged"]}
    for when, run in found.get("unchanged_s3", {}).items():
        asked = sorted(run["requests"].items())
        told = ", ".join(f"{number:,} {what}" for what, number in asked)
        runs[f"threads, S3, {when} look here ({told})"] = run
    for name, run in runs.items():
        seconds = " ".join(f"{one:.1f}" for one in run["seconds"])
        table.add_row(name, seconds, str(run["computed"]), mib(max(run["database_bytes"])))
    peer = found["one_task_a_shard"]
    table.add_row(
        "one task run a shard", f"{peer['unchanged_seconds']:.1f}", "0",
        mib(peer["unchanged_database_bytes"]),
    )  # fmt: skip
    console.print(table)
    title = f"{shards:,} shards that sleep {found['seconds_a_shard']:g} s by {workers} workers"
    table = Table(title=title)
    for column in ("with", "seconds", "ideal", "orchestration", "database grows by"):
        table.add_column(column, justify="left" if column == "with" else "right")
    for name, run in {**found["working"], "one task run a shard": peer}.items():
        table.add_row(
            name, f"{run['seconds']:.1f}", f"{run['ideal_seconds']:.1f}",
            f"{100 * run['share']:.1f} %", mib(run["database_bytes"]),
        )  # fmt: skip
    console.print(table)


def mib(count: int) -> str:
    """Bytes for people."""
    return f"{count / MIB:,.1f} MiB"


if __name__ == "__main__":
    sys.exit(main())
