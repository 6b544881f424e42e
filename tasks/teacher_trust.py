"""What the report says of the teacher: how far to believe its logits, what it made of the corpus.

Functions from logits and manifests to plain JSON, in the shape of ``summary.json``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.metrics import accuracy, best_temperature, calibration, softmax

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from storage import Artifact

    Labels = npt.NDArray[np.int64]
    Logits = npt.NDArray[np.float32]

# A row whose greatest probability is below this is one that the teacher is unsure of.
UNSURE_BELOW = 0.7
# Fewer labelled rows than this say nothing of calibration.
_ENOUGH_ROWS = 30


def teacher_calibration(splits: Mapping[str, tuple[Labels, Logits]]) -> dict[str, Any] | None:
    """Return how far the teacher's confidence and accuracy are apart, and what mends it.

    Args:
        splits: Labels int64 [rows] and logits float32 [rows, classes] by name, the first of them
            ``dev``, on which the temperature is fitted. Rows of NaN have no logits; they are left
            out.

    Returns:
        The temperature, and each split before and after it; None where too few rows of ``dev``
        have logits. Other splits with too few are left out. Where the teacher is right on all of
        ``dev``, as one is that has learned from it, no temperature fits: it is None, and so is what
        comes after it.
    """
    known = {}
    for name, (truth, logits) in splits.items():
        covered = np.isfinite(logits).all(axis=1)
        if np.count_nonzero(covered) >= _ENOUGH_ROWS:
            known[name] = (truth[covered], logits[covered], len(truth))
    if "dev" not in known:
        return None
    truth, logits, _ = known["dev"]
    fits = accuracy(truth, logits.argmax(axis=1)) < 1
    temperature = best_temperature(truth, logits) if fits else None
    return {
        "temperature": temperature,
        "splits": [
            {
                "split": name,
                "rows": len(truth),
                "of": every,
                "accuracy": accuracy(truth, logits.argmax(axis=1)),
                "before": _calibration(truth, logits, 1.0),
                "after": _calibration(truth, logits, temperature) if temperature else None,
            }
            for name, (truth, logits, every) in known.items()
        ],
    }


def _calibration(truth: Labels, logits: Logits, temperature: float) -> dict[str, Any]:
    found = calibration(truth, softmax(logits, temperature=temperature))
    return {
        "ece": found.error,
        "noise": found.noise,
        "bins": [asdict(one) for one in found.bins],
    }


def teacher_summary(
    *,
    train: Artifact,
    logits: Sequence[Artifact],
    students: Sequence[Artifact],
    measured: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the part of the summary that is about the teacher.

    Args:
        train: Whose labels the corpus is compared with.
        logits: Of the corpus's shards, then of ``train``, ``dev`` and ``test``.
        students: Of which the distilled ones say what rows they chose.
        measured: What ``teacher_calibration`` found.
    """
    corpus: list[Mapping[str, Any]] = [artifact.statistics for artifact in logits[:-3]]
    predicted = _sums([shard["predicted"] for shard in corpus])
    labels: Any = train.statistics["labels"]
    rows: Any = train.statistics["rows_per_label"]
    return {
        "calibration": measured,
        "confidence": _confidence(corpus),
        "classes": [
            {"label": label, "train": in_train, "predicted": in_corpus}
            for label, in_train, in_corpus in zip(labels, rows, predicted, strict=True)
        ],
        "quarantined": _quarantined([artifact.statistics for artifact in logits]),
        "chosen": _chosen(students),
    }


def _confidence(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return rows by the greatest probability; None where a shard is from before it was counted."""
    if any("confidence" not in shard for shard in shards):
        return None
    counts = _sums([shard["confidence"] for shard in shards])
    return {
        "counts": counts,
        "unsure_below": UNSURE_BELOW,
        "unsure": sum(counts[: round(UNSURE_BELOW * len(counts))]),
    }


def _quarantined(shards: Sequence[Mapping[str, Any]]) -> dict[str, int] | None:
    """Return rows without logits by reason; None where a shard is from before they were counted."""
    if any("quarantined" not in shard for shard in shards):
        return None
    found: Counter[str] = Counter()
    for shard in shards:
        found.update(shard["quarantined"])
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def _chosen(students: Sequence[Artifact]) -> dict[str, Any] | None:
    """Return what rows the first distilled student learned from, where it had a choice."""
    for student in students:
        statistics, config = student.statistics, student.manifest.config
        if statistics["variant"] == "kd" and "chosen" in statistics:
            counts: Any = statistics["chosen"]
            settings = {key: config[key] for key in ("least_margin", "balance") if key in config}
            return {"settings": settings, **counts}
    return None


def _sums(counts: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]
