"""The directory that a finished model is: written once, read by `Classifier.load`.

    config.json              what the model is, and size and SHA-256 of the other files
    model.safetensors        table, scale (int8 only), hidden_bias, head_weight, head_bias
    vocabulary.safetensors   hashes of the rows' n-grams, and the slots (see `ngram_index`)
    ngrams.txt.zst           the n-grams as strings, by row; not needed to predict, may be absent

Table and slots are used where they lie, so processes share them and loading does not read the
table. Everything else is compared with its checksum whenever it is read, and the whole when that is
asked for: a damaged table can make a wrong answer until then, but nothing worse.

`config.json` is written last, and taken away first when a model is replaced: a directory without
one is no model.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sparsedistill.answers import is_threshold
from sparsedistill.errors import ConfigError, DataError, ModelFileError
from sparsedistill.files import (
    check_format,
    checked_field,
    read_json,
    read_strings,
    write_json,
    write_strings,
)
from sparsedistill.folded import FoldedModel, TableType
from sparsedistill.ngram_index import NgramIndex
from sparsedistill.tensor_files import read_tensors, write_tensors
from sparsedistill.text import oracle
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.text.strings import hash_strings
from sparsedistill.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import DTypeLike, NDArray

    from sparsedistill.text.buffers import TextBuffer

FORMAT = 2
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
        hidden: Width of the hidden layer.
        width: Of the table; where it is another, there is a projection.
        slots: How many the index has.
        table_type: Type of the table.
        activation: "relu" or "tanh".
        temperature: For probabilities.
        layers: SHA-256 of all tensors but the table.
        files: Bytes and SHA-256 of each other file, by name.
        training: Where the model comes from; free form.
        thresholds: See `Classifier`.
        reference: See `Classifier`.
    """

    labels: tuple[str, ...]
    spec: NgramSpec
    max_ngrams: int
    rows: int
    hidden: int
    width: int
    slots: int
    table_type: TableType
    activation: str
    temperature: float
    layers: str
    files: Mapping[str, tuple[int, str]]
    training: Mapping[str, Any]
    thresholds: Mapping[str, float]
    reference: Mapping[str, Any]


