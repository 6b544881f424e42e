"""``tune``: short runs that find a student's settings, printed as lines for its configuration."""

from __future__ import annotations

import json
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboards.console import plain_console
from flows.config import load_config
from flows.inline import run_until
from flows.student_needs import check_students
from flows.terminal import StageBars
from sparsedistill.errors import ConfigError
from sparsedistill.training.search import Candidate
from storage import ArtifactStore
from tasks.tuning import changed
from tasks.tuning import tune as search_settings

if TYPE_CHECKING:
    import argparse

    from sparsedistill.training.search import SearchResult
    from tasks.student_config import StudentConfig


def tune(options: argparse.Namespace) -> int:
    """Make what a student needs, try the candidates, and print the best."""
    config = load_config(options.config, overrides=options.overrides, data=options.data)
    console = plain_console()
    candidates = candidates_of(config.student, options)
    one_by_one = config.run.model_copy(update={"workers": 1})
    for candidate in candidates:
        student = changed(config.student, candidate)
        check_students(config.model_copy(update={"student": student, "run": one_by_one}))

    def told(candidate: Candidate, examples: int, score: float) -> None:
        console.print(f"{_words(candidate)}: {100 * score:.1f} % on dev after {examples:,} texts")

    with ExitStack() as held:
        with StageBars(console).shown():
            # What the search reads is claimed in the store until it is over.
            jobs = held.enter_context(run_until(config, "student"))
        result = search_settings(
            next(job for job in jobs if job.recipe.config["variant"] == "kd"),
            ArtifactStore(config.run.store),
            candidates,
            examples=options.examples,
            budget=60 * options.minutes,
            told=told,
        )
    console.print()
    if not result.complete:
        console.print("The time was over before all runs were done: --minutes gives it more.")
    console.print("\n".join(["[student]", *_lines(candidates[result.best])]))
    if options.json:
        found = to_json(result, candidates)
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def candidates_of(config: StudentConfig, options: argparse.Namespace) -> list[Candidate]:
    """Return what is to be tried; where nothing is named, learning rates around the given one.

    Raises:
        ConfigError: A number is not positive, or the time is none.
    """
    rates = options.learning_rates or [config.learning_rate * by for by in (1.0, 0.3, 3.0, 10.0)]
    sizes = options.batch_sizes or [config.batch_size]
    widths = options.widths or [None]
    given = [*rates, *sizes, *(width for width in widths if width is not None)]
    if min(given) <= 0 or options.minutes <= 0 or options.examples < 1:
        raise ConfigError("rates, sizes, minutes and examples must be positive numbers")
    return [Candidate(*one) for one in product(rates, sizes, widths)]


def to_json(result: SearchResult, candidates: list[Candidate]) -> dict[str, Any]:
    """Return every run of a search as plain JSON."""
    return {
        "best": _settings(candidates[result.best]),
        "complete": result.complete,
        "seconds": round(result.seconds, 1),
        "runs": [
            {**_settings(candidates[number]), "examples": rung.examples, "dev_accuracy": score}
            for rung in result.rungs
            for number, score in zip(rung.candidates, rung.scores, strict=False)
        ],
    }


def _settings(candidate: Candidate) -> dict[str, float | int]:
    found: dict[str, float | int] = {
        "learning_rate": candidate.learning_rate,
        "batch_size": candidate.batch_size,
    }
    if candidate.width is not None:
        found |= {"width": candidate.width, "hidden": candidate.width}
    return found


def _lines(candidate: Candidate) -> list[str]:
    return [f"{name} = {value!r}" for name, value in _settings(candidate).items()]


def _words(candidate: Candidate) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in _settings(candidate).items())
