"""The sections that say how a run was made: its stages, its lineage, its machine, how to use it."""

from __future__ import annotations

from dashboards import charts
from dashboards import format as fmt
from dashboards.blocks import Cell, figure, measured, pair, quiet, table
from dashboards.lineage import lineage_svg
from dashboards.markup import Html, join, tag
from dashboards.summary import Summary, number, part, rows


def work(summary: Summary) -> Html:
    """The stages: what was found, what was built, what it cost."""
    found = rows(summary, "stages")
    if not found:
        return quiet("No stages are recorded in this summary.")
    body: list[list[Cell]] = [
        [
            fmt.one_line(row.get("stage")),
            *(measured(row, key, fmt.count) for key in ("artifacts", "cached", "built")),
            measured(row, "seconds", fmt.duration),
            measured(row, "bytes", fmt.size),
            measured(row, "rows", fmt.count),
        ]
        for row in found
    ]
    heads = ["Stage", "Artifacts", "Reused", "Built", "Work", "Size", "Rows"]
    return join(
        [
            _corpus(summary),
            table(heads, body),
            pair(
                figure(
                    "seconds",
                    charts.stage_seconds(summary),
                    "Work in each stage. What was reused counts with the time it took when built.",
                ),
                figure("bytes", charts.stage_bytes(summary), "What each stage put in the store."),
            ),
        ]
    )


_REASONS = {
    "empty": "empty",
    "duplicate": "duplicates",
    "held_out": "equal to a dev or test text",
    "bad": "unreadable",
    "near_duplicate": "alike but for case and signs",
}


def _corpus(summary: Summary) -> Html | None:
    found, splits = part(summary, "corpus"), part(summary, "splits")
    sentence: list[str] = []
    if found:
        sentence = ["The corpus: ", measured(found, "rows", fmt.count), " texts"]
        if number(found, "shards") is not None:
            sentence += [" in ", measured(found, "shards", fmt.count), " shards"]
        if number(found, "read") is not None:
            sentence += [", out of ", measured(found, "read", fmt.count), " rows read"]
        dropped = part(found, "dropped")
        reasons = [
            f"{fmt.count(number(dropped, key))} {_REASONS.get(key, fmt.one_line(key))}"
            for key in dropped
            if number(dropped, key) is not None
        ]
        sentence += [f" (left out: {', '.join(reasons)})." if reasons else "."]
        if number(found, "covered") is not None:
            covered = measured(found, "covered", fmt.share)
            sentence += [" The logits came from elsewhere and cover ", covered, " of it."]
    labelled = [
        f"{fmt.count(number(splits, key))} {key}"
        for key in ("train", "dev", "test")
        if number(splits, key) is not None
    ]
    if labelled:
        sentence += [f" Labelled texts: {', '.join(labelled)}."]
    return tag("p", *sentence) if sentence else None


def lineage(summary: Summary) -> Html:
    """What was made from what."""
    wide = lineage_svg(summary)
    if wide is None:
        many = len(rows(summary, "lineage", "nodes"))
        why = f"{many:,} artifacts are too many to draw" if many else "none is in this summary"
        return quiet(f"No picture of the lineage: {why}.")
    caption = (
        "Each box is an artifact of the store with the beginning of its key, the digest of all "
        "that decides it; × counts artifacts of one kind drawn as one. An arrow goes from what "
        "was read to what was made from it."
    )
    return join([figure("lineage", wide, caption, narrow=lineage_svg(summary, vertical=True))])


_SNIPPET = """\
from sparsedistill import Classifier
model = Classifier.load("student/")
model.predict(["a text", "another text"])"""


def use(summary: Summary) -> Html:
    """How to use the model and how to make this run again."""
    command = fmt.clean(summary.get("command") or "")
    needs = "needs numpy, numba, safetensors and zstandard; no torch, no GPU"
    return join(
        [
            tag("p", f"The model is the directory that the package stage wrote. It {needs}:"),
            tag("pre", tag("code", _SNIPPET)),
            tag("p", "To make it again, reusing all that has not changed:") if command else None,
            tag("pre", tag("code", command)) if command else None,
            _labels(summary),
        ]
    )


def _labels(summary: Summary) -> Html | None:
    labels = [fmt.one_line(label) for label in summary.get("labels") or []]
    if not labels:
        return None
    more = f" and {len(labels) - 40:,} more" if len(labels) > 40 else ""
    names = join((tag("bdi", label) for label in labels[:40]), between=", ")
    return tag("p", "Labels: ", names, f"{more}.", class_="note")


def environment(summary: Summary) -> Html:
    """The machine and the packages."""
    found = part(summary, "environment")
    if not found:
        return quiet("The environment is not in this summary.")
    packages = ", ".join(f"{name} {version}" for name, version in part(found, "packages").items())
    shown = [
        (name, fmt.one_line(value, limit=2000))
        for name, value in (
            ("Processor", found.get("cpu")),
            ("Threads", found.get("threads")),
            ("Platform", found.get("platform")),
            ("Python", found.get("python")),
            ("Packages", packages),
        )
        if value
    ]
    pairs = (part for name, value in shown for part in (tag("dt", name), tag("dd", value)))
    return tag("dl", *pairs, class_="facts")
