"""The teacher's logits of a shard, by row id: computed here, or taken from a file made elsewhere.

A file made elsewhere (``[logits] path``: an LLM behind an API, an earlier run) is matched by text;
rows it does not cover are left out, and the share it covers is stated. Either way a shard holds
``id`` and ``logits`` in the order of the task's labels, and says in its metadata which labels and
whose logits.
"""

from __future__ import annotations

import json
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from sparsedistill.errors import DataError
from sparsedistill.metrics import accuracy
from sparsedistill.teacher.labelling import LabellingOptions, Teacher
from storage import ArtifactStore, ArtifactWriter, Recipe, expand_sources, read_table, write_table
from tasks.given_logits import GivenLogits, read_given_logits
from tasks.shards import Texts, TextShard, open_input, positions, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input
from tasks.teacher import MODEL_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage import Artifact, Input

KIND, VERSION = "logits", 1
FILE = "logits.parquet"
_DTYPES = {"float16": pa.float16(), "float32": pa.float32()}
_ENOUGH_ROWS = 30
# One pass at a time in a process: a second would fight the first for the cores or the GPU.
_ONE_AT_A_TIME = threading.Lock()


class LogitsConfig(Table):
    """``[logits]``: how the teacher is run, or where logits made elsewhere are."""

    path: str | tuple[str, ...] | None = Field(
        None, description="Parquet of text and logits (or probabilities), instead of a teacher"
    )
    labels: tuple[str, ...] | None = Field(
        None, description="order of the columns in path, where its metadata has no label_names"
    )
    dtype: Literal["auto", "float16", "float32"] = Field(
        "auto", description="auto: float16 unless that changes the teacher's accuracy on dev"
    )
    token_budget: int = Field(4096, ge=64, description="padded tokens in a batch")
    alignment_tolerance: float = Field(
        0.002, ge=0, description="by how much stored logits of dev may miss the teacher's accuracy"
    )


def jobs(
    config: LogitsConfig, shards: Sequence[TextShard], teacher: Made, *, threads: int
) -> list[Job]:
    """Return one job a shard, labelled by the teacher."""
    statistics = teacher.statistics
    keeps = statistics["float16_finite"] and (
        statistics["float16_accuracy"] == statistics["dev_accuracy"]
    )
    dtype = config.dtype if config.dtype != "auto" else ("float16" if keeps else "float32")
    return [
        Job(
            Recipe(
                KIND,
                VERSION,
                config={
                    "labels": statistics["labels"],
                    "dtype": dtype,
                    "max_length": statistics["max_length"],
                    "token_budget": config.token_budget,
                    "precision": statistics["precision"],
                },
                inputs={"texts": (shard.input,), "teacher": (teacher.as_input(),)},
            ),
            runtime={"threads": threads},
            label=shard.name,
        )
        for shard in shards
    ]


