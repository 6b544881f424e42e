"""How many rows, bytes and seconds a stage will take, before it is run.

Sizes follow from the configuration and from what texts are usually like; they are meant to be right
within a factor of two, which is enough to see that a table will not fit the memory. Times are what
earlier runs in the same store took for as many rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.student_needs import check_students, rivals_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.config import DistillConfig
    from storage import ArtifactStore

_TEXT_BYTES = 60
_NGRAMS_A_TEXT = 40
_COUNT_BYTES = 7
_DISTINCT_SHARE = 0.5
_TEACHER_BYTES = 4 * 125_000_000


@dataclass(slots=True)
class Rows:
    """Rows as far as they are known."""

    train: int | None = None
    dev: int | None = None
    test: int | None = None
    corpus: int | None = None
    classes: int = 2
    shards: int | None = None
    vocabulary: int | None = None

    def all(self) -> int | None:
        """Return the rows of the corpus and of all splits."""
        return _plus(self.corpus, self.labelled() or 0)

    def labelled(self) -> int | None:
        """Return the rows of all splits."""
        if self.train is None or self.dev is None or self.test is None:
            return None
        return self.train + self.dev + self.test


@dataclass(frozen=True, slots=True)
class Need:
    """What a stage takes: rows that pass through it, bytes on disk, bytes of memory, seconds."""

    rows: int | None = None
    disk: int | None = None
    memory: int | None = None
    seconds: float | None = None


def needs(stage: str, config: DistillConfig, rows: Rows, store: ArtifactStore) -> Need:
    """Estimate what all of a stage's artifacts will take."""
    known = _ESTIMATES[stage](config, rows)
    return Need(known.rows, known.disk, known.memory, _seconds(stage, known.rows, store))


def _dataset(config: DistillConfig, rows: Rows) -> Need:
    del config
    count = rows.labelled()
    return Need(count, _times(count, _TEXT_BYTES), _times(count, 4 * _TEXT_BYTES))


def _corpus(config: DistillConfig, rows: Rows) -> Need:
    shard = config.corpus.rows_per_shard
    memory = 64 * 24 * 8192 + shard * 4 * _TEXT_BYTES
    return Need(rows.corpus, _times(rows.corpus, _TEXT_BYTES), memory)


def _ngrams(config: DistillConfig, rows: Rows) -> Need:
    counted = _plus(rows.corpus, rows.train or 0)
    distinct = int(_NGRAMS_A_TEXT * _DISTINCT_SHARE * _COUNT_BYTES)
    return Need(counted, _times(counted, distinct), config.run.memory_of_a_task())


def _vocabulary(config: DistillConfig, rows: Rows) -> Need:
    counted = _plus(rows.corpus, rows.train or 0)
    size = config.vocabulary.size
    return Need(counted, size * 32, config.run.memory_of_the_only_task())


def _features(config: DistillConfig, rows: Rows) -> Need:
    kept = min(_NGRAMS_A_TEXT, config.features.max_ngrams)
    return Need(rows.all(), _times(rows.all(), 16 + kept * 4), config.vocabulary.size * 80)


def _teacher(config: DistillConfig, rows: Rows) -> Need:
    del config
    return Need(_plus(rows.train, rows.dev or 0), _TEACHER_BYTES, 4 * _TEACHER_BYTES)


def _logits(config: DistillConfig, rows: Rows) -> Need:
    width = 4 if config.logits.dtype == "float32" else 2
    memory = (_TEACHER_BYTES if config.teacher else 0) + config.corpus.rows_per_shard * 200
    return Need(rows.all(), _times(rows.all(), 8 + width * rows.classes), memory)


def _baseline(config: DistillConfig, rows: Rows) -> Need:
    del config
    count = rows.labelled()
    return Need(count, _times(count, 8), _times(count, _NGRAMS_A_TEXT * 60))


def _table(config: DistillConfig) -> int:
    return 4 * config.vocabulary.size * config.student.width


def _student(config: DistillConfig, rows: Rows) -> Need:
    runs = len(config.student.seeds) * (1 + len(config.student.baselines))
    examples = _plus(rows.corpus, rows.train or 0)
    memory = check_students(
        config, rows=rows.vocabulary, examples=examples or 0, classes=rows.classes
    )
    rivals = rivals_memory(config, examples=examples or 0, classes=rows.classes)
    disk = runs * memory.table + len(config.student.seeds) * sum(one.table for one in rivals)
    # While one trains: its best weights, and three checkpoints at most while a new one takes over.
    disk += memory.table + 3 * (memory.table + memory.moments)
    return Need(examples, disk, max(one.total for one in (memory, *rivals)))


def _finetune(config: DistillConfig, rows: Rows) -> Need:
    runs = len(config.student.seeds)
    return Need(rows.train, runs * _table(config), 3 * _table(config))


def _package(config: DistillConfig, rows: Rows) -> Need:
    width = {"float32": 4, "float16": 2, "int8": 1}[config.package.dtype or "float32"]
    kept = round(config.vocabulary.size * (config.package.keep_share or 1.0))
    return Need(rows.dev, kept * (width * config.student.hidden + 40), 3 * _table(config))


def _evaluation(config: DistillConfig, rows: Rows) -> Need:
    return Need(rows.test, 1 << 20, 3 * _table(config))


def _report(config: DistillConfig, rows: Rows) -> Need:
    del config
    return Need(rows.test, 1 << 20, 1 << 28)


_ESTIMATES: dict[str, Callable[[DistillConfig, Rows], Need]] = {
    "dataset": _dataset,
    "corpus": _corpus,
    "ngrams": _ngrams,
    "vocabulary": _vocabulary,
    "features": _features,
    "teacher": _teacher,
    "logits": _logits,
    "baseline": _baseline,
    "student": _student,
    "finetune": _finetune,
    "package": _package,
    "evaluation": _evaluation,
    "report": _report,
}


def _seconds(stage: str, rows: int | None, store: ArtifactStore) -> float | None:
    """Project from the work that artifacts of this kind took in this store, by their rows."""
    if rows is None:
        return None
    manifests = store.artifacts(stage)
    if stage == "corpus":
        done = sum(int(str(manifest.statistics["rows"])) for manifest in manifests)
    else:
        done = sum(file.rows or 0 for manifest in manifests for file in manifest.files)
    spent = sum(manifest.seconds for manifest in manifests)
    return spent * rows / done if done else None


def _times(count: int | None, factor: int) -> int | None:
    return None if count is None else count * factor


def _plus(count: int | None, more: int) -> int | None:
    return None if count is None else count + more
