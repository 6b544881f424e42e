"""Whether a new model may take the place of the current one: both on the new ``dev`` and ``test``.

The current model is asked for its answers to the same texts, so nothing depends on what was
measured in another week on other rows. A text whose label only one of the two had learned is left
out, for it would speak for that one (where ``dev`` is put aside from a ``train`` that has grown,
there are many). The new one is promoted if it is not worse by more than a margin on
``dev``, nor on ``test`` where that is another set. How sure a difference is, is told
beside it (McNemar's exact test over the texts that only one of them gets right), but decides
nothing: a week's few texts seldom prove anything.

Models with other labels cannot be compared, and a handful of texts of ``dev`` says nothing. Then
the current one stays, until a person says otherwise.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from sparsedistill.classifier import Classifier
from sparsedistill.errors import DataError
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.earlier import ROLE
from tasks.shards import open_input, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from storage import Artifact
    from tasks.earlier import Earlier
    from tasks.shards import Texts

KIND, VERSION = "promotion", 1
FILE = "promotion.json"
LEAST_ROWS = 20
"""Of ``dev``, that both models had learned from or neither: with fewer nothing is promoted."""

_EXAMPLES = 12
# Shares of whole numbers of rows are compared with the margin in rows, whose product is rounded.
_ROUNDING = 1e-9


class RedistillConfig(Table):
    """``[redistill]``: how a model is made anew, and when it takes the place of the last one."""

    margin: float = Field(
        0.005,
        ge=0,
        lt=1,
        description="by how much a new model's accuracy may be less, to be promoted all the same",
    )
    start: Literal["anew", "current"] = Field(
        "current", description="of a new student: current takes over the rows of the last one"
    )
    epochs: int | None = Field(
        None,
        ge=1,
        description="of a student that takes over those rows; those of [student] where not given",
    )


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models on the same labelled texts.

    Attributes:
        rows: How many texts.
        new_right: That the new model answers rightly.
        current_right: That the current one does.
        only_new: That only the new one does.
        only_current: That only the current one does.
        agreed: On which they say the same.
        p_value: Of so uneven a split of the texts that only one gets right, or a more uneven one,
            if both were equally good (McNemar's exact test, two-sided).
        left_out: Texts beside these, whose labels only one of the two had learned.
    """

    rows: int
    new_right: int
    current_right: int
    only_new: int
    only_current: int
    agreed: int
    p_value: float
    left_out: int = 0

    @property
    def new_accuracy(self) -> float:
        """Share of texts."""
        return self.new_right / self.rows

    @property
    def current_accuracy(self) -> float:
        """Share of texts."""
        return self.current_right / self.rows

    def within(self, margin: float) -> bool:
        """Return whether the new model is not worse by more than ``margin``."""
        return self.current_right - self.new_right <= margin * self.rows + _ROUNDING

    def to_json(self) -> dict[str, Any]:
        """Return counts and accuracies as plain JSON."""
        return {
            **asdict(self),
            "new_accuracy": self.new_accuracy,
            "current_accuracy": self.current_accuracy,
            "agreement": self.agreed / self.rows,
        }


def paired(
    truth: npt.NDArray[np.int64], new: npt.NDArray[np.int64], current: npt.NDArray[np.int64]
) -> Paired:
    """Compare two models' answers, all int64 [rows] in the same label order."""
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    new_right, current_right = new == truth, current == truth
    only_new = int(np.sum(new_right & ~current_right))
    only_current = int(np.sum(~new_right & current_right))
    differ = only_new + only_current
    return Paired(
        rows=len(truth),
        new_right=int(np.sum(new_right)),
        current_right=int(np.sum(current_right)),
        only_new=only_new,
        only_current=only_current,
        agreed=int(np.sum(new == current)),
        p_value=float(binomtest(only_new, differ).pvalue) if differ else 1.0,
    )


def decide(splits: Mapping[str, Paired], margin: float) -> tuple[bool, str]:
    """Return whether to promote, and why in words.

    Args:
        splits: ``dev``, and ``test`` where it is another.
        margin: Share of texts.
    """
    told = "; ".join(
        f"{name} {100 * one.new_accuracy:.2f} % against {100 * one.current_accuracy:.2f} % "
        f"of {one.rows} texts (p = {one.p_value:.2g})"
        for name, one in splits.items()
    )
    by_hand = "`sparsedistill promote` makes the new model the current one by hand"
    if not splits:
        return False, (
            "only one of the models had learned the labels of dev and test, of each text, so they "
            f"cannot be compared; {by_hand}"
        )
    rows = splits["dev"].rows if "dev" in splits else 0
    if rows < LEAST_ROWS:
        return False, (
            f"dev has {rows} texts to compare the models on (others had been learned by one of "
            f"them only), fewer than {LEAST_ROWS}: too few to decide by; {by_hand}: {told}"
        )
    worse = [name for name, one in splits.items() if not one.within(margin)]
    if worse:
        where = " and ".join(worse)
        return False, f"worse on {where} by more than {100 * margin:.2g} points: {told}"
    return True, f"not worse by more than {100 * margin:.2g} points: {told}"


