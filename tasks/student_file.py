"""The file of a student: its weights, and in the metadata its shape. Loading it runs nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from sparsedistill.students import DAN, DANShape
from sparsedistill.tensor_files import read_tensors, write_tensors

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from sparsedistill.students import StudentTraining

FILE = "student.safetensors"


def write_student(student: DAN, path: Path) -> None:
    """Write a student's weights and shape."""
    shape = json.dumps(student.shape.to_json(), sort_keys=True)
    write_tensors(path, student.weights(), metadata={"shape": shape})


def read_shape(path: Path) -> DANShape:
    """Return the shape of a student that was written."""
    with safe_open(path, framework="numpy") as file:
        return DANShape(**json.loads(file.metadata()["shape"]))


def read_weights(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Map a student's weights.

    They may be changed: that copies the pages it happens on, and leaves the file as it is.
    """
    return read_tensors(path, read_shape(path).weights(), writable=True)


def read_student(
    path: Path, *, training: StudentTraining | None = None, seed: int = 0, threads: int = 1
) -> DAN:
    """Return a student as it was written, ready to predict, or to be trained further.

    Its table is mapped: what is not looked at is not read.
    """
    return DAN(
        read_shape(path),
        training=training,
        seed=seed,
        threads=threads,
        weights=read_weights(path),
    )
