"""Labelled texts for the commands over a finished model: the labels must be the model's."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flows.input_files import Meter, format_by_name
from flows.input_rows import no_column, read_batches
from sparsedistill.errors import DataError
from sparsedistill.text.buffers import TextBuffer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from flows.input_rows import Batch


_NUMBER = re.compile(r"-?\d+")


class LabelledTexts(NamedTuple):
    """Texts and the class of each, int64[texts]."""

    texts: TextBuffer
    truth: npt.NDArray[np.int64]


def read_labelled_texts(
    file: str, classes: Sequence[str], *, text_column: str = "text", label_column: str = "label"
) -> LabelledTexts:
    """Read a CSV, TSV, JSON lines or Parquet file.

    Args:
        file: Its path.
        classes: The model's labels. In the file a label is one of them or its number; where all of
            them are numbers themselves, the number 1 is the label "1", as it was in training.
        text_column: Column or field of the text.
        label_column: Column or field of the label.

    Raises:
        DataError: It cannot be read, a label is none of the model's, or there are no rows; names
            file and row.
    """
    if format_by_name(file) == "text":
        raise DataError(f"{file}: lines of text have no labels; give .csv, .tsv, .jsonl, .parquet")
    texts: list[TextBuffer] = []
    truth: list[int] = []
    for batch in read_batches([file], file_format="auto", column=text_column, meter=Meter([])):
        index = _classes_by_label(batch, classes)
        for label in _column(batch, label_column):
            # Only these two: True is a number to Python, and a list cannot be looked up.
            if type(label) not in (str, int) or label not in index:
                raise DataError(
                    f"{file}: row {len(truth) + 1} has the label {label!r:.60}, which is none of "
                    f"the model's: {list(classes)!r:.200}"
                )
            truth.append(index[label])
        texts.append(batch.texts)
    if not truth:
        raise DataError(f"{file}: there are no rows")
    return LabelledTexts(TextBuffer.concat(texts), np.array(truth, np.int64))


def _column(batch: Batch, name: str) -> Sequence[object]:
    if batch.objects is not None:
        missing = next((one for one in batch.objects if name not in one), None)
        if missing is not None:
            raise no_column(batch.source, name, missing)
        return [one[name] for one in batch.objects]
    if batch.columns.count(name) != 1:
        raise no_column(batch.source, name, batch.columns)
    at = batch.columns.index(name)
    if batch.arrow is not None:
        labels: list[object] = batch.arrow.column(at).to_pylist()
        return labels
    return [row[at] for row in batch.rows()]


def _classes_by_label(batch: Batch, classes: Sequence[str]) -> Mapping[object, int]:
    """The class of everything that a label may be: a name, or a number that stands for one."""
    index: dict[object, int] = {name: number for number, name in enumerate(classes)}
    named = _label_names(batch)
    are_numbers = all(map(_NUMBER.fullmatch, classes))
    if named is None and are_numbers:
        return index | {int(name): number for number, name in enumerate(classes)}
    for number, name in enumerate(named or classes):
        if name in classes:
            index[number] = classes.index(name)
            if not are_numbers:
                index.setdefault(str(number), classes.index(name))
    return index


def _label_names(batch: Batch) -> Sequence[str] | None:
    """What the numbers in a Parquet file stand for, if it says so."""
    if batch.arrow is None:
        return None
    named = (batch.arrow.schema.metadata or {}).get(b"label_names")
    return json.loads(named) if named else None
