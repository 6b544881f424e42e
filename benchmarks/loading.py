"""How soon a model answers, and how much memory several processes need for it.

A model of made-up numbers is saved (1,000,000 rows of 256 in int8 unless asked otherwise), then

* loaded in fresh processes after all imports, with its files dropped from the page cache before
  (cold) and with them in it (warm);
* asked for one short text by fresh processes, timed from outside, from before the process starts
  until it has the answer (kernels are in Numba's cache, files in the page cache);
* held by one and by four processes at once that have answered texts with every n-gram, while
  Linux says how much of the mapped table each has (Rss) and which share of it is its own (Pss).

    python benchmarks/loading.py --json FILE
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tasks.environment import environment

MODEL_FILE = "model.safetensors"
WORDS_PER_TEXT = 1000
PROCESSES = (1, 4)
MIB = 1 << 20

# Each prints what it took as JSON. Their own imports are those of an application.
LOADING = """
import json, os, sys, time
from pathlib import Path
from sparsedistill import Classifier
if sys.argv[2] == "cold":
    for path in Path(sys.argv[1]).iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
def fetched():
    return int(Path("/proc/self/io").read_text().split("read_bytes: ")[1].split()[0])
before, start = fetched(), time.perf_counter()
Classifier.load(sys.argv[1])
print(json.dumps({"seconds": time.perf_counter() - start, "bytes": fetched() - before}))
"""
ANSWERING = """
from sparsedistill import Classifier
import sys, time
imported = time.monotonic()
classifier = Classifier.load(sys.argv[1])
loaded = time.monotonic()
classifier.predict(sys.argv[2])
answered = time.monotonic()
import json
print(json.dumps([imported, loaded, answered]))
"""
HOLDING = """
import sys
from sparsedistill import Classifier
classifier = Classifier.load(sys.argv[1])
with open(sys.argv[2], encoding="utf-8") as texts:
    for text in texts:
        classifier.predict(text)
