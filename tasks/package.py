"""The deployable model: the best student folded, pruned, quantised and calibrated.

Every step is compared with the model before it on ``dev`` and on texts that go wrong first (empty,
unknown, very long); the differences are in the manifest. The folded model is compared with the
training-time one and refused if they differ. How much of it could be pruned is measured too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from sparsedistill.classifier import Classifier
from sparsedistill.compression.calibration import calibrate
from sparsedistill.compression.curve import pruning_curve
from sparsedistill.compression.folding import fold
from sparsedistill.compression.held_out import HeldOut
from sparsedistill.compression.limits import AccuracyFloor, Limits
from sparsedistill.compression.narrowing import Basis
from sparsedistill.compression.pruning import PruningRule, Rankings, row_use
from sparsedistill.compression.recipe import Compression, compress
from sparsedistill.compression.sizes import saved_bytes
from sparsedistill.compression.steps import StepLog, check_texts
from sparsedistill.drift import measure_reference
from sparsedistill.errors import DataError
from sparsedistill.memory import parse_size
from sparsedistill.metrics import softmax
from sparsedistill.model_format import save_model
from sparsedistill.text_profile import Counted
from sparsedistill.thresholds import fit_thresholds
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks.reference import reference_shards, reference_texts
from tasks.shards import open_input, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input, tool_version
from tasks.student_file import FILE, read_student
from tasks.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sparsedistill.folded import FoldedModel
    from sparsedistill.vocabulary import Vocabulary
    from tasks.shards import TextShard

KIND, VERSION = "package", 2
_FOLD_TOLERANCE = 1e-3
# Bytes that thresholds, reference and temperature may take in config.json, once there are some.
_ROOM = 4096


class PackageConfig(Table):
    """``[package]``: how small the deployed model is made."""

    dtype: Literal["float32", "float16", "int8"] | None = Field(
        None, description="float32 where not given, or with a limit whichever serves best"
    )
    width: int | None = Field(
        None, ge=1, description="columns of the table; as dtype where not given"
    )
    keep_share: float | None = Field(
        None, gt=0, le=1, description="of the rows; the rest is pruned"
    )
    keep_by: PruningRule = "contribution"
    max_size: str | int | None = Field(
        None, description="such as 20MB: package the model that is most accurate on dev below it"
    )
    min_accuracy: str | float | None = Field(
        None, description="package the smallest model with it on dev: 0.93, or 0.99x of all rows'"
    )
    calibrate: bool = Field(True, description="fit a temperature on dev")
    precision: float = Field(
        0.9, gt=0, lt=1, description="that answers above the model's own thresholds shall have"
    )

    @field_validator("max_size")
    @classmethod
    def _is_size(cls, size: str | int | None) -> str | int | None:
        if size is not None:
            parse_size(size)
        return size

    @field_validator("min_accuracy")
    @classmethod
    def _is_accuracy(cls, accuracy: str | float | None) -> str | float | None:
        if accuracy is not None:
            AccuracyFloor.parse(accuracy)
        return accuracy

    @model_validator(mode="after")
    def _share_or_limits(self) -> PackageConfig:
        self.compression()
        return self

    def compression(self) -> Compression:
        """Return what is asked for."""
        limits = Limits(
            None if self.max_size is None else parse_size(self.max_size),
            None if self.min_accuracy is None else AccuracyFloor.parse(self.min_accuracy),
        )
        return Compression(self.dtype, self.width, self.keep_share, self.keep_by, limits)


def jobs(
    config: PackageConfig,
    *,
    students: Sequence[Made],
    vocabulary: Made,
    splits: Mapping[str, Made],
    corpus: Sequence[TextShard],
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
            "corpus": tuple(shard.input for shard in reference_shards(corpus)),
        },
    )
    return [Job(recipe, runtime={"threads": threads})]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Make and check the model directory."""
    del progress
    settings = dict(job.recipe.config)
    max_ngrams = int(settings.pop("max_ngrams"))  # type: ignore[arg-type]
    config = PackageConfig.model_validate(settings)
    threads: int = job.runtime["threads"]
    dev = read_shard(store, single_input(job.recipe, "dev"))
    if dev.labels is None:
        raise DataError("dev has no labels")
    student = read_student(open_input(store, single_input(job.recipe, "student")).path(FILE))
    vocabulary = read_vocabulary(open_input(store, single_input(job.recipe, "vocabulary")))
    log = StepLog(dev.texts, dev.labels, threads=threads)
    log.start(student.predict(vocabulary.bags(check_texts(dev.texts), max_ngrams=max_ngrams)))
    folded = fold(
        student.weights(),
        vocabulary,
        labels=dev.label_names,
        activation=student.shape.activation,
        pooling=student.shape.pooling,
        max_ngrams=max_ngrams,
    )
    _refuse_bad_fold(log.measure("fold", folded, vocabulary).max_logit_difference)
    del student
    basis = Basis.of(folded, row_use(vocabulary))
    held_out = HeldOut(folded, dev.texts, dev.labels, basis=basis, threads=threads)
    rankings = Rankings(folded, vocabulary)
    asked = config.compression()
    provenance = _provenance(job)
    counted_least = int(vocabulary.counts.min())
    with writer.scratch() as scratch:
        model, vocabulary, tried = compress(
            folded,
            vocabulary,
            asked,
            rankings=rankings,
            basis=basis,
            held_out=held_out,
            log=log,
            measure=lambda model, kept: _save(scratch, model, kept, training=provenance) + _ROOM,
        )
    if config.calibrate:
        model = calibrate(model, log.logits, dev.labels)
    size = _save(
        writer.path("config.json").parent,
        model,
        vocabulary,
        training=provenance,
        thresholds=fit_thresholds(
            dev.labels,
            softmax(log.logits, model.temperature).astype(np.float32),
            model.labels,
            precision=config.precision,
        ),
        reference=measure_reference(
            Classifier(model, threads=threads),
            reference_texts(store, job.recipe.inputs["corpus"]),
            counted=Counted(vocabulary.counts, counted_least),
        ).to_json(),
    )
    if asked.limits.max_bytes is not None and size > asked.limits.max_bytes:
        raise DataError(f"the model takes {size:,} bytes, which is above [package] max_size")
    writer.statistics.update(
        steps=[step.to_json() for step in log.steps],
        curve=pruning_curve(held_out, rankings),
        tried=[form.to_json() for form in tried],
        temperature=model.temperature,
        rows=len(vocabulary),
        hidden=model.hidden,
        width=model.width,
        dtype=model.table_type,
        labels=list(model.labels),
    )


STAGE = Stage(KIND, VERSION, build)


def _save(directory: Path, model: FoldedModel, vocabulary: Vocabulary, **notes: Any) -> int:  # noqa: ANN401
    """Write the model; returns how many bytes its directory has."""
    save_model(directory, model, vocabulary, **notes)
    return saved_bytes(directory)


def _refuse_bad_fold(difference: float | None) -> None:
    if difference is None or not difference <= _FOLD_TOLERANCE:
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
