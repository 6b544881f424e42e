"""The labelled data: ``train``, ``dev`` and ``test``, checked once and stored as shards.

Labels become indices into one list of names, so that no later stage has to guess their order. A
split is stored by its content: a file that was moved or rewritten with the same rows is the same
split. Where no ``dev`` is given, a share of ``train`` is put aside for it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from sparsedistill.errors import DataError
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.identity import text_ids
from storage import (
    ArtifactStore,
    ArtifactWriter,
    Recipe,
    expand_sources,
    read_labelled,
    write_table,
)
from tasks.shards import TEXTS_FILE, text_table
from tasks.stage import Job, Progress, Stage, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage import LabelledRows

KIND, VERSION = "dataset", 1
SPLITS = ("train", "dev", "test")


class DatasetConfig(Table):
    """``[dataset]``: where the labelled data is, and how it is read."""

    train: str = Field(description="file of labelled rows (.csv, .tsv, .jsonl, .parquet)")
    dev: str | None = Field(None, description="where not given, dev_share of train is put aside")
    test: str | None = Field(None, description="where not given, results are measured on dev")
    dev_share: float = Field(0.1, gt=0, lt=0.5)
    text_column: str = "text"
    label_column: str = "label"
    labels: tuple[str, ...] | None = Field(
        None, description="names in the wanted order; otherwise those of the files, or sorted"
    )
    seed: int = Field(0, description="of the rows put aside for dev")

    @model_validator(mode="after")
    def _labels_differ(self) -> DatasetConfig:
        if self.labels is not None and (
            len(self.labels) < 2 or len(set(self.labels)) < len(self.labels)
        ):
            raise ValueError("labels needs at least two names, each once")
        return self


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of one split, labels as indices into the task's label names."""

    name: str
    texts: Sequence[str]
    labels: Sequence[int]
    label_names: Sequence[str]

    def digest(self) -> str:
        """Return the digest of the content: label names, texts and labels in order."""
        digest = hashlib.sha256(repr(tuple(self.label_names)).encode())
        for text, label in zip(self.texts, self.labels, strict=True):
            encoded = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d %d " % (label, len(encoded)))
            digest.update(encoded)
        return digest.hexdigest()


def read_splits(config: DatasetConfig, *, base: str | None) -> dict[str, Split]:
    """Read and check the labelled files.

    Args:
        config: The table ``[dataset]``.
        base: Directory or URL that relative names are under.

    Returns:
        ``train``, ``dev`` and ``test``; without a test file, ``test`` is ``dev``.

    Raises:
        SourceError: A file cannot be read, or has a bad row; the message names file and row.
        DataError: The labels are no task: one class only, unknown or unused names.
    """
    rows = {
        name: _read_file(path, config, base)
        for name in SPLITS
        if (path := getattr(config, name)) is not None
    }
    names = _label_names(config, rows)
    splits = {
        name: _indexed(name, getattr(config, name), part, names) for name, part in rows.items()
    }
    if "dev" not in splits:
        splits["train"], splits["dev"] = _put_aside(splits["train"], config)
    splits.setdefault("test", Split("test", splits["dev"].texts, splits["dev"].labels, names))
    _check_classes(splits["train"])
    return splits


