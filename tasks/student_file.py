"""The file of a student: its weights, and in the metadata which student it is and its sizes.

Loading it runs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsedistill.errors import ModelFileError
from sparsedistill.students import DAN, DANShape
from sparsedistill.students.registry import from_metadata, to_metadata
from sparsedistill.students.subwords import SubwordStudent
from sparsedistill.tensor_files import read_header, read_tensors, write_tensors

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from sparsedistill.bag_source import BagSource
    from sparsedistill.students import Student, StudentTraining
    from sparsedistill.students.registry import Shape, StudentKind

FILE = "student.safetensors"


def write_student(student: DAN | SubwordStudent, path: Path) -> None:
    """Write a student's weights, and which one it is."""
    shape = student.network if isinstance(student, SubwordStudent) else student.shape
    write_tensors(path, student.weights(), metadata=to_metadata(shape))


def read_shape(path: Path) -> DANShape:
    """Return the shape of a DAN that was written.

    Raises:
        ModelFileError: The file is damaged, or holds another student.
    """
    _, shape = _described(path)
    if not isinstance(shape, DANShape):
        name = to_metadata(shape)["architecture"]
        raise ModelFileError(
            f"{path}: holds a {name}, which reads no n-grams: only a dan can be fine-tuned, folded "
            "or packaged"
        )
    return shape


def read_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Map the weights of a student of any kind.

    They may be changed: that copies the pages it happens on, and leaves the file as it is.

    Raises:
        ModelFileError: The file is damaged, or does not say what it holds.
    """
    _, shape = _described(path)
    return read_tensors(path, shape.weights(), writable=True)


def read_student(
    path: Path, *, training: StudentTraining | None = None, seed: int = 0, threads: int = 1
) -> DAN:
    """Return a DAN as it was written, ready to predict, or to be trained further.

    Its table is mapped: what is not looked at is not read.

    Raises:
        ModelFileError: The file is damaged, or holds another student.
    """
    return DAN(
        read_shape(path),
        training=training,
        seed=seed,
        threads=threads,
        weights=read_weights(path),
    )


def read_rival(path: Path, *, threads: int = 1) -> Student[BagSource, Any]:
    """Return a student over subwords as it was written, ready to predict from tokens.

    Raises:
        ModelFileError: The file is damaged, or holds a student over n-grams.
    """
    kind, shape = _described(path)
    if kind.reads != "tokens":
        raise ModelFileError(f"{path}: holds a student over {kind.reads}, not over tokens")
    return kind.make(shape, threads=threads, weights=read_weights(path))


def _described(path: Path) -> tuple[StudentKind, Shape]:
    """Return which student a file holds."""
    _, header = read_header(path)
    try:
        return from_metadata(header.get("__metadata__", {}))
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
