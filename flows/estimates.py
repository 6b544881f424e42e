"""How many rows, bytes and seconds a stage will take, before it is run.

Sizes follow from the configuration, from the rows that there are and from how long the texts are;
they are right within a factor of two on the tasks they were compared with (TREC, SST-2, IMDB),
which is enough to see that a table will not fit the memory, or a run the disk. Times are what
earlier runs in the same store took for as many rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.student_needs import check_students, rivals_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flows.config import DistillConfig
    from storage import ArtifactStore
    from tasks.shards import TextShard
    from tasks.stage import Made

# Stored, a text of average length takes so many bytes, and what is made of it so many times that.
_TEXT_BYTES = 60.0
_NGRAMS_OF_TEXT = 4.3
_FEATURES_OF_TEXT = 1.7
_NGRAMS_A_TEXT = 40
# Of every artifact, however small: its manifest, and what its files are but for their rows.
_ARTIFACT_BYTES = 4096
_TEACHER_BYTES = 4 * 125_000_000
_SHARDS_TO_MEASURE = 8
_WEIGHTS = (".safetensors", ".bin")


@dataclass(slots=True)
class Rows:
    """Rows as far as they are known.

    Attributes:
        train: Rows of each split, like dev and test.
        corpus: Of all its shards.
        classes: Number of labels.
        shards: Of the corpus.
        vocabulary: N-grams chosen.
        text_bytes: A row takes in a shard of texts, compressed.
    """

    train: int | None = None
    dev: int | None = None
    test: int | None = None
    corpus: int | None = None
    classes: int = 2
    shards: int | None = None
    vocabulary: int | None = None
    text_bytes: float = _TEXT_BYTES

    def all(self) -> int | None:
        """Return the rows of the corpus and of all splits."""
        return _plus(self.corpus, self.labelled() or 0)

    def labelled(self) -> int | None:
        """Return the rows of all splits."""
        if self.train is None or self.dev is None or self.test is None:
            return None
        return self.train + self.dev + self.test

    def learn(self, stage: str, made: Sequence[Made]) -> None:
        """Take note of the rows that the artifacts of a stage tell of."""
        if stage == "dataset":
            self.train, self.dev, self.test = (_number(one, "rows") for one in made)
            self.classes = len(made[0].statistics["labels"])
        elif stage == "corpus":
            self.corpus = _number(made[0], "rows")
            self.shards = len(made[0].statistics["shards"])
        elif stage == "vocabulary":
            self.vocabulary = _number(made[0], "rows")

    def measure(self, store: ArtifactStore, shards: Sequence[TextShard]) -> None:
        """Take note of how long texts are, by a few shards that are stored."""
        step = max(1, len(shards) // _SHARDS_TO_MEASURE)
        some = [(shard.input.kind, shard.input.key) for shard in shards[::step]]
        found = [one.manifest for one in store.get_all(some)]
        rows = sum(file.rows or 0 for manifest in found for file in manifest.files)
        stored = sum(max(manifest.size - _ARTIFACT_BYTES // 4, 0) for manifest in found)
        if rows:
            self.text_bytes = max(stored / rows, 1.0)


@dataclass(frozen=True, slots=True)
class Need:
    """What a stage takes.

    Attributes:
        rows: That pass through it.
        disk: Bytes, with its checkpoints while it is under way.
        memory: Bytes.
        seconds: Of work.
        least: Bytes on disk that it takes for certain.
    """

    rows: int | None = None
    disk: int | None = None
    memory: int | None = None
    seconds: float | None = None
    least: int | None = None


def needs(stage: str, config: DistillConfig, rows: Rows, store: ArtifactStore) -> Need:
    """Estimate what all of a stage's artifacts will take."""
    known = sizes(stage, config, rows)
    seconds = _seconds(stage, known.rows, store)
    return Need(known.rows, known.disk, known.memory, seconds, known.least)


def sizes(stage: str, config: DistillConfig, rows: Rows) -> Need:
    """Estimate it without the seconds, for which earlier runs are looked at."""
    return _ESTIMATES[stage](config, rows)


