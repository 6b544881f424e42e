"""The report of a run: every number in ``summary.json``, and one page that shows them.

Everything comes from artifacts and their manifests, so a report can be made again at any time.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dashboards.report import render_report
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks import evaluation
from tasks.corpus import SHARD_KIND
from tasks.earlier import ROLE
from tasks.promotion import read_promotion
from tasks.report_file import KIND, REPORT_FILE, SUMMARY_FILE
from tasks.shards import open_input
from tasks.stage import Job, Made, Progress, Stage, tool_version
from tasks.teacher_trust import teacher_summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from storage import Artifact

VERSION = 4
_LOG = logging.getLogger(__name__)
_STUDENT = "dan_kd_ft"


def jobs(name: str, made: Mapping[str, Sequence[Made]]) -> list[Job]:
    """Return the one job of the report, over everything made before it."""
    inputs = {stage: tuple(one.as_input() for one in some) for stage, some in made.items()}
    return [Job(Recipe(KIND, VERSION, {"name": name}, inputs))]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Gather the numbers and draw the page."""
    del progress
    made = {
        stage: [open_input(store, reference) for reference in references]
        for stage, references in job.recipe.inputs.items()
    }
    summary = summarise(str(job.recipe.config["name"]), made, store)
    text = json.dumps(summary, ensure_ascii=False, indent=1)
    writer.path(SUMMARY_FILE).write_text(text, "utf-8")
    writer.path(REPORT_FILE).write_text(render_report(summary), "utf-8")


STAGE = Stage(KIND, VERSION, build)


def summarise(
    name: str, made: Mapping[str, Sequence[Artifact]], store: ArtifactStore
) -> dict[str, Any]:
    """Return every number of the report.

    Args:
        name: Of the run.
        made: Its artifacts, by stage.
        store: That they are in.
    """
    _, dev, test = made["dataset"]
    evaluated_on = "dev" if dev.digest == test.digest else "test"
    measured = made["evaluation"][0].read_json(evaluation.FILE)
    corpus: Mapping[str, Any] = made["corpus"][0].statistics
    vocabulary: Mapping[str, Any] = made["vocabulary"][0].statistics
    known: Mapping[str, Any] = vocabulary["coverage"]["test"]
    return {
        "format": 1,
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool_version": tool_version(),
        "labels": made["dataset"][0].statistics["labels"],
        "environment": measured["environment"],
        "headline": _headline(measured["results"]),
        "results": measured["results"],
        "splits": {
            **{
                split: artifact.statistics["rows"]
                for split, artifact in zip(("train", "dev", "test"), made["dataset"], strict=True)
            },
            "evaluated_on": evaluated_on,
        },
        "corpus": {
            "rows": corpus["rows"],
            "shards": len(corpus["shards"]),
            "read": corpus["read"],
            "dropped": corpus["dropped"],
            "covered": _covered(made),
        },
        "change": read_promotion(made["promotion"][0]) if "promotion" in made else None,
        "training": _curves(made["student"]),
        "calibration": {"split": evaluated_on, **measured["calibration"]},
        "teacher": teacher_summary(
            train=made["dataset"][0],
            logits=made["logits"],
            students=made["student"],
            measured=measured["teacher_calibration"],
        ),
        "confusion": measured["confusion"],
        "disagreements": measured.get("disagreements"),
        "ngrams": {
            "rows": vocabulary["rows"],
            "distinct": vocabulary["distinct"],
            "per_order": [
                {"order": order, "rows": rows}
                for order, rows in enumerate(vocabulary["rows_by_order"], start=1)
            ],
            "coverage": known["by_size"],
            "out_of_vocabulary": known["out_of_vocabulary"],
            "known_by_order": [
                {"order": order, "known": has, "occurrences": all_}
                for order, (has, all_) in enumerate(
                    zip(known["known_by_order"], known["occurrences_by_order"], strict=True), 1
                )
                if all_
            ],
            "known_per_text": known["known_per_text"],
            "texts_without": known["texts_without"],
        },
        "package": {
            part: made["package"][0].statistics[part] for part in ("steps", "curve", "tried")
        },
        "stages": _stages(made, store),
        "lineage": _lineage(made),
    }


def _headline(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by_model = {row["model"]: row for row in results}
    student, teacher = by_model[_STUDENT], by_model.get("teacher")
    found = {
        "student": _STUDENT,
        "accuracy": student["accuracy"],
        "bytes": student["bytes"],
        "teacher_accuracy": None,
        "retained": None,
        "speedup": None,
    }
    if teacher:
        found["teacher_accuracy"] = teacher["accuracy"]
        found["retained"] = student["accuracy"] / teacher["accuracy"]
        if teacher["texts_per_second"]:
            found["speedup"] = student["texts_per_second"] / teacher["texts_per_second"]
    return found


def _covered(made: Mapping[str, Sequence[Artifact]]) -> float | None:
    """Return which share of the corpus has logits, where they were made elsewhere."""
    if "teacher" in made:
        return None
    shards = [artifact.statistics for artifact in made["logits"][:-3]]
    texts: Any = made["corpus"][0].statistics["rows"]
    covered: list[Any] = [shard["rows"] for shard in shards]
    share = float(sum(covered) / texts)
    if share < 1:
        _LOG.warning(
            "the given logits cover %.1f %% of the corpus's texts; from the others nothing is "
            "learned", 100 * share,
        )  # fmt: skip
    return share


def _curves(students: Sequence[Artifact]) -> list[dict[str, Any]]:
    return [
        {
            "model": evaluation.MODEL_OF[str(artifact.statistics["variant"])],
            "seed": artifact.statistics["seed"],
            "best_update": artifact.statistics["best_update"],
            "points": artifact.statistics["curve"],
        }
        for artifact in students
    ]


def _stages(made: Mapping[str, Sequence[Artifact]], store: ArtifactStore) -> list[dict[str, Any]]:
    """Return time, size and rows of every stage, as the manifests have them."""
    shards = {artifact.key: artifact for artifact in store.artifacts(SHARD_KIND)}
    inputs = {i.key for a in made["ngrams"] for i in a.manifest.inputs["texts"]}
    found = []
    for stage, artifacts in made.items():
        manifests = [artifact.manifest for artifact in artifacts]
        seconds = sum(manifest.seconds for manifest in manifests)
        if stage == "corpus":
            # The corpus's own time has the writing of its shards in it, its files no texts.
            manifests = [manifest for key, manifest in shards.items() if key in inputs]
        found.append(
            {
                "stage": stage,
                "artifacts": len(manifests),
                "seconds": seconds,
                "bytes": sum(manifest.size for manifest in manifests),
                "rows": sum(file.rows or 0 for m in manifests for file in m.files),
            }
        )
    return found


def _lineage(made: Mapping[str, Sequence[Artifact]]) -> dict[str, Any]:
    """Return the graph of what was made from what, one node a stage."""
    counts = {stage: len(artifacts) for stage, artifacts in made.items()}
    edges: Counter[tuple[str, str]] = Counter()
    for stage, artifacts in made.items():
        for artifact in artifacts:
            for role, references in artifact.manifest.inputs.items():
                # What an earlier run made is not in this picture.
                for reference in () if role == ROLE else references:
                    kind = "corpus" if reference.kind == SHARD_KIND else reference.kind
                    edges[kind, stage] += 1
    return {
        "nodes": [
            {"id": stage, "kind": stage, "count": count, "key": made[stage][0].key}
            for stage, count in counts.items()
            if count
        ],
        "edges": [list(edge) for edge in sorted(edges) if edge[0] in counts],
    }
