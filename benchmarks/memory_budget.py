"""Whether counting keeps to its memory, and gives the same vocabulary whatever the memory is.

A corpus is cut into 1, 7 and 64 shards. They are counted and merged to a vocabulary by one and by
two workers, in threads, in processes and on a local Dask cluster, with the shards in a shuffled
order, under a small budget. Every vocabulary must have the bytes of the one that is made without
a limit.

    python benchmarks/memory_budget.py reddit_titles.parquet --memory 256MB --json FILE

Peak memory is that of the largest process of a run (the workers' and the flow's), as Linux counts
it, less that of the same run over a thousand rows: what is left is what the budget is for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SHARDS = (1, 7, 64)
RUNNERS = ("threads", "processes", "dask")
WORKERS = (1, 2)
_FEW = 1000


def main() -> int:
    """Run every combination and print what it took."""
    parser = argparse.ArgumentParser(description="Measure the memory that counting takes.")
    parser.add_argument("texts", type=Path, help="Parquet file with a column `text`")
    parser.add_argument("--memory", default="256MB")
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, help="of the texts, all by default")
    parser.add_argument("--shards", type=int, nargs="+", default=list(SHARDS))
    parser.add_argument("--runners", nargs="+", choices=RUNNERS, default=list(RUNNERS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_once(json.loads(options.run))
        return 0
    with tempfile.TemporaryDirectory(prefix="memory-budget-") as scratch:
        rows, about = measure(options, Path(scratch))
    print_table(rows, about)
    if options.json:
        options.json.write_text(json.dumps({"environment": about, "rows": rows}, indent=1), "utf-8")
    return 0 if all(row["same"] and row["kept"] for row in rows) else 1


def measure(
    options: argparse.Namespace, scratch: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row for every combination, and the conditions."""
    from sparsedistill.memory import parse_size
    from tasks.environment import environment

    total = write_data(options.texts, scratch, options.rows)
    few = scratch / "few"
    few.mkdir()
    write_data(options.texts, few, _FEW)
    budget = parse_size(options.memory)
    truth = execute(scratch, options, shards=1, runner="threads", workers=1, memory="64GB")
    found = [{**truth, "same": True, "kept": True, "fixed": 0, "budget": 0}]
    for runner in options.runners:
        for workers in WORKERS:
            how = {"runner": runner, "workers": workers, "memory": options.memory}
            # Once for the compiler: kernels that are not on disk yet take memory to compile.
            execute(few, options, shards=1, **how)
            fixed = execute(few, options, shards=1, **how)["peak"]
            for shards in options.shards:
                row = execute(scratch, options, shards=shards, **how)
                row["same"] = row["digest"] == truth["digest"]
                row["fixed"], row["budget"] = fixed, budget
                row["kept"] = row["peak"] <= fixed + budget
                found.append(row)
                print(row, file=sys.stderr)
    about = {**environment(1), "texts": options.texts.name, "rows": total, "size": options.size}
    return found, about


