"""The directory that a finished model is: written once, read by `Classifier.load`.

    config.json              what the model is, and size and SHA-256 of the other files
    model.safetensors        table, scale (int8 only), hidden_bias, head_weight, head_bias
    vocabulary.safetensors   hashes of the rows' n-grams, and the bridges (see `ngram_index`)
    ngrams.txt.zst           the n-grams as strings, by row; not needed to predict, may be absent

`config.json` is written last, and taken away first when a model is replaced: a directory without
one is no model.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sparsedistill.errors import ConfigError, DataError, ModelFileError
from sparsedistill.files import (
    check_format,
    checked_field,
    read_json,
    read_strings,
    read_tensors,
    write_json,
    write_strings,
    write_tensors,
)
from sparsedistill.folded import FoldedModel, TableType
from sparsedistill.ngram_index import NgramIndex
from sparsedistill.text import oracle
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text.strings import hash_strings
from sparsedistill.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike, NDArray

    from sparsedistill.text.buffers import TextBuffer

FORMAT = 1
CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
HASHES_FILE = "vocabulary.safetensors"
STRINGS_FILE = "ngrams.txt.zst"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """`config.json`, checked.

    Attributes:
        labels: Class names, by class.
        spec: The n-grams.
        max_ngrams: Known n-grams of a text that count.
        rows: Of the table.
        hidden: Its width.
        bridges: How many hashes of bridges there are.
        table_type: Type of the table.
        activation: "relu" or "tanh".
        temperature: For probabilities.
        files: Bytes and SHA-256 of each other file, by name.
        training: Where the model comes from; free form.
    """

    labels: tuple[str, ...]
    spec: NgramSpec
    max_ngrams: int
    rows: int
    hidden: int
    bridges: int
    table_type: TableType
    activation: str
    temperature: float
    files: Mapping[str, tuple[int, str]]
    training: Mapping[str, Any]


def save_model(
    directory: str | Path,
    folded: FoldedModel,
    vocabulary: Vocabulary | TextBuffer | None,
    *,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a model to a directory, which is made; what lies there is replaced.

    Args:
        directory: Where.
        folded: The model.
        vocabulary: Its n-grams (or just their strings, by row); None leaves the strings out.
        training: JSON values that tell where the model comes from.

    Raises:
        DataError: The vocabulary is not the model's.
    """
    directory = Path(directory)
    ngrams = vocabulary.ngrams if isinstance(vocabulary, Vocabulary) else vocabulary
    if ngrams is not None and not np.array_equal(hash_strings(ngrams)[0], folded.index.hashes):
        raise DataError("the vocabulary's n-grams are not, row by row, those of the model")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG_FILE).unlink(missing_ok=True)
    tensors: dict[str, NDArray[Any]] = {
        name: getattr(folded, name) for name in ("table", "hidden_bias", "head_weight", "head_bias")
    }
    if folded.scale is not None:
        tensors["scale"] = folded.scale
    write_tensors(directory / MODEL_FILE, tensors)
    index = {"hashes": folded.index.hashes, "bridges": folded.index.bridges}
    write_tensors(directory / HASHES_FILE, index)
    names = [MODEL_FILE, HASHES_FILE]
    if ngrams is not None:
        write_strings(directory / STRINGS_FILE, ngrams)
        names.append(STRINGS_FILE)
    config = {
        "format": FORMAT,
        "labels": list(folded.labels),
        "ngrams": folded.spec.to_json(),
        "max_ngrams": folded.max_ngrams,
        "rows": len(folded.index),
        "bridges": len(folded.index.bridges),
        "hidden": folded.hidden,
        "dtype": folded.table_type,
        "activation": folded.activation,
        "temperature": folded.temperature,
        "hash": oracle.HASH_NAME,
        "files": {
            name: {"bytes": (directory / name).stat().st_size, "sha256": _sha256(directory / name)}
            for name in names
        },
        "training": dict(training or {}),
    }
    write_json(directory / CONFIG_FILE, config)


