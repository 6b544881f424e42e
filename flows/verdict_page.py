"""What a re-distillation decided, as Markdown for the page of its Prefect run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dashboards import format as fmt
from flows.work_table import work_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flows.redistillation import Redistilled

_VERDICTS = {
    "promoted": "the new model is the current one",
    "kept": "the current model stays",
    "overtaken": "nothing was decided",
    "unchanged": "there was nothing to do",
}
_ACTIVE = re.compile(r"([\\`*_\[\]|~!#<>])")


def verdict_markdown(name: str, done: Redistilled) -> str:
    """Return the verdict, both models' accuracies, and what was made for it.

    Args:
        name: Of the run.
        done: What became of it.
    """
    parts = [
        f"# {_escaped(name)}: {_VERDICTS[done.outcome]}",
        f"**{_escaped(done.why)}**",
    ]
    if done.look.changes:
        parts.append(f"Changed since the last decision: {', '.join(done.look.changes)}.")
    if done.decision is not None and done.decision.compared:
        parts.append(_accuracies(done.decision.compared))
    if done.result is not None:
        made, reused = _counts(done)
        parts.append(f"{made} artifacts were made, {reused} were there already:")
        columns = ("stage", "made", "cached", "rows", "work")
        parts.append(_table(columns, work_rows(done.result.outcomes)))
    if done.decision is not None:
        package = done.decision.model.package
        parts.append(
            f"Decision {done.decision.number} of {done.decision.when[:19].replace('T', ' ')} UTC, "
            f"about package/{package.key[:12]}. `sparsedistill rollback` takes a promotion back."
        )
    return "\n\n".join(parts) + "\n"


def _accuracies(compared: Mapping[str, Any]) -> str:
    rows = [
        {
            "on": split,
            "texts": fmt.count(one["rows"]),
            "new": fmt.exact_share(one["new_accuracy"]),
            "current": fmt.exact_share(one["current_accuracy"]),
            "only new right": one["only_new"],
            "only current right": one["only_current"],
            "agreement": fmt.share(one["agreement"]),
            "p": f"{one['p_value']:.2g}",
        }
        for split, one in compared["splits"].items()
    ]
    margin = f"\n\nThe new model may be worse by {100 * compared['margin']:.2g} points at most."
    return _table(list(rows[0]), rows) + margin if rows else ""


def _counts(done: Redistilled) -> tuple[int, int]:
    assert done.result is not None  # noqa: S101 - asked only where there is one
    outcomes = [one for some in done.result.outcomes.values() for one in some]
    made = sum(not one.cached for one in outcomes)
    return made, len(outcomes) - made


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "| :-- |" + " --: |" * (len(columns) - 1)]
    lines += ["| " + " | ".join(_escaped(str(row[c])) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return _ACTIVE.sub(r"\\\1", fmt.one_line(text, limit=1000))
