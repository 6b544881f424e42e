"""A small real task: short texts on three topics, a corpus of the same, and a run over both.

Everything is a function of a seed. A text mixes words of its topic with words that any text has, so
that a student can learn the task and no single word decides every text.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TOPICS = {
    "garden": "rose tulip soil spade seed compost hedge lawn pruning blossom weed greenhouse",
    "kitchen": "oven butter flour simmer recipe garlic whisk roast dough pepper skillet broth",
    "railway": "train station signal carriage platform timetable conductor freight tunnel bridge "
    "junction locomotive",
}
COMMON = "the and with after before under very quite old new small our we they put took came again"
LABELS = tuple(sorted(TOPICS))
WORDS = sorted({*COMMON.split(), *(word for words in TOPICS.values() for word in words.split())})
ROWS = {"train": 120, "dev": 40, "test": 40}
CORPUS_ROWS = 600
ROWS_PER_SHARD = 200

Row = tuple[str, str]


def texts(count: int, *, seed: int) -> list[Row]:
    """Distinct texts of five to nine words, and their topics, in turn."""
    random_ = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        label = LABELS[len(found) % len(LABELS)]
        topical = random_.choices(TOPICS[label].split(), k=random_.randint(3, 4))
        common = random_.choices(COMMON.split(), k=random_.randint(2, 5))
        words = topical + common
        random_.shuffle(words)
        found.setdefault(" ".join(words), label)
    return list(found.items())


def write_labelled(path: Path, rows: Sequence[Row]) -> Path:
    """Write a CSV of text and label."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return path


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    """Write one text a line."""
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def write_data(directory: Path) -> Path:
    """Write train.csv, dev.csv, test.csv and corpus.txt; no text is in two of them."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = texts(sum(ROWS.values()) + CORPUS_ROWS, seed=0)
    for split, count in ROWS.items():
        write_labelled(directory / f"{split}.csv", rows[:count])
        rows = rows[count:]
    write_lines(directory / "corpus.txt", [text for text, _ in rows])
    return directory


def run_config(data: Path, store: Path, **tables: Mapping[str, Any]) -> dict[str, Any]:
    """A whole run over ``write_data`` and the checkpoint ``encoder`` there; a few seconds long.

    Keys of ``tables`` are added to, or replace, those of the same table.
    """
    config: dict[str, Any] = {
        "name": "tiny",
        "data": str(data),
        "dataset": {"train": "train.csv", "dev": "dev.csv", "test": "test.csv"},
        "corpus": {"sources": ["corpus.txt"], "rows_per_shard": ROWS_PER_SHARD},
        "teacher": {
            "checkpoint": "encoder",
            "epochs": 4,
            "batch_sizes": [16],
            "learning_rates": [2e-2],
            "max_length": 16,
        },
        "vocabulary": {"size": 3000},
        "student": {
            "width": 8,
            "hidden": 8,
            "epochs": 4,
            "batch_size": 64,
            "learning_rate": 0.01,
            "scratch_epochs": 3,
        },
        "finetune": {"epochs": 2, "learning_rates": [1e-3]},
        "baseline": {"strengths": [4.0]},
        "evaluation": {"teacher_texts": 8, "examples": 3},
        "run": {"store": str(store), "threads": 1, "workers": 2},
    }
    for name, table in tables.items():
        config[name] = {**config.get(name, {}), **table}
    return config


def write_toml(path: Path, config: Mapping[str, Any]) -> Path:
    """Write a configuration of plain values, lists and tables as TOML."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items() if not _table(value)]
    for name, table in config.items():
        if _table(table):
            lines += ["", f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _table(value: object) -> bool:
    return isinstance(value, Mapping)
