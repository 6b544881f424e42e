"""Labelling a corpus with the teacher, beside transformers' `pipeline(batch_size=32)`.

From a list of texts to their logits, tokenising included, over corpora of different length. First
everybody's logits are compared with those of the pipeline in float32, and ours in float32 must be
equal to them within 1e-3; then the contenders take turns, and each one's best round counts.

    python benchmarks/teacher.py --teacher runs/imdb/store/teacher/KEY/model --threads 2 \
        --texts titles=../shared/data/corpora/hn_titles.parquet \
            news=../shared/data/corpora/news.parquet \
            reviews=../shared/data/corpora/imdb_unsup.parquet \
        --rows 4000 1500 300 --json teacher.json

On a GPU, with the shape of RoBERTa-large and random weights, which take the same time (labels that
hang on the last bits of random weights say little, and may change):

    python benchmarks/teacher.py --shape RoBERTa-large --device cuda --precisions bfloat16 \
        --texts ... --rows 100000 50000 20000 --json teacher-gpu.json

The pipeline is measured with the texts in a list, and as a data set that a process of its own reads
and tokenises ahead; `times pipeline` is to the faster of the two in the same precision, `times
float32` to the faster in float32. With OpenVINO installed (`pip install openvino`), ours is
measured with it as well.

GFLOP/s counts matrix products alone, over the tokens that the texts have (padding is waste, not
work). `share` is that over the greatest rate at which this machine multiplied matrices of the same
precision in the same run, in the shapes of this model's layers and in a large one. Rates are
measured before each corpus; a second table has the greatest.

A teacher fine-tuned in full on a GPU and run over its whole corpus, for the accuracies in the docs:

    sparsedistill distill experiments/imdb.toml --set teacher.epochs=3 --set teacher.max_length=512
    sparsedistill distill experiments/sst2_teacher.toml
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matrix_rate import greatest, measure_rates, shapes_like
from rich.console import Console
from rich.table import Table
from teacher_contenders import (
    Contender,
    Setting,
    contenders,
    layer_shape,
    operations,
    pipeline_logits,
    token_lengths,
    write_random_model,
)
from teacher_cost import SHAPES

from tasks.environment import environment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Corpora = dict[str, list[str]]
    Row = dict[str, Any]

# Of a logit in float32, from the pipeline's.
MOST_APART = 1e-3
_RATES_SHOWN = 3
# Tokens in the products whose rate is measured in the shapes of the model.
_TOKENS = {"cpu": 2048, "cuda": 32_768}


def main() -> int:
    """Compare, measure and print."""
    options = _options()
    # Before the tokenizers' library is loaded, whose threads these are.
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    corpora = read_corpora(options)
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.teacher or write_random_model(options.shape, Path(scratch))
        setting = Setting(
            directory, options.max_length, options.batch_size, options.threads, options.device
        )
        everybody = contenders(setting, options.precisions)
        differ = compare(everybody, setting, corpora)
        shape = layer_shape(setting)
        rows: list[Row] = []
        rates: list[Row] = []
        for corpus, texts in corpora.items():
            rates += machine_rates(shape, options)
            rows += measure(everybody, setting, corpus, texts, options.rounds)
        rates = greatest(rates)
        finish(rows, differ, rates, shape, setting, corpora)
    about = {
        **environment(options.threads),
        "device": device_name(options.device),
        "openvino": installed("openvino"),
        "load": os.getloadavg()[0],
        "weights": "of a teacher" if options.teacher else f"random, {options.shape}",
        "layers, width, inner": shape,
        "max_length": options.max_length,
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "texts": {name: f"{path.name}" for name, path in options.texts.items()},
    }
    print_tables(rows, rates, about)
    if options.json:
        result = {"environment": about, "rows": rows, "rates": rates}
        options.json.write_text(json.dumps(result, indent=1), "utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare labelling with transformers' pipeline.")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--teacher", type=Path, metavar="DIR", help="a fine-tuned classifier")
    model.add_argument("--shape", choices=SHAPES, help="of a classifier with random weights")
    parser.add_argument(
        "--texts", nargs="+", required=True, metavar="NAME=FILE", help="Parquet, column `text`"
    )
    parser.add_argument(
        "--rows", nargs="+", type=int, default=[1000], help="of each corpus, or of all (1000)"
    )
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32, help="of the pipeline (32)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu", help="as torch names it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.texts = {name: Path(path) for name, _, path in map(_halves, options.texts)}
    if absent := [str(path) for path in options.texts.values() if not path.is_file()]:
        parser.error(f"--texts: no {absent}")
    if len(options.rows) not in (1, len(options.texts)):
        parser.error("--rows: give one number for all corpora, or one for each")
    return options


def _halves(pair: str) -> tuple[str, str, str]:
    return pair.partition("=")


def read_corpora(options: argparse.Namespace) -> Corpora:
    """Return texts of each corpus, spread over its file."""
    import pyarrow.parquet as pq

    counts = options.rows * (len(options.texts) if len(options.rows) == 1 else 1)
    found = {}
    for (name, path), count in zip(options.texts.items(), counts, strict=True):
        texts: list[str] = pq.read_table(path, columns=["text"])["text"].to_pylist()
        found[name] = texts[:: max(1, len(texts) // count)][:count]
    return found


def compare(
    everybody: list[Contender], setting: Setting, corpora: Corpora
) -> dict[tuple[str, str, str], Row]:
    """Return by how much everybody's logits differ from those of the pipeline in float32.

    It warms everybody up, too. Stops if ours in float32 are not equal.
    """
    reference = pipeline_logits(setting, "float32")
    found = {}
    for corpus, texts in corpora.items():
        expected = reference(texts)
        for one in everybody:
            told(f"{corpus}: {one.name}, {one.precision}, compared")
            differ = difference(one.logits(texts), expected)
            found[corpus, one.name, one.precision] = differ
            if one.precision == "float32" and not differ["logits_apart"] <= MOST_APART:
                raise SystemExit(f"{one.name} has other logits for {corpus}: {differ}")
    return found


def difference(logits: NDArray[np.float32], expected: NDArray[np.float32]) -> Row:
    """Return the greatest difference of a logit, and the labels that are others."""
    changed = int((logits.argmax(axis=1) != expected.argmax(axis=1)).sum())
    return {
        "logits_apart": float(np.abs(logits - expected).max()),
        "labels_changed": changed,
        "share_changed": changed / len(expected),
    }


def machine_rates(shape: tuple[int, int, int], options: argparse.Namespace) -> list[Row]:
    """Return the rates of matrix products in every precision."""
    _, width, inner = shape
    kind = options.device.partition(":")[0]
    shapes = shapes_like(width, inner, rows=_TOKENS[kind], device=kind)
    found = []
    for precision in options.precisions:
        told(f"matrix products, {precision}")
        found += measure_rates(
            shapes, precision=precision, threads=options.threads, device=options.device
        )
    return found


def measure(
    everybody: list[Contender], setting: Setting, corpus: str, texts: list[str], rounds: int
) -> list[Row]:
    """Return the seconds of each contender over a corpus; they take turns."""
    seconds: list[list[float]] = [[] for _ in everybody]
    for number in range(rounds):
        for one, took in zip(everybody, seconds, strict=True):
            told(f"{corpus}, round {number + 1}: {one.name}, {one.precision}")
            start = time.perf_counter()
            one.logits(texts)
            took.append(time.perf_counter() - start)
    tokens = float(token_lengths(setting, texts).mean())
    return [
        {
            "corpus": corpus,
            "contender": one.name,
            "precision": one.precision,
            "peer": one.is_peer,
            "rows": len(texts),
            "tokens_per_row": tokens,
            "rows_per_s": len(texts) / min(took),
            "seconds": took,
        }
        for one, took in zip(everybody, seconds, strict=True)
    ]


def finish(
    rows: list[Row],
    differ: dict[tuple[str, str, str], Row],
    rates: list[Row],
    shape: tuple[int, int, int],
    setting: Setting,
    corpora: Corpora,
) -> None:
    """Add to each row what follows from its rate, and from those of the others."""
    work = {name: operations(shape, token_lengths(setting, some)) for name, some in corpora.items()}
    best: dict[str, float] = {}
    for one in rates:
        best[one["precision"]] = max(one["gflop_per_s"], best.get(one["precision"], 0.0))
    for row in rows:
        rate = row["rows_per_s"]
        row["times_pipeline"] = ratio(row, rows, row["precision"])
        row["times_float32"] = ratio(row, rows, "float32")
        row["tokens_per_s"] = rate * row["tokens_per_row"]
        row["gflop_per_s"] = work[row["corpus"]] * rate / row["rows"] / 1e9
        row["share"] = row["gflop_per_s"] / best[row["precision"]]
        row |= differ[row["corpus"], row["contender"], row["precision"]]


def ratio(row: Row, rows: list[Row], precision: str) -> float | None:
    """Return how many times as fast as the faster pipeline in that precision; None for a peer."""
    peers = [
        one["rows_per_s"]
        for one in rows
        if one["peer"] and (one["corpus"], one["precision"]) == (row["corpus"], precision)
    ]
    return row["rows_per_s"] / max(peers) if peers and not row["peer"] else None


def device_name(device: str) -> str:
    """Return what the device calls itself."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def installed(package: str) -> str | None:
    """Return the version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def told(what: str) -> None:
    """Say what is under way."""
    print(what, file=sys.stderr)


def print_tables(rows: list[Row], rates: list[Row], about: Row) -> None:
    """Print what was measured, the machine's rates, and on what that was."""
    console = Console(width=160)
    shown = [
        {
            **{name: row[name] for name in ("corpus", "contender", "precision", "tokens_per_row")},
            **{name: row[name] for name in ("rows_per_s", "times_pipeline", "times_float32")},
            **{name: row[name] for name in ("tokens_per_s", "gflop_per_s", "share")},
            "logits apart": f"{row['logits_apart']:.0e}",
            "labels changed": f"{row['labels_changed']} of {row['rows']:,}",
        }
        for row in rows
    ]
    show(console, "from texts to logits", shown)
    kept = [
        row
        for precision in dict.fromkeys(row["precision"] for row in rates)
        for row in [one for one in rates if one["precision"] == precision][:_RATES_SHOWN]
    ]
    show(console, "matrix products, the fastest", kept)
    console.print(about)


def show(console: Console, title: str, rows: list[Row]) -> None:
    """Print rows as a table."""
    table = Table(title=title, title_justify="left", box=None)
    left = {"corpus", "contender", "precision", "by", "shape"}
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="left" if name in left else "right")
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
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


if __name__ == "__main__":
    sys.exit(main())
