"""The teacher's logits of a shard, by row id: computed here, or taken from a file made elsewhere.

A pass over a shard keeps a journal, so that one that was killed goes on where it was. Rows that the
teacher fails on go to a quarantine table with the reason, and too many of them stop the run. A file
made elsewhere (``[logits] path``: an LLM behind an API, an earlier run) is matched by text; rows it
does not cover are left out, and the share it covers is stated.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from sparsedistill.errors import DataError
from sparsedistill.metrics import accuracy, softmax
from sparsedistill.teacher.devices import device_in_turn, teacher_devices
from sparsedistill.teacher.journal import Journal
from sparsedistill.teacher.labelling import Engine, LabellingOptions, Teacher
from storage import ArtifactStore, ArtifactWriter, Recipe, expand_sources, write_table
from tasks.given_logits import GivenLogits, read_given_logits
from tasks.logit_file import FILE, aligned_logits, write_logits
from tasks.shards import Texts, TextShard, open_input, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input
from tasks.teacher import MODEL_DIRECTORY, READING
from tasks.work import waiting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sparsedistill.teacher.labelling import Labelled
    from sparsedistill.teacher.session import Precision
    from storage import Artifact, Input

KIND, VERSION = "logits", 2
QUARANTINE_FILE = "quarantine.parquet"
CONFIDENCE_BINS = 20
_JOURNAL = "labelled.journal"
_ENOUGH_ROWS = 30
_OTHER_ENGINE = 0.01


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
    top_k: int | None = Field(
        None, ge=1, description="of each row only the best logits and the weight of the rest"
    )
    engine: Engine = Field("torch", description="openvino: compiled for the CPU, fast in bfloat16")
    token_budget: int | None = Field(
        None, ge=64, description="tokens in a batch; what the device has best where not given"
    )
    max_quarantined_share: float = Field(
        0.001, ge=0, le=1, description="more rows of a shard that fail stop the run; one may"
    )
    alignment_tolerance: float = Field(
        0.002, ge=0, description="by how much stored logits of dev may miss the teacher's accuracy"
    )

    def tolerance(self, precision: Precision | None) -> float:
        """Return what the gate lets pass of logits that were computed in a precision.

        The teacher was measured by torch; another engine rounds bfloat16 otherwise, which moves an
        answer in some hundred. Rows or labels that are out of step move far more.
        """
        rounds = self.engine != "torch" and precision == "bfloat16"
        return max(self.alignment_tolerance, _OTHER_ENGINE if rounds else 0.0)


def jobs(
    config: LogitsConfig,
    shards: Sequence[TextShard],
    teacher: Made,
    *,
    threads: int,
    devices: Sequence[str] | None = None,
) -> list[Job]:
    """Return one job a shard, labelled by the teacher."""
    statistics = teacher.statistics
    keeps = statistics["float16_finite"] and (
        statistics["float16_accuracy"] == statistics["dev_accuracy"]
    )
    dtype = config.dtype if config.dtype != "auto" else ("float16" if keeps else "float32")
    runtime = {
        "threads": threads,
        "devices": None if devices is None else list(devices),
        "max_quarantined_share": config.max_quarantined_share,
    }
    return [
        Job(
            Recipe(
                KIND,
                VERSION,
                config={
                    **{name: statistics[name] for name in ("labels", *READING)},
                    "dtype": dtype,
                    "top_k": config.top_k,
                    "engine": config.engine,
                    "token_budget": config.token_budget,
                },
                inputs={"texts": (shard.input,), "teacher": (teacher.as_input(),)},
            ),
            runtime=runtime,
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
                    "top_k": config.top_k,
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
    config: Mapping[str, Any] = job.recipe.config
    texts = read_shard(store, single_input(job.recipe, "texts"))
    reasons: dict[int, str] = {}
    if "given" in config:
        given = _given(
            tuple(job.runtime["urls"]),
            tuple(config["given"]),
            tuple(config["labels"]),
            tuple(config["given_labels"]) if config["given_labels"] else None,
        )
        found = given.lookup(texts.texts)
        there, whose = found >= 0, "given"
        values = given.logits[found[there]]
    else:
        labelled = _ask_teacher(job, store, texts, progress)
        reasons, whose = labelled.failures, single_input(job.recipe, "teacher").digest
        _check_failures(reasons, texts, share=float(job.runtime["max_quarantined_share"]))
        there = np.ones(len(texts), bool)
        there[list(reasons)] = False
        values = labelled.logits[there]
    write_logits(
        writer.path(FILE),
        texts.ids[there],
        values,
        dtype=config["dtype"],
        labels=config["labels"],
        whose=whose,
        top_k=config["top_k"],
    )
    _write_quarantine(writer, texts, reasons)
    writer.set_rows(FILE, len(values))
    writer.statistics.update(
        rows=len(values),
        covered=len(values) / max(len(texts), 1),
        labels=config["labels"],
        predicted=np.bincount(values.argmax(axis=1), minlength=len(config["labels"])).tolist(),
        confidence=_confidence(values),
        quarantined=dict(sorted(Counter(reasons.values()).items())),
    )


STAGE = Stage(KIND, VERSION, build)


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


def _ask_teacher(job: Job, store: ArtifactStore, texts: Texts, progress: Progress) -> Labelled:
    config: Mapping[str, Any] = job.recipe.config
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done / max(len(texts), 1))

    devices = teacher_devices(job.runtime["devices"])
    with waiting("device", device_in_turn(devices)) as device:
        options = LabellingOptions(
            **{name: config[name] for name in READING},
            token_budget=config["token_budget"],
            threads=job.runtime["threads"],
            device=device,
            engine=config["engine"],
        )
        teacher = _teacher(
            store.url, single_input(job.recipe, "teacher"), tuple(config["labels"]), options
        )
        path = store.workspace(job.recipe) / _JOURNAL
        # Another budget cuts other batches, so what was kept of them fits no more.
        fingerprint = f"{job.recipe.key} {teacher.token_budget}"
        with Journal(path, fingerprint=fingerprint) as journal:
            return teacher.label(texts.texts, journal=journal, progress=advance)


_loaded: dict[str | None, tuple[tuple[object, ...], Teacher]] = {}


def _teacher(
    store_url: str, reference: Input, labels: tuple[str, ...], options: LabellingOptions
) -> Teacher:
    """Return the teacher, loaded once a device for all shards that this process labels.

    Another one takes its place: a worker that lives for weeks holds no teachers of runs long ended.
    Only who has the device may ask.
    """
    key = (store_url, reference, labels, options)
    if options.device in _loaded and _loaded[options.device][0] == key:
        return _loaded[options.device][1]
    _loaded.pop(options.device, None)  # before the other is loaded, which may need its memory
    directory = open_input(ArtifactStore(store_url), reference).directory() / MODEL_DIRECTORY
    teacher = Teacher(directory, labels=labels, options=options)
    _loaded[options.device] = key, teacher
    return teacher


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


def _check_failures(reasons: Mapping[int, str], texts: Texts, *, share: float) -> None:
    """Refuse a shard of which the teacher fails on too many rows.

    Raises:
        DataError: They are more than this share; the message names the first of them.
    """
    if len(reasons) <= (max(1, share * len(texts)) if share else 0):
        return
    row = min(reasons)
    raise DataError(
        f"the teacher fails on {len(reasons)} of the {len(texts)} rows, more than [logits] "
        f"max_quarantined_share = {share:g} lets pass; first row {row} (id {int(texts.ids[row])}): "
        f"{reasons[row]}: {texts.texts[row][:80]!r}. Mend the teacher or the text, or raise the "
        "share to go on without such rows"
    )


def _write_quarantine(writer: ArtifactWriter, texts: Texts, reasons: Mapping[int, str]) -> None:
    rows = sorted(reasons)
    table = pa.table(
        {
            "id": pa.array(texts.ids[rows]),
            "row": pa.array(rows, pa.int64()),
            "reason": pa.array([reasons[row] for row in rows], pa.string()),
        }
    )
    write_table(writer.path(QUARANTINE_FILE), table)


def _confidence(values: npt.NDArray[np.float32]) -> list[int]:
    """Return how many rows have their greatest probability in each of 20 equal bins of 0 to 1."""
    greatest = softmax(values).max(axis=1, initial=0.0)
    counts, _ = np.histogram(greatest, bins=CONFIDENCE_BINS, range=(0.0, 1.0))
    return [int(count) for count in counts]