def load_model(directory: str | Path, *, verify: bool = False) -> FoldedModel:
    """Read a model; its table stays on disk, mapped, and is read where it is needed.

    Args:
        directory: What `save_model` wrote.
        verify: Also read every byte: checksums, and that all numbers are finite.

    Raises:
        ModelFileError: A file is missing, of the wrong size or shape, altered, or of a newer
            format; names the file and the reason.
    """
    directory = Path(directory)
    config = read_config(directory)
    for name, (size, digest) in config.files.items():
        _check_file(directory / name, size, digest if verify else None)
    table_type, wide = np.dtype(config.table_type), (config.rows, config.hidden)
    expected: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {
        "table": (table_type, wide),
        "hidden_bias": (np.float32, (config.hidden,)),
        "head_weight": (np.float32, (len(config.labels), config.hidden)),
        "head_bias": (np.float32, (len(config.labels),)),
    }
    if config.table_type == "int8":
        expected["scale"] = (np.float32, (config.rows,))
    arrays = read_tensors(directory / MODEL_FILE, expected)
    hashes = read_tensors(
        directory / HASHES_FILE,
        {"hashes": (np.uint64, (config.rows,)), "bridges": (np.uint64, (config.bridges,))},
    )
    if verify and config.table_type != "int8" and not np.isfinite(arrays["table"]).all():
        raise ModelFileError(f"{directory / MODEL_FILE}: table has values that are not finite")
    try:
        index = NgramIndex(**hashes)
    except DataError as error:
        raise ModelFileError(f"{directory / HASHES_FILE}: {error}") from error
    try:
        return FoldedModel(
            labels=config.labels,
            spec=config.spec,
            index=index,
            max_ngrams=config.max_ngrams,
            activation=config.activation,  # type: ignore[arg-type] # FoldedModel checks it
            temperature=config.temperature,
            **arrays,
        )
    except ConfigError as error:
        raise ModelFileError(f"{directory / CONFIG_FILE}: {error}") from error
    except DataError as error:
        raise ModelFileError(f"{directory / MODEL_FILE}: {error}") from error


def load_ngrams(directory: str | Path) -> TextBuffer | None:
    """The n-grams of a model's rows; None if it was saved without them.

    Raises:
        ModelFileError: A file is missing or damaged.
    """
    directory = Path(directory)
    config = read_config(directory)
    if STRINGS_FILE not in config.files:
        return None
    _check_file(directory / STRINGS_FILE, config.files[STRINGS_FILE][0], None)
    return read_strings(directory / STRINGS_FILE, config.rows)


def read_config(directory: str | Path) -> ModelConfig:
    """Read and check `config.json` alone.

    Raises:
        ModelFileError: It is missing or malformed, or of a newer format.
    """
    path = Path(directory) / CONFIG_FILE
    if not path.exists():
        raise ModelFileError(f"{path}: there is no such file; is {directory} a model's directory?")
    config = read_json(path)
    check_format(path, config, FORMAT)
    if config.get("hash") != oracle.HASH_NAME:
        raise ModelFileError(f"{path}: hash {config.get('hash')!r:.60}, not {oracle.HASH_NAME!r}")
    labels = checked_field(path, config, "labels", list)
    if not all(isinstance(label, str) for label in labels):
        raise ModelFileError(f"{path}: labels must be strings: {labels!r:.80}")
    table_type = checked_field(path, config, "dtype", str)
    if table_type not in get_args(TableType):
        raise ModelFileError(f"{path}: dtype {table_type!r:.60} is none of {get_args(TableType)}")
    temperature = config.get("temperature")
    if not isinstance(temperature, int | float) or isinstance(temperature, bool):
        raise ModelFileError(f"{path}: temperature must be a number, not {temperature!r:.60}")
    try:
        spec = NgramSpec.from_json(config.get("ngrams"))
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}") from error
    return ModelConfig(
        labels=tuple(labels),
        spec=spec,
        max_ngrams=checked_field(path, config, "max_ngrams", int),
        rows=checked_field(path, config, "rows", int),
        hidden=checked_field(path, config, "hidden", int),
        bridges=checked_field(path, config, "bridges", int),
        table_type=table_type,  # type: ignore[arg-type] # checked above
        activation=checked_field(path, config, "activation", str),
        temperature=float(temperature),
        files=_files(path, checked_field(path, config, "files", dict)),
        training=checked_field(path, config, "training", dict),
    )


def _files(path: Path, entries: dict[str, Any]) -> dict[str, tuple[int, str]]:
    known = {MODEL_FILE, HASHES_FILE, STRINGS_FILE}
    if not {MODEL_FILE, HASHES_FILE} <= set(entries) <= known:
        raise ModelFileError(f"{path}: files are {sorted(entries)!r:.80}, expected {sorted(known)}")
    files = {}
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise ModelFileError(f"{path}: files: {name} must be an object, not {entry!r:.60}")
        size = checked_field(path, entry, "bytes", int)
        files[name] = (size, checked_field(path, entry, "sha256", str))
    return files


def _check_file(path: Path, size: int, digest: str | None) -> None:
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such file, but {CONFIG_FILE} lists it")
    found = path.stat().st_size
    if found != size:
        raise ModelFileError(f"{path}: {found} bytes, expected {size}: truncated or altered")
    if digest is not None and _sha256(path) != digest:
        raise ModelFileError(f"{path}: altered: its SHA-256 is not the one in {CONFIG_FILE}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
