"""What the teacher takes on this machine, measured before a run: seconds a token, bytes a row.

Rows spread over the lengths that the texts have go through the teacher as labelling would send
them: ten to warm up, then a hundred, then four times as many while that is over in a moment, since
few rows do not fill the batches of a fast machine. Where ten rows take longer than
most people would wait, they are all.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dashboards import format as fmt
from flows.corpus_sample import spread
from sparsedistill.errors import TeacherError
from sparsedistill.teacher.checkpoint import (
    load_config,
    load_model,
    load_tokenizer,
    save_classifier,
)
from sparsedistill.teacher.devices import device_in_turn, teacher_devices
from sparsedistill.teacher.labelling import LabellingOptions, Teacher
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.identity import text_ids
from tasks.logit_file import write_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from flows.config import DistillConfig
    from sparsedistill.teacher.labelling import Labelled
    from tasks.teacher import TeacherConfig

    Logits = npt.NDArray[np.float32]

_ROWS_TO_WARM_UP = 10
_ROWS = (100, 400, 1600, 6400)
_ENOUGH_SECONDS = 1.5
_TOO_MANY_SECONDS = 10.0
# Tokens labelled in the time in which one is trained on: forward, backward, padding, the update.
TRAINING = 4


@dataclass(frozen=True, slots=True)
class TeacherCost:
    """What was measured.

    Attributes:
        devices: That the teacher may run on, first the one that was measured.
        at_once: How many of them a run would use at a time.
        rows: Of the corpus, that were labelled.
        seconds: That took, on one device.
        tokens_per_row: Of the corpus, as the teacher reads it.
        train_tokens_per_row: Of ``train``, as fine-tuning reads it.
        bytes_per_row: Of the logits on disk.
    """

    devices: tuple[str, ...]
    at_once: int
    rows: int
    seconds: float
    tokens_per_row: float
    train_tokens_per_row: float
    bytes_per_row: float

    @property
    def seconds_per_token(self) -> float:
        """Of labelling, on one device."""
        return self.seconds / (self.rows * self.tokens_per_row)

    def labelling(self, *, corpus: float, labelled: float) -> float:
        """Return about how many seconds so many rows of corpus and of splits take."""
        tokens = corpus * self.tokens_per_row + labelled * self.train_tokens_per_row
        return tokens * self.seconds_per_token / self.at_once

    def fine_tuning(self, config: TeacherConfig, *, train: int, dev: int) -> float:
        """Return about how many seconds making the teacher takes, its grid and seeds and all."""
        if not config.finetune:
            return dev * self.train_tokens_per_row * self.seconds_per_token
        trials = len(config.batch_sizes) * len(config.learning_rates) * len(config.seeds)
        rows = trials * config.epochs * (TRAINING * train + dev) + dev
        return rows * self.train_tokens_per_row * self.seconds_per_token

    def told(self) -> str:
        """Return what was measured, in words."""
        told = (
            f"The teacher, measured on {fmt.count(self.rows)} rows on {self.devices[0]}: about "
            f"{self.rows / self.seconds:,.0f} rows a second of {self.tokens_per_row:.0f} tokens, "
            f"{self.bytes_per_row:.0f} bytes of logits a row."
        )
        if self.at_once < len(self.devices):
            told += (
                f" There are {len(self.devices)} devices for it, but [run] workers is "
                f"{self.at_once}, and so many are used at a time."
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """Return the measure as plain JSON."""
        return {**asdict(self), "rows_per_second": self.rows / self.seconds}


def measure_teacher(
    config: DistillConfig,
    directory: Path,
    *,
    fine_tuned: bool,
    classes: int,
    texts: Sequence[str],
    train: Sequence[str],
) -> TeacherCost:
    """Label some rows as a run would, on a device that nobody else has meanwhile.

    Args:
        config: Of the run; it has a teacher.
        directory: Of the checkpoint.
        fine_tuned: Whether it has its head; another takes as long.
        classes: How many labels the task has.
        texts: Of the corpus, thousands if there are so many.
        train: Texts to be fine-tuned on.

    Raises:
        TeacherError: The checkpoint cannot be loaded, or fails on every row.
        ConfigError: The device has not what the configuration asks for.
    """
    devices = teacher_devices(config.run.teacher_devices)
    reading = config.teacher
    assert reading is not None  # noqa: S101 - the caller has seen to it
    with (
        tempfile.TemporaryDirectory(prefix="sparsedistill-") as scratch,
        device_in_turn(devices) as device,
    ):
        if not fine_tuned:
            directory = _with_a_head(directory, classes, Path(scratch))
        teacher = Teacher(
            directory,
            labels=list(load_config(directory).id2label.values()),
            options=LabellingOptions(
                max_length=reading.longest,
                long_texts=reading.long_texts,
                overlap=reading.overlap,
                token_budget=config.logits.token_budget,
                threads=config.run.threads,
                device=device,
                precision=reading.precision,
                engine=config.logits.engine,
            ),
        )
        rows, seconds, logits = _timed(teacher, sorted(texts, key=len))
        lengths = _Lengths(directory, reading)
        return TeacherCost(
            devices=(device, *(other for other in devices if other != device)),
            at_once=min(len(devices), config.run.workers),
            rows=len(rows),
            seconds=seconds,
            tokens_per_row=lengths.mean(rows, cut=reading.long_texts == "truncate"),
            train_tokens_per_row=lengths.mean(train, cut=True),
            bytes_per_row=_bytes_per_row(config, rows, logits, Path(scratch)),
        )


def local_checkpoint(name: str, revision: str | None) -> Path:
    """Return the directory of a checkpoint that is on this machine; nothing is fetched.

    Args:
        name: Directory, or name on the hub.
        revision: Commit on the hub; None for a directory.

    Raises:
        TeacherError: It is on the hub alone.
    """
    if revision is None:
        return Path(name)
    from huggingface_hub import try_to_load_from_cache

    for file in ("model.safetensors", "model.safetensors.index.json"):
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    raise TeacherError(f"{name} is not on this machine yet; a run fetches it")


def _with_a_head(checkpoint: Path, classes: int, scratch: Path) -> Path:
    model = load_model(checkpoint, num_labels=classes)
    save_classifier(load_tokenizer(checkpoint), model, scratch / "model")
    return scratch / "model"


def _timed(teacher: Teacher, by_length: Sequence[str]) -> tuple[list[str], float, Logits]:
    """Return the rows of the last pass, its seconds, and its logits [rows, classes]."""
    rows, seconds, labelled = _pass(teacher, by_length, _ROWS_TO_WARM_UP)
    if seconds < _TOO_MANY_SECONDS:
        for count in _ROWS:
            rows, seconds, labelled = _pass(teacher, by_length, count)
            if seconds > _ENOUGH_SECONDS or count >= len(by_length):
                break
    if len(labelled.failures) == len(rows):
        raise TeacherError(f"it fails on every row: {next(iter(labelled.failures.values()))}")
    return rows, seconds, labelled.logits


def _pass(
    teacher: Teacher, by_length: Sequence[str], count: int
) -> tuple[list[str], float, Labelled]:
    rows = spread(by_length, count)
    start = time.perf_counter()
    labelled = teacher.label(rows)
    return rows, time.perf_counter() - start, labelled


class _Lengths:
    """Counts tokens as the teacher reads them."""

    def __init__(self, directory: Path, config: TeacherConfig) -> None:
        self._tokenizer = load_tokenizer(directory)
        self._longest = min(config.longest, int(self._tokenizer.model_max_length))

    def mean(self, texts: Sequence[str], *, cut: bool) -> float:
        encoded = self._tokenizer(
            list(texts), truncation=cut, max_length=self._longest if cut else None
        )
        return float(np.mean([len(ids) for ids in encoded["input_ids"]]))


def _bytes_per_row(
    config: DistillConfig,
    rows: Sequence[str],
    logits: Logits,
    scratch: Path,
) -> float:
    """Return what a row of logits takes on disk, beside what a file takes without rows."""
    ids = text_ids(TextBuffer.from_strings(rows))
    fine = np.isfinite(logits).all(axis=1)
    sizes = []
    for kept in (fine, np.zeros_like(fine)):
        write_logits(
            scratch / "logits.parquet",
            ids[kept],
            logits[kept],
            dtype="float16" if config.logits.dtype == "auto" else config.logits.dtype,
            labels=[str(column) for column in range(logits.shape[1])],
            whose="",
            top_k=config.logits.top_k,
        )
        sizes.append((scratch / "logits.parquet").stat().st_size)
    return (sizes[0] - sizes[1]) / float(fine.sum())