def save_model(
    directory: str | Path,
    folded: FoldedModel,
    vocabulary: Vocabulary | TextBuffer | None,
    *,
    training: Mapping[str, Any] | None = None,
    thresholds: Mapping[str, float] | None = None,
    reference: Mapping[str, Any] | None = None,
) -> None:
    """Write a model to a directory, which is made; what lies there is replaced.

    Args:
        directory: Where.
        folded: The model.
        vocabulary: Its n-grams (or just their strings, by row); None leaves the strings out.
        training: JSON values that tell where the model comes from.
        thresholds: See `Classifier`.
        reference: See `Classifier`.

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
    if folded.projection is not None:
        tensors["projection"] = folded.projection
    write_tensors(directory / MODEL_FILE, tensors)
    index = {"hashes": folded.index.hashes, "slots": folded.index.slots}
    write_tensors(directory / HASHES_FILE, index)
    names = [MODEL_FILE, HASHES_FILE]
    if ngrams is not None:
        write_strings(directory / STRINGS_FILE, ngrams)
        names.append(STRINGS_FILE)
    else:
        (directory / STRINGS_FILE).unlink(missing_ok=True)
    config = {
        "format": FORMAT,
        "labels": list(folded.labels),
        "ngrams": folded.spec.to_json(),
        "max_ngrams": folded.max_ngrams,
        "rows": len(folded.index),
        "slots": len(folded.index.slots),
        "hidden": folded.hidden,
        "width": folded.width,
        "dtype": folded.table_type,
        "activation": folded.activation,
        "temperature": folded.temperature,
        "hash": oracle.HASH_NAME,
        "layers": _layers_digest(tensors),
        "files": {
            name: {"bytes": (directory / name).stat().st_size, "sha256": _sha256(directory / name)}
            for name in names
        },
        "training": dict(training or {}),
        "thresholds": dict(thresholds or {}),
        "reference": dict(reference or {}),
    }
    write_json(directory / CONFIG_FILE, {**config, "digest": config_digest(config)})


def load_model(
    directory: str | Path, *, config: ModelConfig | None = None, verify: bool = False
) -> FoldedModel:
    """Read a model; its table stays on disk, mapped, and is read where it is needed.

    Args:
        directory: What `save_model` wrote.
        config: Its configuration, if that has been read.
        verify: Also read every byte: checksums, and that all numbers are finite.

    Raises:
        ModelFileError: A file is missing, of the wrong size or shape, altered, or of a newer
            format; names the file and the reason.
    """
    directory = Path(directory)
    config = config or read_config(directory)
    check_files(directory, config, digests=None if verify else {HASHES_FILE})
    table_type, wide = np.dtype(config.table_type), (config.rows, config.width)
    expected: dict[str, tuple[DTypeLike, tuple[int, ...]]] = {
        "table": (table_type, wide),
        "hidden_bias": (np.float32, (config.hidden,)),
        "head_weight": (np.float32, (len(config.labels), config.hidden)),
        "head_bias": (np.float32, (len(config.labels),)),
    }
    if config.table_type == "int8":
        expected["scale"] = (np.float32, (config.rows,))
    if config.width != config.hidden:
        expected["projection"] = (np.float32, (config.width, config.hidden))
    arrays = read_tensors(directory / MODEL_FILE, expected)
    if _layers_digest(arrays) != config.layers:
        raise ModelFileError(f"{directory / MODEL_FILE}: altered: its layers are not those saved")
    if verify and config.table_type != "int8" and not np.isfinite(arrays["table"]).all():
        raise ModelFileError(f"{directory / MODEL_FILE}: table has values that are not finite")
    try:
        index = NgramIndex(
            **read_tensors(
                directory / HASHES_FILE,
                {"hashes": (np.uint64, (config.rows,)), "slots": (np.uint64, (config.slots,))},
            )
        )
        index.check()
        if verify and not np.array_equal(index.find(index.hashes), np.arange(config.rows)):
            raise DataError("the slots are not those of the hashes")
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


def load_ngrams(directory: str | Path, config: ModelConfig | None = None) -> TextBuffer | None:
    """The n-grams of a model's rows; None if it was saved without them.

    Args:
        directory: What `save_model` wrote.
        config: Its configuration when the model was loaded, if that was earlier.

    Raises:
        ModelFileError: A file is missing or damaged, or another model's by now.
    """
    directory = Path(directory)
    config = config or read_config(directory)
    if STRINGS_FILE not in config.files:
        return None
    _check_file(directory / STRINGS_FILE, *config.files[STRINGS_FILE])
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
    check_format(path, config, FORMAT, oldest=FORMAT)
    digest = config.pop("digest", None)
    if digest != config_digest(config):
        raise ModelFileError(f"{path}: altered: it is not what its digest says")
    if config.get("hash") != oracle.HASH_NAME:
        raise ModelFileError(f"{path}: hash {config.get('hash')!r:.60}, not {oracle.HASH_NAME!r}")
    labels = checked_field(path, config, "labels", list)
    if not all(isinstance(label, str) and _is_utf8(label) for label in labels):
        raise ModelFileError(f"{path}: labels must be strings with a UTF-8 form: {labels!a:.80}")
    table_type = checked_field(path, config, "dtype", str)
    if table_type not in get_args(TableType):
        raise ModelFileError(f"{path}: dtype {table_type!r:.60} is none of {get_args(TableType)}")
    temperature = config.get("temperature")
    if (
        not isinstance(temperature, int | float)
        or isinstance(temperature, bool)
        or abs(temperature) > sys.float_info.max
    ):
        raise ModelFileError(f"{path}: temperature must be a number, not {temperature!r:.60}")
    hidden, width = (checked_field(path, config, name, int) for name in ("hidden", "width"))
    if not 1 <= width <= hidden:
        raise ModelFileError(f"{path}: a table of {width} columns for {hidden} hidden units")
    try:
        spec = NgramSpec.from_json(config.get("ngrams"))
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}") from error
    return ModelConfig(
        labels=tuple(labels),
        spec=spec,
        max_ngrams=checked_field(path, config, "max_ngrams", int),
        rows=checked_field(path, config, "rows", int),
        hidden=hidden,
        width=width,
        slots=checked_field(path, config, "slots", int),
        table_type=table_type,  # type: ignore[arg-type] # checked above
        activation=checked_field(path, config, "activation", str),
        temperature=float(temperature),
        layers=checked_field(path, config, "layers", str),
        files=_files(path, checked_field(path, config, "files", dict)),
        training=checked_field(path, config, "training", dict),
        thresholds=_thresholds(path, config, labels),
        reference=checked_field(path, config, "reference", dict),
    )


def _thresholds(path: Path, config: Mapping[str, Any], labels: list[str]) -> dict[str, float]:
    found = checked_field(path, config, "thresholds", dict)
    for label, limit in found.items():
        if label not in labels or not is_threshold(limit):
            raise ModelFileError(f"{path}: {limit!r:.40} is no threshold for a label {label!a:.60}")
    return found


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


def check_files(
    directory: Path, config: ModelConfig, *, digests: Collection[str] | None = None
) -> None:
    """Hold a model's files against its configuration: sizes of all, and SHA-256.

    Args:
        directory: Of the files.
        config: Its configuration.
        digests: The files whose SHA-256 is compared; None for all of them.

    Raises:
        ModelFileError: A file is missing, of another size, or altered.
    """
    for name, (size, digest) in config.files.items():
        compared = digests is None or name in digests
        _check_file(directory / name, size, digest if compared else None)


def _check_file(path: Path, size: int, digest: str | None) -> None:
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such file, but {CONFIG_FILE} lists it")
    found = path.stat().st_size
    if found != size:
        raise ModelFileError(f"{path}: {found} bytes, expected {size}: truncated or altered")
    if digest is not None and _sha256(path) != digest:
        raise ModelFileError(f"{path}: altered: its SHA-256 is not the one in {CONFIG_FILE}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _layers_digest(tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of all tensors but the table, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(set(tensors) - {"table"}):
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def config_digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of the configuration, however it is laid out in its file."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