def given_jobs(
    config: LogitsConfig, shards: Sequence[TextShard], labels: Sequence[str], *, base: str | None
) -> list[Job]:
    """Return one job a shard, its logits looked up in files made elsewhere.

    Raises:
        SourceError: ``[logits] path`` matches no file.
    """
    patterns = [config.path] if isinstance(config.path, str) else list(config.path or ())
    sources = expand_sources(patterns, base=base)
    columns = list(config.labels) if config.labels else None
    return [
        Job(
            Recipe(
                KIND,
                VERSION,
                config={
                    "labels": list(labels),
                    "dtype": "float16" if config.dtype == "auto" else config.dtype,
                    "given": [source.fingerprint for source in sources],
                    "given_labels": columns,
                },
                inputs={"texts": (shard.input,)},
            ),
            runtime={"urls": [source.url for source in sources]},
            label=shard.name,
        )
        for shard in shards
    ]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Write the logits of one shard."""
    texts = read_shard(store, single_input(job.recipe, "texts"))
    labels = [str(label) for label in job.recipe.config["labels"]]  # type: ignore[union-attr]
    if "given" in job.recipe.config:
        fingerprints: Any = job.recipe.config["given"]
        given = _given(
            tuple(job.runtime["urls"]),
            tuple(fingerprints),
            tuple(labels),
            _given_labels(job.recipe),
        )
        found = given.lookup(texts.texts)
        ids, values = texts.ids[found >= 0], given.logits[found[found >= 0]]
        whose = "given"
    else:
        ids, whose = texts.ids, single_input(job.recipe, "teacher").digest
        values = _ask_teacher(job, store, texts, labels, progress)
    table = _table(ids, values, dtype=str(job.recipe.config["dtype"]), labels=labels, whose=whose)
    write_table(writer.path(FILE), table)
    writer.set_rows(FILE, len(ids))
    writer.statistics.update(
        rows=len(ids),
        covered=len(ids) / max(len(texts), 1),
        labels=labels,
        predicted=np.bincount(values.argmax(axis=1), minlength=len(labels)).tolist(),
    )


STAGE = Stage(KIND, VERSION, build)


def read_logits(artifact: Artifact) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    """Return ids uint64 [rows] and logits float32 [rows, classes] of a shard."""
    table = read_table(artifact.path(FILE))
    column = table["logits"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0)
    width = column.type.list_size
    return table["id"].to_numpy(), column.flatten().to_numpy().astype(np.float32).reshape(-1, width)


def aligned_logits(artifact: Artifact, texts: Texts) -> npt.NDArray[np.float32]:
    """Return the logits of every row, float32 [rows, classes]; NaN where there are none."""
    ids, values = read_logits(artifact)
    where = positions(texts.ids, ids)
    out = np.full((len(texts), values.shape[1]), np.nan, np.float32)
    out[where >= 0] = values[where[where >= 0]]
    return out


def check_alignment(logits: Artifact, dev: Texts, *, expected: float, tolerance: float) -> None:
    """Refuse stored logits of ``dev`` that do not reproduce the teacher's accuracy there.

    It is the cheapest test there is that rows, labels and logits belong together.

    Raises:
        DataError: They differ by more than ``tolerance``.
    """
    assert dev.labels is not None  # noqa: S101 - a split of the dataset has labels
    found = accuracy(dev.labels, aligned_logits(logits, dev).argmax(axis=1))
    if abs(found - expected) > tolerance:
        raise DataError(
            f"the stored logits of dev are right for {found:.2%} of its rows, the teacher was for "
            f"{expected:.2%}: rows or labels are out of step. Remove logits/{logits.key} from the "
            "store and run again; if it stays so, the teacher's labels are not the data's"
        )


def check_given(logits: Artifact, dev: Texts) -> None:
    """Refuse given logits that know no more of ``dev`` than its commonest label does.

    Labels in a wrong order look like this. With few rows covered, nothing can be said.

    Raises:
        DataError: They are right no more often than the commonest label.
    """
    assert dev.labels is not None  # noqa: S101 - a split of the dataset has labels
    values = aligned_logits(logits, dev)
    covered = np.isfinite(values).all(axis=1)
    if covered.sum() < _ENOUGH_ROWS:
        return
    truth = dev.labels[covered]
    found = accuracy(truth, values[covered].argmax(axis=1))
    commonest = float(np.bincount(truth).max() / len(truth))
    if found <= commonest:
        raise DataError(
            f"the given logits are right for {found:.1%} of the {len(truth)} rows of dev that they "
            f"cover, its commonest label alone for {commonest:.1%}: check the order of [logits] "
            "labels, or of label_names in the file"
        )


def _ask_teacher(
    job: Job, store: ArtifactStore, texts: Texts, labels: list[str], progress: Progress
) -> npt.NDArray[np.float32]:
    config = job.recipe.config
    options = LabellingOptions(
        max_length=int(config["max_length"]),  # type: ignore[arg-type]
        token_budget=int(config["token_budget"]),  # type: ignore[arg-type]
        threads=job.runtime["threads"],
        precision=config["precision"],  # type: ignore[arg-type]
    )
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done / max(len(texts), 1))

    with _ONE_AT_A_TIME:
        teacher = _teacher(store.url, single_input(job.recipe, "teacher"), tuple(labels), options)
        return teacher.logits(list(texts.texts), progress=advance)


@lru_cache(maxsize=1)
def _teacher(
    store_url: str, reference: Input, labels: tuple[str, ...], options: LabellingOptions
) -> Teacher:
    """Return the teacher, loaded once for all shards that this process labels."""
    directory = open_input(ArtifactStore(store_url), reference).directory() / MODEL_DIRECTORY
    return Teacher(directory, labels=labels, options=options)


@lru_cache(maxsize=1)
def _given(
    urls: tuple[str, ...],
    fingerprints: tuple[str, ...],
    labels: tuple[str, ...],
    given_labels: tuple[str, ...] | None,
) -> GivenLogits:
    """Return what the files hold, read once; a file that changed is read again."""
    del fingerprints
    return read_given_logits(urls, labels=labels, given_labels=given_labels)


def _given_labels(recipe: Recipe) -> tuple[str, ...] | None:
    names: Any = recipe.config["given_labels"]
    return tuple(names) if names else None


def _table(
    ids: npt.NDArray[np.uint64],
    values: npt.NDArray[np.float32],
    *,
    dtype: str,
    labels: list[str],
    whose: str,
) -> pa.Table:
    with np.errstate(over="ignore"):
        stored = values.astype(dtype)
    if not np.isfinite(stored).all():
        row = int(np.flatnonzero(~np.isfinite(stored).all(axis=1))[0])
        raise DataError(
            f"the logits of row {row} (id {int(ids[row])}) are not finite as {dtype}: "
            f"{values[row].tolist()}; set [logits] dtype = 'float32' if they are only large"
        )
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(stored.reshape(-1), _DTYPES[dtype]), len(labels)
    )
    table = pa.table({"id": pa.array(ids), "logits": column})
    return table.replace_schema_metadata({"label_names": json.dumps(labels), "teacher": whose})