print("ready", flush=True)
sys.stdin.read()
"""


def main() -> int:
    """Make the model, measure, print."""
    parser = argparse.ArgumentParser(description="Measure start-up and shared memory of a model.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--dtype", choices=("int8", "float16", "float32"), default="int8")
    parser.add_argument("--repeat", type=int, default=7, help="fresh processes of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loading-") as scratch:
        model = Path(scratch) / "model"
        words = make_model(model, options.rows, options.hidden, options.dtype)
        found = {
            "environment": environment(1),
            "model": {
                "rows": options.rows,
                "hidden": options.hidden,
                "dtype": options.dtype,
                "bytes": {path.name: path.stat().st_size for path in sorted(model.iterdir())},
            },
            **measure(model, words, options.repeat),
        }
    print_tables(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def make_model(directory: Path, rows: int, hidden: int, dtype: str) -> list[str]:
    """Save a model of made-up numbers, and give its n-grams; its files are on disk after that."""
    from sparsedistill.folded import FoldedModel
    from sparsedistill.model_format import save_model
    from sparsedistill.text.ngram_spec import NgramSpec
    from sparsedistill.vocabulary import Vocabulary

    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(10, rows + 10)]
    vocabulary = Vocabulary.from_ngrams(NgramSpec(), words)
    if dtype == "int8":
        table: np.ndarray[Any, Any] = rng.integers(-127, 128, (rows, hidden), np.int8)
    else:
        table = rng.standard_normal((rows, hidden), np.float32).astype(dtype)
    model = FoldedModel(
        labels=("negative", "positive"),
        spec=vocabulary.spec,
        index=vocabulary.index,
        max_ngrams=2048,
        table=table,
        scale=np.full(rows, 1 / 127, np.float32) if dtype == "int8" else None,
        hidden_bias=np.zeros(hidden, np.float32),
        head_weight=rng.standard_normal((2, hidden)).astype(np.float32),
        head_bias=np.zeros(2, np.float32),
    )
    save_model(directory, model, vocabulary)
    # Only what is on disk can be dropped from the page cache.
    os.sync()
    return words


def measure(model: Path, words: list[str], repeat: int) -> dict[str, Any]:
    """All measurements of a saved model."""
    text = " ".join(words[:: len(words) // 20])
    run(ANSWERING, model, text)
    found: dict[str, Any] = {}
    for state in ("warm", "cold"):
        runs = [json.loads(run(LOADING, model, state)) for _ in range(repeat)]
        found[f"load_{state}"] = {
            "seconds": [one["seconds"] for one in runs],
            "read_bytes": max(one["bytes"] for one in runs),
        }
    run(ANSWERING, model, text)
    found["first_answer"] = [first_answer(model, text) for _ in range(repeat)]
    texts = model.parent / "texts.txt"
    starts = range(0, len(words), WORDS_PER_TEXT)
    texts.write_text("".join(" ".join(words[s : s + WORDS_PER_TEXT]) + "\n" for s in starts))
    found["memory"] = [shared_memory(model, texts, count) for count in PROCESSES]
    return found


def first_answer(model: Path, text: str) -> dict[str, float]:
    """Seconds of a fresh process up to its first answer, in parts."""
    start = time.monotonic()
    imported, loaded, answered = json.loads(run(ANSWERING, model, text))
    return {
        "interpreter_and_imports": imported - start,
        "load": loaded - imported,
        "first_predict": answered - loaded,
        "all": answered - start,
    }


def shared_memory(model: Path, texts: Path, count: int) -> dict[str, Any]:
    """Rss and Pss of the mapped table in each of some processes that have touched all of it."""
    command = [sys.executable, "-c", HOLDING, str(model), str(texts)]
    holders = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for holder in holders:
            assert holder.stdout is not None
            if holder.stdout.readline() != "ready\n":
                raise SystemExit("a process that was to hold the model has failed")
        each = [mapped(holder.pid) for holder in holders]
    finally:
        for holder in holders:
            holder.communicate()
    return {
        "processes": count,
        "table_bytes": (model / MODEL_FILE).stat().st_size,
        "rss": [one["Rss"] for one in each],
        "pss": [one["Pss"] for one in each],
        "pss_together": sum(one["Pss"] for one in each),
        "private": [one["Private_Dirty"] for one in each],
    }


def mapped(process: int) -> dict[str, int]:
    """Bytes of the table's file in a process's memory, as `/proc/PID/smaps` counts them."""
    sums = {"Rss": 0, "Pss": 0, "Private_Dirty": 0}
    ours = False
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(MODEL_FILE)
        elif ours:
            name, _, rest = line.partition(":")
            if name in sums:
                sums[name] += int(rest.split()[0]) * 1024
    return sums


def run(code: str, *arguments: str | Path) -> str:
    """What a fresh process prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def print_tables(found: dict[str, Any]) -> None:
    """Print what was measured."""
    console = Console()
    about = found["model"]
    size = sum(about["bytes"].values()) / MIB
    console.print(f"{about['rows']:,} rows of {about['hidden']}, {about['dtype']}: {size:,.0f} MiB")
    table = Table(title="Seconds of fresh processes")
    for column in ("what", "median", "best", "worst", "read from disk"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for state in ("cold", "warm"):
        load = found[f"load_{state}"]
        read = f"{load['read_bytes'] / MIB:,.1f} MiB"
        table.add_row(f"load, {state}", *three(load["seconds"]), read)
    for part in found["first_answer"][0]:
        values = [one[part] for one in found["first_answer"]]
        table.add_row(f"first answer: {part.replace('_', ' ')}", *three(values), "")
    console.print(table)
    table = Table(title="Memory of the mapped table, MiB")
    for column in ("processes", "file", "Rss of each", "Pss of each", "Pss together", "private"):
        table.add_column(column, justify="right")
    for row in found["memory"]:
        table.add_row(
            str(row["processes"]),
            f"{row['table_bytes'] / MIB:,.1f}",
            *(f"{max(row[key]) / MIB:,.1f}" for key in ("rss", "pss")),
            f"{row['pss_together'] / MIB:,.1f}",
            f"{max(row['private']) / MIB:,.1f}",
        )
    console.print(table)


def three(values: list[float]) -> list[str]:
    """Median, best and worst."""
    return [f"{value:.3f}" for value in (statistics.median(values), min(values), max(values))]


if __name__ == "__main__":
    sys.exit(main())