def write_data(texts: Path, directory: Path, rows: int | None) -> int:
    """Put the corpus and a little labelled data into a directory; returns the rows."""
    import pyarrow.parquet as pq

    table = pq.read_table(texts, columns=["text"])
    table = table.slice(0, rows if rows is not None else table.num_rows)
    pq.write_table(table, directory / "corpus.parquet")
    labelled = table["text"].slice(0, 300).to_pylist()
    for split, begin in (("train", 0), ("dev", 100), ("test", 200)):
        lines = [
            json.dumps({"text": text, "label": "ab"[i % 2]})
            for i, text in enumerate(labelled[begin : begin + 100])
        ]
        (directory / f"{split}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return int(table.num_rows)


def execute(directory: Path, options: argparse.Namespace, **how: Any) -> dict[str, Any]:  # noqa: ANN401
    """Run one combination in a process of its own; returns what it took and what it made."""
    task = {"directory": str(directory), "size": options.size, **how}
    command = [sys.executable, __file__, str(options.texts), "--run", json.dumps(task)]
    subprocess.run([*command[:-1], json.dumps({**task, "prepare": True})], check=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peaks: dict[int, int] = {}
        while process.poll() is None:
            watch(process.pid, peaks)
            time.sleep(0.02)
        assert process.stdout is not None
        output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{how} failed")
    return {**how, **json.loads(output.strip().splitlines()[-1]), "peak": max(peaks.values())}


def watch(root: int, peaks: dict[int, int]) -> None:
    """Note the peak memory of a process and of all below it, but for Prefect's server."""
    import psutil

    try:
        processes = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    except psutil.Error:
        return
    for process in processes:
        try:
            if "uvicorn" in " ".join(process.cmdline()):
                continue
            status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
        except (psutil.Error, OSError):
            continue
        if "VmHWM:" in status:
            peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
            peaks[process.pid] = max(peaks.get(process.pid, 0), peak)


def run_once(task: dict[str, Any]) -> None:
    """Count and choose, by Prefect tasks, and print the digest of the vocabulary."""
    os.environ["PREFECT_HOME"] = str(Path(task["directory"]) / "prefect")
    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    from prefect import flow

    from flows.config import parse_config
    from flows.pipeline import Pipeline
    from flows.prefect_runner import task_runner
    from storage import ArtifactStore
    from tasks import corpus, ngrams, vocabulary
    from tasks.prefect_task import Chunk, as_task

    directory = Path(task["directory"])
    # The unlimited run has a store of its own, so that it makes what it is compared with.
    store = ArtifactStore(directory / f"store-{task['memory']}")
    given: dict[str, Any] = {
        "name": "memory-budget",
        "data": str(directory),
        "dataset": {split: f"{split}.jsonl" for split in ("train", "dev", "test")},
        "corpus": {"sources": ["corpus.parquet"], "rows_per_shard": 1 << 30},
        "logits": {"path": "none.parquet"},
        "vocabulary": {"size": task["size"]},
        "run": {name: task[name] for name in ("runner", "workers", "memory")}
        | {"store": store.url, "threads": 1},
    }
    steps = {step.name: step for step in Pipeline(parse_config(given)).steps}
    made: dict[str, list[Any]] = {}

    def make(stage: str) -> None:
        outcomes = [steps[stage].stage.run(job, store) for job in steps[stage].jobs(made)]
        made[stage] = [store.get(one.kind, one.key) for one in outcomes]

    make("dataset")
    make("corpus")
    if task["shards"] > 1:
        rows = int(made["corpus"][0].statistics["rows"])
        given["corpus"]["rows_per_shard"] = -(-rows // task["shards"])
        steps = {step.name: step for step in Pipeline(parse_config(given)).steps}
        make("corpus")
    if task.get("prepare"):
        return

    @flow(task_runner=task_runner(parse_config(given)))
    def count() -> None:
        jobs = steps["ngrams"].jobs(made)
        # Away with what an earlier combination counted.
        for artifact in store.artifacts(ngrams.KIND) + store.artifacts(vocabulary.KIND):
            store.remove(artifact.kind, artifact.key)
        shuffled = random.Random(task["shards"]).sample(jobs, len(jobs))
        counting = as_task(ngrams.STAGE)
        for future in [counting.submit(Chunk([job]), store.url) for job in shuffled]:
            future.result()
        made["ngrams"] = [store.get(ngrams.KIND, job.recipe.key) for job in jobs]
        (job,) = steps["vocabulary"].jobs(made)
        as_task(vocabulary.STAGE).submit(Chunk([job]), store.url).result()
        made["vocabulary"] = [store.get(vocabulary.KIND, job.recipe.key)]

    started = time.perf_counter()
    count()
    chosen = made["vocabulary"][0]
    print(
        json.dumps(
            {
                "digest": chosen.digest,
                "seconds": round(time.perf_counter() - started, 1),
                "counted": len(corpus.shards(made["corpus"][0])),
                "ngrams": sum(one.statistics["occurrences"] for one in made["ngrams"]),
                "disk": sum(one.manifest.size for one in made["ngrams"]),
            }
        )
    )


def print_table(rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """Print what a person reads."""
    table = Table(title=f"{about['texts']}: {about['rows']:,} rows, {about['size']:,} n-grams")
    for heading in ("shards", "runner", "workers", "budget", "peak", "fixed", "over it", "same"):
        table.add_column(heading, justify="right")
    for row in rows:
        megabytes = [f"{row[name] / 1e6:,.0f} MB" for name in ("peak", "fixed")]
        table.add_row(
            str(row["counted"]),
            row["runner"],
            str(row["workers"]),
            row["memory"],
            *megabytes,
            f"{(row['peak'] - row['fixed']) / 1e6:,.0f} MB",
            "yes" if row["same"] else "NO",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
