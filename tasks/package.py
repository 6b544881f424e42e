"""The deployable model: the best student folded, pruned, quantised and calibrated.

Every step is compared with the model before it on ``dev`` and on texts that go wrong first (empty,
unknown, very long); the differences are in the manifest. The folded model is compared with the
training-time one and refused if they differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sparsedistill.errors import DataError
from sparsedistill.metrics import accuracy
from sparsedistill.model_format import save_model
from sparsedistill.packaging import (
    PruningRule,
    calibrate,
    check_texts,
    fold,
    largest_difference,
    model_bytes,
    prune,
    useful_rows,
)
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.shards import open_input, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input, tool_version
from tasks.student import read_student
from tasks.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sparsedistill.folded import FoldedModel
    from sparsedistill.text.buffers import TextBuffer
    from sparsedistill.vocabulary import Vocabulary

KIND, VERSION = "package", 1
_FOLD_TOLERANCE = 1e-3


class PackageConfig(Table):
    """``[package]``: how small the deployed model is made."""

    dtype: Literal["float32", "float16", "int8"] = "float32"
    keep_share: float = Field(1.0, gt=0, le=1, description="of the rows; the rest is pruned")
    keep_by: PruningRule = "contribution"
    calibrate: bool = Field(True, description="fit a temperature on dev")


def jobs(
    config: PackageConfig,
    *,
    students: Sequence[Made],
    vocabulary: Made,
    splits: Mapping[str, Made],
    max_ngrams: int,
    threads: int,
) -> list[Job]:
    """Return the one job: of the students, the first of the best on ``dev`` is packaged."""
    best = max(students, key=lambda made: float(made.statistics["dev_accuracy"]))
    recipe = Recipe(
        KIND,
        VERSION,
        config={**config.model_dump(mode="json"), "max_ngrams": max_ngrams},
        inputs={
            "student": (best.as_input(),),
            "vocabulary": (vocabulary.as_input(),),
            "dev": (splits["dev"].as_input(),),
        },
    )
    return [Job(recipe, runtime={"threads": threads})]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Make and check the model directory."""
    del progress
    settings = dict(job.recipe.config)
    max_ngrams = int(settings.pop("max_ngrams"))  # type: ignore[arg-type]
    config = PackageConfig.model_validate(settings)
    dev = read_shard(store, single_input(job.recipe, "dev"))
    student = read_student(open_input(store, single_input(job.recipe, "student")))
    vocabulary = read_vocabulary(open_input(store, single_input(job.recipe, "vocabulary")))
    if dev.labels is None:
        raise DataError("dev has no labels")
    steps = _Steps(check_texts(dev.texts), dev.labels, job.runtime["threads"])
    model = fold(
        student.weights(),
        vocabulary,
        labels=dev.label_names,
        activation=student.shape.activation,
        max_ngrams=max_ngrams,
    )
    bags = vocabulary.bags(steps.texts, max_ngrams=max_ngrams)
    steps.compare("fold", model, vocabulary, student.predict(bags))
    _refuse_bad_fold(steps.taken[-1]["max_logit_difference"])
    if config.keep_share < 1:
        keep = max(1, round(config.keep_share * len(vocabulary)))
        rows = useful_rows(model, vocabulary, keep, config.keep_by)
        model, vocabulary = prune(model, vocabulary, rows)
        steps.compare("prune", model, vocabulary)
    if config.dtype != "float32":
        model = model.converted(config.dtype)
        steps.compare("quantise", model, vocabulary)
    if config.calibrate:
        model = calibrate(model, steps.last[: len(dev)], dev.labels)
    save_model(writer.path("config.json").parent, model, vocabulary, training=_provenance(job))
    writer.statistics.update(
        steps=steps.taken,
        temperature=model.temperature,
        rows=len(vocabulary),
        hidden=model.hidden,
        dtype=config.dtype,
        labels=list(model.labels),
    )


STAGE = Stage(KIND, VERSION, build)


class _Steps:
    """Compares each step's model with the one before, over the same texts."""

    def __init__(self, texts: TextBuffer, truth: npt.NDArray[np.int64], threads: int) -> None:
        self.texts = texts
        self.taken: list[dict[str, Any]] = []
        self.last = np.empty((0, 0), np.float32)
        self._truth = truth
        self._threads = threads

    def compare(
        self,
        name: str,
        model: FoldedModel,
        vocabulary: Vocabulary,
        before: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Take note of a step; ``before`` stands in for the step before the first."""
        previous = self.last if before is None else before
        self.last = model.logits(self.texts, threads=self._threads)
        predicted = self.last[: len(self._truth)].argmax(axis=1)
        self.taken.append(
            {
                "step": name,
                "max_logit_difference": largest_difference(previous, self.last),
                "accuracy": accuracy(self._truth, predicted),
                "bytes": model_bytes(model, vocabulary),
            }
        )


def _refuse_bad_fold(difference: float) -> None:
    if not difference <= _FOLD_TOLERANCE:
        raise DataError(
            f"the folded model's logits differ from the trained one's by {difference:.2g}, more "
            f"than {_FOLD_TOLERANCE}: weights this large lose digits; lower student.learning_rate"
        )


def _provenance(job: Job) -> dict[str, Any]:
    """Return what the model directory says of its making: digests, no path and no time."""
    return {
        "tool": f"sparsedistill {tool_version()}",
        "package": job.recipe.key,
        "inputs": {role: refs[0].digest for role, refs in job.recipe.inputs.items()},
    }