def _of_texts(
    count: int | None, factor: float, memory: int | None, *, artifacts: int | None = None
) -> Need:
    """Return the need of a stage whose bytes follow from a guess: half of it is certain."""
    if count is None:
        return Need(None, None, memory)
    texts = round(count * factor)
    return Need(count, texts + (artifacts or 1) * _ARTIFACT_BYTES, memory, least=texts // 2)


def _dataset(config: DistillConfig, rows: Rows) -> Need:
    del config
    count = rows.labelled()
    return _of_texts(count, rows.text_bytes, _times(count, 4 * _TEXT_BYTES), artifacts=3)


def _corpus(config: DistillConfig, rows: Rows) -> Need:
    shard = config.corpus.rows_per_shard
    memory = 64 * 24 * 8192 + shard * 4 * int(_TEXT_BYTES)
    shards = None if rows.corpus is None else -(-rows.corpus // shard)
    return _of_texts(rows.corpus, rows.text_bytes, memory, artifacts=shards)


def _ngrams(config: DistillConfig, rows: Rows) -> Need:
    counted = _plus(rows.corpus, rows.train or 0)
    return _of_texts(
        counted,
        _NGRAMS_OF_TEXT * rows.text_bytes,
        config.run.memory_of_a_task(),
        artifacts=_plus(rows.shards, 1),
    )


def _vocabulary(config: DistillConfig, rows: Rows) -> Need:
    counted = _plus(rows.corpus, rows.train or 0)
    disk = (rows.vocabulary or config.vocabulary.size) * 32
    # There may be fewer n-grams than were asked for.
    return Need(counted, disk, config.run.memory_of_the_only_task(), least=0)


def _features(config: DistillConfig, rows: Rows) -> Need:
    of_text = min(_FEATURES_OF_TEXT * rows.text_bytes, 4 * config.features.max_ngrams)
    memory = config.vocabulary.size * 80
    return _of_texts(rows.all(), 16 + of_text, memory, artifacts=_plus(rows.shards, 3))


def _teacher(config: DistillConfig, rows: Rows) -> Need:
    known = _checkpoint_bytes(config)
    size = known or _TEACHER_BYTES
    fine_tuned = config.teacher is not None and config.teacher.finetune
    # While one is fine-tuned: two resume points of weights and two moments, and the best weights.
    disk = size * (8 if fine_tuned else 1)
    return Need(_plus(rows.train, rows.dev or 0), disk, 4 * size, least=known or 0)


def _checkpoint_bytes(config: DistillConfig) -> int | None:
    """Return how large a teacher's weights are, where they lie in a local directory."""
    if config.teacher is None:
        return None
    directory = Path(config.data or ".", config.teacher.checkpoint)
    if not directory.is_dir():
        return None
    return sum(path.stat().st_size for path in directory.iterdir() if path.suffix in _WEIGHTS)


def _logits(config: DistillConfig, rows: Rows) -> Need:
    width = 4 if config.logits.dtype == "float32" else 2
    memory = (_TEACHER_BYTES if config.teacher else 0) + config.corpus.rows_per_shard * 200
    count = rows.all()
    return _of_texts(count, 8 + width * rows.classes, memory, artifacts=_plus(rows.shards, 3))


def _baseline(config: DistillConfig, rows: Rows) -> Need:
    del config
    count = rows.labelled()
    return _of_texts(count, 2, _times(count, _NGRAMS_A_TEXT * 60))


def _table(config: DistillConfig, rows: Rows) -> int:
    return 4 * (rows.vocabulary or config.vocabulary.size) * config.student.width


def _student(config: DistillConfig, rows: Rows) -> Need:
    runs = len(config.student.seeds) * (1 + len(config.student.baselines))
    examples = _plus(rows.corpus, rows.train or 0)
    memory = check_students(
        config, rows=rows.vocabulary, examples=examples or 0, classes=rows.classes
    )
    rivals = rivals_memory(config, examples=examples or 0, classes=rows.classes)
    least = runs * memory.table + len(config.student.seeds) * sum(one.table for one in rivals)
    # While one trains: its best weights, and three checkpoints at most while a new one takes over.
    disk = least + memory.table + 3 * (memory.table + memory.moments)
    sure = runs * memory.table if rows.vocabulary is not None else 0
    return Need(examples, disk, max(one.total for one in (memory, *rivals)), least=sure)


def _finetune(config: DistillConfig, rows: Rows) -> Need:
    table = _table(config, rows)
    disk = len(config.student.seeds) * table
    return Need(rows.train, disk, 3 * table, least=_sure(disk, rows))


def _package(config: DistillConfig, rows: Rows) -> Need:
    width = {"float32": 4, "float16": 2, "int8": 1}[config.package.dtype or "float32"]
    kept = round((rows.vocabulary or config.vocabulary.size) * (config.package.keep_share or 1.0))
    disk = kept * (width * config.student.hidden + 40)
    return Need(rows.dev, disk, 3 * _table(config, rows), least=0)


def _evaluation(config: DistillConfig, rows: Rows) -> Need:
    return Need(rows.test, 1 << 16, 3 * _table(config, rows), least=0)


def _promotion(config: DistillConfig, rows: Rows) -> Need:
    return Need(_plus(rows.dev, rows.test or 0), 1 << 16, 3 * _table(config, rows), least=0)


def _report(config: DistillConfig, rows: Rows) -> Need:
    del config
    return Need(rows.test, 1 << 18, 1 << 28, least=0)


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
    "promotion": _promotion,
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


def _sure(disk: int, rows: Rows) -> int:
    """Return bytes that follow from the vocabulary, once it is known how large that is."""
    return disk if rows.vocabulary is not None else 0


def _number(made: Made, name: str) -> int:
    value: Any = made.statistics[name]
    return int(value)


def _times(count: int | None, factor: float) -> int | None:
    return None if count is None else round(count * factor)


def _plus(count: int | None, more: int) -> int | None:
    return None if count is None else count + more
