"""One training update of the billion-parameter student, beside torch's own: seconds and memory.

Ours is `DAN`, its batches read from mapped features one ahead, as the training loop does. The peer
is the same network of torch's parts: `EmbeddingBag(mode="mean", sparse=True)` with SparseAdam, two
linear layers with fused Adam; its batches are read one ahead as well. Table of 1,000,000 x 1000,
hidden layer of 1000, two classes, batches of 2048, at 16, 40 and 150 known n-grams a text: the
first so many of real reviews that have as many.

    python benchmarks/training.py --work runs/training --json training.json
    python benchmarks/training.py --work runs/training --device cuda --ngrams 100 500

Both start from the same weights on a small table first, and after some updates their losses and all
weights must agree. Then each has a process of its own, one at a time, since the peer needs most of
the machine's memory; all once, then all again, so that a slow minute is everyone's. `peak` is what
the kernel says a process had at its highest, its mapped files included. Times are the median of
all updates of all rounds, and the best; ratios are of the medians.

The peer is measured as torch comes, with one thread and with several, and `times torch` is to the
faster. It is also measured with what was found to help it: row numbers of 32 bits, and by variables
of the environment large pages and memory that the C library keeps from one update to the next,
rather than gives back. `times helped` is to that.

On the CPU a last table says where the time of ours goes, beside what memory and arithmetic need. On
another device ours is compared with the processor's, each variant, before it is timed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from training_contestants import RATE, Contest, compare, run
from training_data import REVIEWS, first_ngrams, made_up_features, make_features

from tasks.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Options = argparse.Namespace
    Function = Callable[..., Any]
    Row = dict[str, Any]

# Ours, and what of it is varied.
VARIANTS: dict[str, Row] = {
    "ours": {},
    "ours, row-wise moment": {"second_moment": "row"},
    "ours, bfloat16": {"table_type": "bfloat16"},
    "ours, both": {"second_moment": "row", "table_type": "bfloat16"},
}
# What the peer is given beside its defaults; environment variables are capitals.
HELPED = "torch, helped"
SETTINGS: dict[str, Row] = {
    "torch": {},
    "torch, 1 thread": {"threads": 1},
    HELPED: {
        "index": "int32",
        "THP_MEM_ALLOC_ENABLE": "1",
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    },
}
CHECK_ROWS, CHECK_UPDATES = 20_000, 5
# Of what is compared, at most so much: of a loss; of the weights' mean, in what they moved; of a
# single weight, in learning rates, since a step of Adam is as long where a gradient all but cancels
# and its rounding decides; and of a weight in bfloat16, which may be rounded to another neighbour.
LOSS_APART, MEAN_APART, WEIGHT_APART, ROUNDED_APART = 1e-5, 0.01, 1.0, 2**-7
TINY = {
    "rows": 2000, "width": 64, "batch": 64, "ngrams": [4], "rounds": 1, "updates": 3,
    "peer_updates": 2,
}  # fmt: skip


def main() -> int:
    """Compare, measure and print."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    files = features_of(options)
    rows: list[Row] = []
    parts: list[Row] = []
    for ngrams in options.ngrams:
        path = first_ngrams(files, ngrams, options.work, batch=options.batch)
        contests = contests_of(str(path), options)
        differ = apart(options, check, contests, options.rows)
        rows += measure(ngrams, contests, differ, options)
        if options.device == "cpu" and options.parts:
            parts += parts_of(ngrams, contests, options)
    about = {
        **environment(options.threads),
        "device": device_name(options.device),
        "glibc": os.confstr("CS_GNU_LIBC_VERSION"),
        "torch": version("torch"),
        "load": os.getloadavg()[0],
        "features": [path.name for path in files],
        "table": f"{options.rows:,} x {options.width}",
        "batch": options.batch,
        "settings": SETTINGS,
    }
    print_tables(rows, parts, about)
    if options.json:
        result = {"environment": about, "rows": rows, "parts": parts}
        options.json.write_text(json.dumps(result, indent=1), "utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare a training update with torch's own.")
    parser.add_argument("--features", type=Path, nargs="+", metavar="PATH", help="artifacts")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/training"), help="for features")
    parser.add_argument("--ngrams", type=int, nargs="+", default=[16, 40, 150])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu", help="as torch names it")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--updates", type=int, default=20, help="of ours that are timed, a round")
    parser.add_argument("--peer-updates", type=int, default=3)
    names = [*VARIANTS, *SETTINGS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--no-parts", dest="parts", action="store_false")
    parser.add_argument("--tiny", action="store_true", help="made-up, in one process: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.tiny:
        vars(options).update(TINY)
    elif not options.features and (
        absent := [name for name in REVIEWS if not (options.data / name).exists()]
    ):
        parser.error(f"no {absent} in {options.data}: give --features, or --data where they are")
    return options


def features_of(options: Options) -> list[Path]:
    """Return files of bags."""
    if options.features:
        return list(options.features)
    if options.tiny:
        ngrams = max(options.ngrams)
        return [made_up_features(options.work, rows=options.rows, ngrams=ngrams, texts=400)]
    settings = {"rows": options.rows, "threads": options.threads}
    return [apart(options, make_features, options.data, options.work, **settings)]


def contests_of(features: str, options: Options) -> dict[str, Contest]:
    """Return what each contestant is to do, by its name."""
    plain = Contest(
        features, "ours", options.rows, options.width, options.batch, warm_up=3,
        updates=options.updates, threads=options.threads, device=options.device,
    )  # fmt: skip
    peer = replace(plain, contestant="torch", warm_up=1, updates=options.peer_updates)
    ours = {name: replace(plain, **how) for name, how in VARIANTS.items()}
    peers = {
        name: replace(peer, **{key: value for key, value in how.items() if not key.isupper()})
        for name, how in SETTINGS.items()
    }
    return ours | peers


def check(contests: dict[str, Contest], rows: int) -> dict[str, Row]:
    """Return by how much ours differ from torch's on the processor; stop if it is not by rounding.

    On another device, variants that torch has not are compared with ours on the processor.
    """
    found = {}
    for name in VARIANTS:
        ours = replace(contests[name], rows=min(CHECK_ROWS, rows))
        rival = replace(ours, device="cpu")
        if name == "ours":
            rival = replace(rival, contestant="torch")
        elif ours.device == "cpu":
            continue
        found[name] = differ = compare(ours, rival, CHECK_UPDATES)
        exact = ours.table_type != "bfloat16"
        most = WEIGHT_APART * RATE if exact else ROUNDED_APART
        near = differ["mean"] <= MEAN_APART * differ["moved"] or not exact
        if not (differ["loss"] <= LOSS_APART and differ["weights"] <= most and near):
            raise SystemExit(f"{name} learns other than it should: {differ}")
    return found


def measure(
    ngrams: int, contests: dict[str, Contest], differ: dict[str, Row], options: Options
) -> list[Row]:
    """Return a row for each contestant, and how many times as fast ours are."""
    found: dict[str, list[Row]] = {name: [] for name in contests if name in options.only}
    for number in range(options.rounds):
        for name, runs in found.items():
            print(f"{ngrams} n-grams, round {number + 1}: {name}", file=sys.stderr)
            with _set({k: v for k, v in SETTINGS.get(name, {}).items() if k.isupper()}):
                runs.append(apart(options, run, contests[name]))
    rows = [finished(ngrams, name, runs) for name, runs in found.items()]
    took = {row["contestant"]: row["median_s"] for row in rows}
    helped = took.get(HELPED)
    plain = min((took[name] for name in took if name in SETTINGS and name != HELPED), default=None)
    for row in rows:
        for name, theirs in (("times torch", plain), ("times helped", helped)):
            ours = row["contestant"] in VARIANTS
            row[name] = theirs / row["median_s"] if ours and theirs else None
        row["apart"] = differ.get(row["contestant"])
    return rows


def finished(ngrams: int, name: str, runs: list[Row]) -> Row:
    """Return what the runs of a contestant come to."""
    seconds = [second for one in runs for second in one["seconds"]]
    return {
        "ngrams": ngrams,
        "contestant": name,
        "updates": len(seconds),
        "median_s": statistics.median(seconds),
        "best_s": min(seconds),
        "updates_per_s": 1 / statistics.median(seconds),
        "peak_gb": max(one["peak_gb"] for one in runs),
        "device_gb": runs[0]["device_gb"],
        "seconds": seconds,
    }


def parts_of(ngrams: int, contests: dict[str, Contest], options: Options) -> list[Row]:
    """Return where the time of ours goes, for each variant that was measured."""
    from training_parts import measure_parts

    found = []
    for name in VARIANTS:
        if name in options.only:
            print(f"{ngrams} n-grams, parts: {name}", file=sys.stderr)
            made = apart(options, measure_parts, contests[name])
            found.append({"ngrams": ngrams, "contestant": name, **made})
    return found


def apart(options: Options, function: Function, *given: Any, **more: Any) -> Any:  # noqa: ANN401
    """Call a function in a process of its own."""
    if options.tiny:
        return function(*given, **more)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *given, **more).result()


@contextmanager
def _set(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def device_name(device: str) -> str:
    """Return what the device calls itself."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def print_tables(rows: list[Row], parts: list[Row], about: Row) -> None:
    """Print the rows, where the time of ours goes, and on what that was."""
    console = Console(width=130)
    names = (
        "ngrams",
        "contestant",
        "updates",
        "median_s",
        "best_s",
        "updates_per_s",
        "times torch",
        "times helped",
        "peak_gb",
        "device_gb",
    )
    show(console, "an update", [{name: row[name] for name in names} for row in rows])
    for made in parts:
        title = f"{made['contestant']}, {made['ngrams']} n-grams: the parts of an update"
        show(console, title, made["parts"])
        console.print({name: round(rate, 1) for name, rate in made["rates"].items()})
    for row in rows:
        if row["apart"]:
            title = f"{row['contestant']}, {row['ngrams']} n-grams: differs by at most"
            console.print(title, {name: float(f"{v:.3g}") for name, v in row["apart"].items()})
    console.print(about)


def show(console: Console, title: str, rows: list[Row]) -> None:
    """Print rows as a table."""
    table = Table(title=title, title_justify="left", box=None)
    for name, value in rows[0].items():
        table.add_column(
            name.replace("_", " "), justify="left" if isinstance(value, str) else "right"
        )
    for row in rows:
        table.add_row(*(_shown(name, value) for name, value in row.items()))
    console.print(table)


def _shown(name: str, value: Any) -> str:  # noqa: ANN401
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    if name == "share":
        return f"{100 * value:.0f} %"
    return f"{value:.3f}" if name.endswith("_s") and name != "updates_per_s" else f"{value:,.1f}"


if __name__ == "__main__":
    sys.exit(main())