def jobs(
    config: RedistillConfig,
    earlier: Earlier,
    *,
    package: Made,
    splits: Mapping[str, Made],
    threads: int,
) -> list[Job]:
    """Return the one job that compares a new model with the current one.

    Args:
        config: The table ``[redistill]``.
        earlier: The current model.
        package: The new one.
        splits: ``train``, ``dev`` and ``test``.
        threads: That the models answer with.
    """
    dev, test = splits["dev"].as_input(), splits["test"].as_input()
    inputs = {
        "package": (package.as_input(),),
        ROLE: (earlier.package, earlier.train),
        "train": (splits["train"].as_input(),),
        "dev": (dev,),
        "test": () if test.digest == dev.digest else (test,),
    }
    recipe = Recipe(KIND, VERSION, {"margin": config.margin}, inputs)
    return [Job(recipe, runtime={"threads": threads})]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Compare both models and write down what follows."""
    margin = float(job.recipe.config["margin"])  # type: ignore[arg-type]
    before, learned = job.recipe.inputs[ROLE]
    packages = {
        "new": open_input(store, single_input(job.recipe, "package")),
        "current": open_input(store, before),
    }
    new, current = (
        Classifier.load(one.directory(), threads=job.runtime["threads"])
        for one in packages.values()
    )
    document: dict[str, Any] = {
        "margin": margin,
        "bytes": {name: one.manifest.size for name, one in packages.items()},
        "labels": {"new": list(new.classes_), "current": list(current.classes_)},
        "ngrams": _ngrams(new, current),
    }
    if set(new.classes_) != set(current.classes_):
        promote, why = False, _not_comparable(new, current)
        document |= {"comparable": False, "splits": {}}
    else:
        splits: dict[str, Paired] = {}
        trains = (single_input(job.recipe, "train"), learned)
        ids = [read_shard(store, one).ids for one in trains]
        for role in ("dev", "test"):
            for reference in job.recipe.inputs[role]:
                found = _compare(read_shard(store, reference), new, current, learned=ids)
                splits |= {role: found} if found.rows else {}
                progress(0.5)
        promote, why = decide(splits, margin)
        document |= {
            "comparable": bool(splits),
            "splits": {name: one.to_json() for name, one in splits.items()},
        }
    document |= {"promote": promote, "why": why}
    writer.path(FILE).write_text(json.dumps(document, ensure_ascii=False, indent=1), "utf-8")
    writer.statistics.update(promote=promote, why=why, splits=document["splits"])


STAGE = Stage(KIND, VERSION, build)


def read_promotion(artifact: Artifact) -> dict[str, Any]:
    """Return what was written down of a comparison."""
    document: dict[str, Any] = artifact.read_json(FILE)
    return document


def _compare(
    texts: Texts, new: Classifier, current: Classifier, *, learned: Sequence[npt.NDArray[np.uint64]]
) -> Paired:
    """Compare two models with the same labels; each may have them in an order of its own."""
    if texts.labels is None:
        raise DataError("texts without labels cannot tell which model is better")
    names = {label: number for number, label in enumerate(new.classes_)}
    truth = np.array([names[label] for label in texts.label_names])[texts.labels]
    given = list(texts.texts)
    order = np.array([names[label] for label in current.classes_])
    by_new, by_current = (np.isin(texts.ids, ids) for ids in learned)
    fair = by_new == by_current
    found = paired(
        truth[fair],
        new.predict_proba(given).argmax(axis=1)[fair],
        order[current.predict_proba(given).argmax(axis=1)][fair],
    )
    return replace(found, left_out=int((~fair).sum()))


def _not_comparable(new: Classifier, current: Classifier) -> str:
    added = [label for label in new.classes_ if label not in current.classes_]
    gone = [label for label in current.classes_ if label not in new.classes_]
    told = [
        f"{word} {', '.join(labels)}" for word, labels in (("new", added), ("gone", gone)) if labels
    ]
    return (
        f"the labels are others ({'; '.join(told)}), so the two cannot be compared; "
        "`sparsedistill promote` makes the new model the current one by hand"
    )


def _ngrams(new: Classifier, current: Classifier) -> dict[str, Any]:
    """Return which rows came and went, the most frequent first."""

    def missing(one: Classifier, other: Classifier) -> tuple[int, list[str]]:
        rows = np.flatnonzero(~np.isin(one.folded.index.hashes, other.folded.index.hashes))
        strings = one.ngrams
        shown = rows[:_EXAMPLES] if strings is not None else rows[:0]
        return len(rows), [strings[int(row)] for row in shown]  # type: ignore[index]

    added, gone = missing(new, current), missing(current, new)
    return {
        "rows": {"new": len(new.folded.index), "current": len(current.folded.index)},
        "added": added[0],
        "gone": gone[0],
        "examples": {"added": added[1], "gone": gone[1]},
    }
