"""The unlabelled corpus: files of raw text become shards of ``id, text``, exact duplicates dropped.

It is read twice. The scan takes every row's digest and decides which rows stay; then it is known
what every shard will hold, and a shard that the store has already is not written again. A shard is
named by its content, so what later stages made of it stays good when the corpus grows.

Shards hold a fixed number of rows. A file that does not fit whole into the shard in hand starts a
new one: rows appended to a file, or a file more, change only the last shard of that file's run.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparsedistill.errors import DataError
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.deduplication import Deduplicator, Kept
from sparsedistill.text.identity import text_digests, text_ids
from sparsedistill.text.likeness import likeness_digests
from storage import (
    ArtifactStore,
    ArtifactWriter,
    Input,
    Recipe,
    canonical_json,
    expand_sources,
    format_of,
    read_texts,
    write_table,
)
from tasks.dataset import DatasetConfig, read_splits
from tasks.shards import TEXTS_FILE, TextShard, text_table
from tasks.stage import Job, Made, Progress, Stage, Table, tool_version
from tasks.work import note_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from storage import Artifact, BadRow, Source

KIND, VERSION = "corpus", 2
SHARD_KIND, SHARD_VERSION = "corpus_shard", 1
QUARANTINE_FILE, SCAN_FILE = "quarantine.jsonl", "corpus.json"
_QUARANTINE_ROWS = 10_000
_REASONS = ("empty", "bad", "duplicate", "held_out")
_BLOCK = 1 << 20


class CorpusConfig(Table):
    """``[corpus]``: where the raw text is, and how it is cut."""

    sources: tuple[str, ...] = Field(
        min_length=1,
        description="files, directories, globs or URLs (.txt .jsonl .csv .tsv .parquet)",
    )
    text_column: str = Field("text", description="of .jsonl, .csv, .tsv and .parquet")
    rows_per_shard: int = Field(100_000, ge=1)
    max_rows: int | None = Field(None, ge=1, description="stop reading after so many rows")
    split_sentences: bool = Field(False, description="cut every row into its sentences first")
    max_row_bytes: int = Field(1 << 20, ge=64, description="a longer row is a bad row")
    max_bad_share: float = Field(
        0.01, ge=0, le=1, description="more bad rows than this stop the run"
    )
    near_duplicates: Literal["keep", "drop"] = Field(
        "keep",
        description="drop: of rows that differ in case, signs and digits alone the first stays",
    )
    expected_rows: int | None = Field(None, description="for plans over sources out of reach")


@dataclass(slots=True)
class Scan:
    """What a look at all sources found.

    Attributes:
        read: Rows read, empty and bad ones among them.
        dropped: Rows dropped, by reason: empty, bad, duplicate, held_out, and near_duplicate where
            these are dropped.
        rows_per_source: Candidate rows (neither empty nor bad) of every source.
        shards: Content digest and rows of every shard, in order.
        bad: The first bad rows.
    """

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rows_per_source: list[int] = field(default_factory=list)
    shards: list[tuple[str, int]] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)

    def statistics(self) -> dict[str, Any]:
        """Return what the manifest says of the corpus, the list of its shards first."""
        return {
            "shards": [{"content": content, "rows": rows} for content, rows in self.shards],
            "rows": sum(rows for _, rows in self.shards),
            "read": self.read,
            "dropped": {
                **{reason: self.dropped[reason] for reason in _REASONS},
                # So that a corpus that keeps them has the bytes it always had.
                **{r: n for r, n in self.dropped.items() if r not in _REASONS},
            },
        }


def jobs(
    config: CorpusConfig, dataset: DatasetConfig, *, base: str | None, held_out: Sequence[Made]
) -> list[Job]:
    """Return the one job of the corpus.

    Args:
        config: The table ``[corpus]``.
        dataset: Where the labelled data is.
        base: Directory or URL that relative names are under.
        held_out: ``dev`` and ``test``, whose texts the corpus must not hold.

    Raises:
        SourceError: A source matches nothing.
    """
    sources = expand_sources(config.sources, base=base)
    unnamed = {"sources", "expected_rows"}
    if config.near_duplicates == "keep":
        unnamed.add("near_duplicates")  # as corpora were named before there was a choice
    recipe = Recipe(
        KIND,
        VERSION,
        config={
            **config.model_dump(mode="json", exclude=unnamed),
            "sources": _fingerprints(sources),
        },
        inputs={"held_out": tuple(made.as_input() for made in held_out)},
    )
    runtime = {
        "config": config.model_dump(mode="json"),
        "dataset": dataset.model_dump(mode="json"),
        "base": base,
    }
    return [Job(recipe, runtime)]


def shards(corpus: Made) -> list[TextShard]:
    """Return the shards of a corpus that is made, or scanned for a plan."""
    found: list[TextShard] = []
    for number, shard in enumerate(corpus.statistics["shards"]):
        recipe = shard_recipe(shard["content"])
        reference = Input(SHARD_KIND, recipe.key, shard["content"])
        found.append(TextShard(f"shard {number}", reference, shard["rows"]))
    return found


def shard_recipe(content: str) -> Recipe:
    """Return the recipe of the shard with that content digest."""
    return Recipe(SHARD_KIND, SHARD_VERSION, config={}, content=content)


def preview(job: Job) -> dict[str, Any]:
    """Return the statistics that the corpus will have, from a scan that writes nothing."""
    with tempfile.TemporaryDirectory(prefix="sparsedistill-") as scratch:
        scan, _ = scan_sources(job, Path(scratch))
    return scan.statistics()


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Scan the sources, write the shards that are new, and list them all."""
    scratch = store.workspace(job.recipe)
    scan, kept = scan_sources(job, scratch, lambda share: progress(share / 2))
    _write_shards(job, store, scan, kept, lambda share: progress(0.5 + share / 2))
    with writer.path(QUARANTINE_FILE).open("wb") as file:
        file.writelines(canonical_json(asdict(row)) + b"\n" for row in scan.bad)
    writer.set_rows(QUARANTINE_FILE, len(scan.bad))
    writer.path(SCAN_FILE).write_bytes(canonical_json(scan.statistics()))
    writer.statistics.update(scan.statistics())


