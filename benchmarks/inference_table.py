"""What `inference.py` makes of its passes: rows, ratios and the printed table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, Any]


def finished(row: Row) -> Row:
    """Return a row with what its passes come to."""
    seconds = row["seconds"]
    return {
        **row,
        "texts_per_s": row["texts"] / min(seconds),
        "spread": 1 - min(seconds) / max(seconds),
        "p50_us": min(row["p50"], default=None),
        "p99_us": min(row["p99"], default=None),
    }


def of_task(rows: list[Row], name: str) -> list[Row]:
    """Return the rows of one task."""
    return [row for row in rows if row["task"] == name]


def compare(rows: list[Row]) -> list[Row]:
    """Return how many times as fast ours is as each peer, each of them the fastest way it has.

    With one core the peers have one as well; the teacher always has as many as it is given.
    """
    groups = {
        "fastest peer": ("fastText", "TF-IDF", "model2vec"),
        "TF-IDF(1,2) + LR": ("TF-IDF",),
        "teacher float32": ("teacher",),
    }
    found = []
    peers = [row for row in rows if row["contender"].startswith(groups["fastest peer"])]
    best = max((row["accuracy"] for row in peers), default=None)
    for ours in (row for row in rows if row["contender"].startswith("ours")):
        one = ours["way"] == "1 core"
        ratio: Row = {"task": ours["task"], "ours": f"{ours['contender']}, {ours['way']}"}
        ratio["points above best peer"] = 100 * (ours["accuracy"] - best) if best else None
        for group, names in groups.items():
            rivals = [
                row
                for row in rows
                if row["contender"].startswith(names)
                and (not one or row["way"] == "1 core" or names == ("teacher",))
                and "words given" not in row["way"]
                and "bfloat16" not in row["way"]
            ]
            ratio[f"times {group}"] = times(ours, rivals)
        low = [row for row in rows if "bfloat16" in row["way"]]
        ratio["times teacher bfloat16"] = times(ours, low)
        found.append(ratio)
    return found


def times(ours: Row, rivals: list[Row]) -> float | None:
    """Return how many times as fast ours is as the fastest of the rivals; None without any."""
    if not rivals:
        return None
    return float(ours["texts_per_s"] / max(row["texts_per_s"] for row in rivals))


def chosen_settings(cache: Path, rows: list[Row]) -> dict[str, Any]:
    """Return the settings that each trained peer was given."""
    found = {}
    for path in {row["path"] for row in rows}:
        file = Path(path) / "settings.json"
        if file.exists() and file.is_relative_to(cache):
            made = json.loads(file.read_text("utf-8"))
            made.pop("tried", None)
            if made:
                found[Path(path).name] = made
    return dict(sorted(found.items()))


def print_table(rows: list[Row], ratios: list[Row], about: dict[str, Any]) -> None:
    """Print the rows, the ratios, and what they were measured on."""
    names = ("task", "contender", "way", "accuracy", "texts_per_s", "spread", "p50_us", "p99_us")
    console = Console(width=140)
    for part in ([{name: row[name] for name in names} for row in rows], ratios):
        if not part:
            continue
        table = Table(box=None)
        for name in part[0]:
            justify: Any = "left" if isinstance(part[0][name], str) else "right"
            table.add_column(name.replace("_", " "), justify=justify)
        for row in part:
            table.add_row(*(shown(name, value) for name, value in row.items()))
        console.print(table)
    odd = {(row["task"], row["contender"], row["accuracy_of"]) for row in rows}
    for task, contender, what in sorted(odd):
        if contender.startswith("teacher"):
            console.print(f"{task}: accuracy of the {contender} is that of {what}")
    console.print(about)


def shown(name: str, value: Any) -> str:  # noqa: ANN401
    """Return a cell of the table."""
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    if name in ("accuracy", "spread"):
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}"