def jobs(config: DatasetConfig, *, base: str | None) -> list[Job]:
    """Return one job a split, in the order train, dev, test."""
    splits = read_splits(config, base=base)
    return [
        Job(
            recipe=Recipe(KIND, VERSION, config={"split": name}, content=splits[name].digest()),
            runtime={"config": config.model_dump(mode="json"), "base": base},
            label=name,
            preview=_statistics(splits[name]),
        )
        for name in SPLITS
    ]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Write one split as a shard of ``id, text, label``."""
    del store, progress
    config = DatasetConfig.model_validate(job.runtime["config"])
    split = read_splits(config, base=job.runtime["base"])[job.label]
    if split.digest() != job.recipe.content:
        raise DataError(f"the {job.label} file changed while the run was reading it; run again")
    ids = text_ids(TextBuffer.from_strings(split.texts))
    table = text_table(ids, split.texts, labels=split.labels, label_names=split.label_names)
    write_table(writer.path(TEXTS_FILE), table)
    writer.set_rows(TEXTS_FILE, table.num_rows)
    writer.statistics.update(_statistics(split))


STAGE = Stage(KIND, VERSION, build)


def _statistics(split: Split) -> dict[str, Any]:
    counts = Counter(split.labels)
    return {
        "rows": len(split.texts),
        "labels": list(split.label_names),
        "rows_per_label": [counts[i] for i in range(len(split.label_names))],
    }


def _read_file(path: str, config: DatasetConfig, base: str | None) -> LabelledRows:
    sources = expand_sources([path], base=base)
    if len(sources) > 1:
        raise DataError(f"[dataset]: {path} stands for {len(sources)} files; a split is one file")
    return read_labelled(
        sources[0], text_column=config.text_column, label_column=config.label_column
    )


def _label_names(config: DatasetConfig, rows: dict[str, LabelledRows]) -> tuple[str, ...]:
    """Return the task's labels: as configured, else as a file lists them, else sorted."""
    if config.labels:
        return config.labels
    for part in rows.values():
        if part.label_names:
            return tuple(part.label_names)
    found = {label for part in rows.values() for label in part.labels}
    ordered = sorted(found, key=lambda x: (isinstance(x, str), x))
    return tuple(dict.fromkeys(str(label) for label in ordered))


def _indexed(name: str, path: str, rows: LabelledRows, names: Sequence[str]) -> Split:
    index = _label_index(rows, names)
    for number, label in enumerate(rows.labels, start=1):
        if label not in index:
            raise DataError(
                f"{path}: row {number} of {name} has the label {label!r}, which is none of "
                f"{list(names)}; correct the row or [dataset] labels"
            )
    if not rows.texts:
        raise DataError(f"{path}: {name} has no rows")
    return Split(name, rows.texts, [index[label] for label in rows.labels], names)


def _label_index(rows: LabelledRows, names: Sequence[str]) -> dict[str | int, int]:
    """Return the index of every label a file may hold: names, or numbers that stand for them."""
    index: dict[str | int, int] = {label: i for i, label in enumerate(names)}
    if rows.label_names:
        return index | {
            i: index[label] for i, label in enumerate(rows.label_names) if label in index
        }
    if all(label.lstrip("-").isdigit() for label in names):
        return index | {int(label): i for i, label in enumerate(names)}
    return index | dict(zip(range(len(names)), range(len(names)), strict=True))


def _put_aside(train: Split, config: DatasetConfig) -> tuple[Split, Split]:
    """Cut ``dev`` out of ``train`` at random, every class in proportion.

    Rows of one text stay together, so that no text is on both sides.
    """
    order = np.random.default_rng(config.seed).permutation(len(train.texts))
    wanted = Counter({k: round(n * config.dev_share) for k, n in Counter(train.labels).items()})
    times = Counter(train.texts)
    taken = set()
    for row in order.tolist():
        label = train.labels[row]
        if wanted[label] > 0 and times[train.texts[row]] == 1:
            wanted[label] -= 1
            taken.add(row)

    def part(name: str, inside: bool) -> Split:
        rows = [row for row in range(len(train.texts)) if (row in taken) == inside]
        return Split(
            name, [train.texts[r] for r in rows], [train.labels[r] for r in rows], train.label_names
        )

    if not taken:
        raise DataError(f"train is too small to put {config.dev_share:.0%} of it aside for dev")
    return part("train", inside=False), part("dev", inside=True)


def _check_classes(train: Split) -> None:
    present = {train.label_names[label] for label in train.labels}
    if len(present) < 2:
        raise DataError(
            f"train has one class only, {sorted(present)}: there is nothing to tell apart"
        )
    missing = [name for name in train.label_names if name not in present]
    if missing:
        raise DataError(f"train has no row of {missing}; remove these from the labels, or add rows")