def complete(corpus: Artifact, store: ArtifactStore) -> bool:
    """Return whether every shard of a corpus is there; one may have been damaged or removed."""
    listed: Any = corpus.statistics["shards"]
    found = store.find_all([shard_recipe(shard["content"]) for shard in listed])
    return all(shard is not None for shard in found)


STAGE = Stage(KIND, VERSION, build, complete)


def scan_sources(job: Job, scratch: Path, progress: Progress = lambda _: None) -> tuple[Scan, Kept]:
    """Read all sources once and decide which rows are kept and what every shard holds.

    Raises:
        SourceError: A source cannot be read at all.
        DataError: Nothing is left, or more rows are bad than ``max_bad_share`` allows.
    """
    config = CorpusConfig.model_validate(job.runtime["config"])
    sources = expand_sources(config.sources, base=job.runtime["base"])
    if _fingerprints(sources) != job.recipe.config["sources"]:
        raise DataError("a source of the corpus changed since the run began; run again")
    scan = Scan()
    with ExitStack() as open_files:
        rows = open_files.enter_context(Deduplicator(scratch))
        alike: Deduplicator | None = None
        if config.near_duplicates == "drop":
            (scratch / "alike").mkdir(exist_ok=True)
            alike = open_files.enter_context(Deduplicator(scratch / "alike"))
        for number, source in enumerate(sources):
            before = rows.rows
            note_bytes(read=source.bytes or 0)
            for texts in candidates(source, config, scan):
                rows.add(text_digests(TextBuffer.from_strings(texts)))
                if alike is not None:
                    alike.add(likeness_digests(texts))
            scan.rows_per_source.append(rows.rows - before)
            progress((number + 1) / len(sources))
        _refuse_if_bad(scan, config)
        held_out = _held_out_texts(job)
        kept = rows.decide(text_digests(TextBuffer.from_strings(held_out)))
        if alike is not None:
            kept = kept.without_alike(alike.decide(likeness_digests(held_out)))
            scan.dropped["near_duplicate"] = kept.near_duplicates
    scan.dropped["duplicate"], scan.dropped["held_out"] = kept.duplicates, kept.held_out
    scan.shards = list(_shard_contents(scan, kept, config.rows_per_shard))
    if not scan.shards:
        raise DataError(
            f"the corpus is empty: {scan.read} rows were read, none was left "
            f"(dropped: {dict(scan.dropped)}); check [corpus] sources and text_column"
        )
    return scan, kept


def _fingerprints(sources: Sequence[Source]) -> list[str]:
    """Return what decides whether a corpus is read again: each file's format, size and time."""
    return [
        f"{'.'.join(filter(None, format_of(source.url)))} {source.fingerprint}"
        for source in sources
    ]


def candidates(source: Source, config: CorpusConfig, scan: Scan) -> Iterator[list[str]]:
    """Yield the rows of a source that are neither bad nor empty; count the others in ``scan``."""

    def on_bad(row: BadRow) -> None:
        scan.dropped["bad"] += 1
        scan.read += 1
        if len(scan.bad) < _QUARANTINE_ROWS:
            scan.bad.append(row)

    batches = read_texts(
        source,
        text_column=config.text_column,
        max_bytes=config.max_row_bytes,
        on_bad=on_bad,
    )
    for batch in batches:
        texts = _sentences(batch) if config.split_sentences else batch
        if config.max_rows is not None:
            texts = texts[: max(config.max_rows - scan.read, 0)]
        full = [text for text in texts if text and not text.isspace()]
        scan.read += len(texts)
        scan.dropped["empty"] += len(texts) - len(full)
        if full:
            yield full
        if config.max_rows is not None and scan.read >= config.max_rows:
            return


