"""Reading the summary: the one input of everything in this package.

A summary is the parsed ``summary.json``. Any part may be null or absent (it was not run), so it is
read through the functions below, which turn what is missing or not finite into ``None`` or nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from dashboards.format import MISSING, one_line, rate, share, size, times

Summary = Mapping[str, Any]
FORMAT = 1
TEACHER = "teacher"


def check_format(summary: Summary) -> None:
    """Refuse a summary written by a newer version.

    Raises:
        ValueError: `summary` has another format number than this version reads.
    """
    if not isinstance(summary, Mapping):
        raise ValueError("this is not the summary of a run")
    found = summary.get("format", FORMAT)
    if found != FORMAT:
        message = (
            f"summary.json has format {found!r}; this version reads format {FORMAT}. "
            "Update sparsedistill, or run the report stage again with this version."
        )
        raise ValueError(message)


def part(summary: Summary, *names: str) -> Summary:
    """Return the mapping found by following `names`, empty where any of them is missing."""
    found: Any = summary
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def rows(summary: Summary, *names: str) -> list[Summary]:
    """Return the list of mappings found by following `names`, empty where it is missing."""
    found = part(summary, *names[:-1]).get(names[-1])
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []


def number(mapping: Summary, key: str) -> float | None:
    """Return the finite number under `key`, else ``None``."""
    value = mapping.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def titles(summary: Summary) -> dict[str, str]:
    """Return the title people read for every model in the results, in the order of the results."""
    return {
        str(row["model"]): one_line(row.get("title") or row["model"], limit=40)
        for row in rows(summary, "results")
        if "model" in row
    }


def title(summary: Summary, model: object) -> str:
    """Return the title of one model; its own name where the results do not have it."""
    return titles(summary).get(str(model), one_line(model, limit=40))


def result(summary: Summary, model: str) -> Summary:
    """Return the row of `model` in the results, empty where there is none."""
    return next((row for row in rows(summary, "results") if row.get("model") == model), {})


def times_teacher(summary: Summary, row: Summary) -> float | None:
    """Return how many times as fast as the teacher the model of a result row answers."""
    speed = number(row, "texts_per_second")
    teacher = number(result(summary, TEACHER), "texts_per_second")
    return speed / teacher if speed is not None and teacher else None


def headline(summary: Summary) -> str:
    """Say in one plain sentence what this run achieved."""
    found = part(summary, "headline")
    accuracy, retained = number(found, "accuracy"), number(found, "retained")
    if retained is not None:
        sentence = f"The student keeps {share(retained)} of the teacher's accuracy"
        if retained > 1:
            sentence = f"The student reaches {share(retained)} of the teacher's accuracy"
    elif accuracy is not None:
        sentence = f"The student is right on {share(accuracy)} of the texts"
    else:
        return "No student was evaluated in this run."
    return sentence + _pace(number(found, "speedup")) + "."


def _pace(speedup: float | None) -> str:
    if not speedup:
        return ""
    if speedup >= 1:
        return f" and answers {times(speedup)} faster"
    return f", but answers {times(1 / speedup)} slower"


def facts(summary: Summary) -> list[tuple[str, str, str]]:
    """Return the key figures as (name, value, remark), those that were measured."""
    found = part(summary, "headline")
    student = str(found.get("student", ""))
    row, teacher = result(summary, student), result(summary, TEACHER)
    speed = number(row, "texts_per_second")
    figures = [
        ("Accuracy", share(number(found, "accuracy")), _of(teacher, "accuracy", share)),
        ("Agreement", share(number(row, "agreement")), "with the teacher's answers"),
        ("Speed-up", times(number(found, "speedup")), speed and f"{rate(speed)} texts per second"),
        ("Size", size(number(found, "bytes")), _of(teacher, "bytes", size)),
    ]
    return [(name, value, remark or "") for name, value, remark in figures if value != MISSING]


def _of(teacher: Summary, key: str, write: Callable[[float], str]) -> str | None:
    value = number(teacher, key)
    return None if value is None else f"teacher {write(value)}"