def _sentences(documents: Sequence[str]) -> list[str]:
    from syntok import segmenter

    sentences: list[str] = []
    for document in documents:
        for paragraph in segmenter.analyze(document):
            for tokens in paragraph:
                end = tokens[-1].offset + len(tokens[-1].value)
                sentences.append(document[tokens[0].offset : end])
    return sentences


def _refuse_if_bad(scan: Scan, config: CorpusConfig) -> None:
    bad = scan.dropped["bad"]
    if bad <= config.max_bad_share * scan.read:
        return
    first = scan.bad[0]
    raise DataError(
        f"{bad} of {scan.read} rows of the corpus are bad, more than corpus.max_bad_share = "
        f"{config.max_bad_share:.1%}; the first: {first.source} row {first.row}: {first.reason}"
    )


def _held_out_texts(job: Job) -> list[str]:
    """Read dev and test from their files, so that a plan can do it before they are stored."""
    config = DatasetConfig.model_validate(job.runtime["dataset"])
    splits = read_splits(config, base=job.runtime["base"])
    return [text for name in ("dev", "test") for text in splits[name].texts]


def _shard_contents(scan: Scan, kept: Kept, size: int) -> Iterator[tuple[str, int]]:
    """Yield the content digest and the number of rows of every shard."""
    digest, filled, position = hashlib.sha256(), 0, 0
    for candidates in scan.rows_per_source:
        source = range(position, position + candidates)
        position += candidates
        if filled and filled + _count_kept(kept, source) > size:
            yield digest.hexdigest(), filled
            digest, filled = hashlib.sha256(), 0
        for ids in _kept_ids(kept, source):
            start = 0
            while start < len(ids):
                part = ids[start : start + size - filled]
                digest.update(part.tobytes())
                filled += len(part)
                start += len(part)
                if filled == size:
                    yield digest.hexdigest(), filled
                    digest, filled = hashlib.sha256(), 0
    if filled:
        yield digest.hexdigest(), filled


def _count_kept(kept: Kept, source: range) -> int:
    blocks = range(source.start, source.stop, _BLOCK)
    return sum(int(kept.mask[b : min(b + _BLOCK, source.stop)].sum()) for b in blocks)


def _kept_ids(kept: Kept, source: range) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield the ids of the kept rows of a source, a block at a time."""
    for begin in range(source.start, source.stop, _BLOCK):
        block = slice(begin, min(begin + _BLOCK, source.stop))
        yield kept.ids[block][kept.mask[block]]


def _write_shards(
    job: Job, store: ArtifactStore, scan: Scan, kept: Kept, progress: Progress
) -> None:
    config = CorpusConfig.model_validate(job.runtime["config"])
    recipes = [shard_recipe(content) for content, _ in scan.shards]
    there = [found is not None for found in store.find_all(recipes)]
    rows = _kept_rows(config, job.runtime["base"], kept)
    for number, (recipe, (content, size)) in enumerate(zip(recipes, scan.shards, strict=True)):
        texts = list(islice(rows, size))
        if not there[number]:
            _write_shard(store, recipe, texts, content)
        progress((number + 1) / len(recipes))


def _kept_rows(config: CorpusConfig, base: str | None, kept: Kept) -> Iterator[str]:
    again, position = Scan(), 0
    for source in expand_sources(config.sources, base=base):
        note_bytes(read=source.bytes or 0)
        for texts in candidates(source, config, again):
            mask = kept.mask[position : position + len(texts)]
            position += len(texts)
            yield from (text for text, keep in zip(texts, mask, strict=False) if keep)


def _write_shard(store: ArtifactStore, recipe: Recipe, texts: list[str], content: str) -> None:
    ids = text_ids(TextBuffer.from_strings(texts))
    if hashlib.sha256(ids.tobytes()).hexdigest() != content:
        raise DataError("a source of the corpus changed while it was read; run again")
    with store.turn(recipe):
        # Another corpus that has this shard too may have been made meanwhile.
        if store.find(recipe) is None:
            _store_shard(store, recipe, ids, texts)


def _store_shard(
    store: ArtifactStore, recipe: Recipe, ids: npt.NDArray[np.uint64], texts: list[str]
) -> None:
    with store.create(recipe, tool_version=tool_version()) as writer:
        path = writer.path(TEXTS_FILE)
        write_table(path, text_table(ids, texts))
        note_bytes(written=path.stat().st_size)
        writer.set_rows(TEXTS_FILE, len(texts))
        writer.statistics["rows"] = len(texts)
