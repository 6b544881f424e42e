"""The students there are, by name: what a config asks for, and what a file says it holds.

Another student is another file with its sizes (a ``Shape``) and a line here. All of them read
bags: of n-grams, or of the teacher's tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from sparsedistill.errors import ConfigError, ModelFileError
from sparsedistill.students.bilstm import BiLSTM
from sparsedistill.students.cnn import CNN
from sparsedistill.students.dan import DAN, DANShape
from sparsedistill.students.hybrid import check_weights
from sparsedistill.students.subwords import SubwordStudent

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from sparsedistill.bag_source import BagSource
    from sparsedistill.students.base import Student
    from sparsedistill.students.hybrid import Forms
    from sparsedistill.students.training import StudentTraining

Architecture = Literal["dan", "bilstm", "cnn"]


class Shape(Protocol):
    """Sizes of a student: a frozen dataclass, whose fields a config and a file may have."""

    @property
    def rows(self) -> int:
        """Rows of its table: n-grams or tokens."""
        ...

    @property
    def classes(self) -> int:
        """Number of labels."""
        ...

    def weights(self) -> Forms:
        """Return type and shape of every weight, by name."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        ...


class MakeStudent(Protocol):
    """Makes a student of a shape."""

    def __call__(
        self,
        shape: Any,  # noqa: ANN401 - of the kind's own type
        /,
        *,
        training: StudentTraining | None = None,
        seed: int = 0,
        threads: int = 1,
        weights: Mapping[str, npt.NDArray[Any]] | None = None,
        embeddings: npt.NDArray[np.float32] | None = None,
    ) -> Student[BagSource, Any]:
        """As the constructors of students have it.

        Args:
            shape: Sizes and start.
            training: Dropout, decay and Adam's constants.
            seed: Of the start and of every update's dropout.
            threads: Results do not depend on it.
            weights: To start from instead of at random.
            embeddings: To start the table from, float32 [rows, width]; copied.
        """
        ...


@dataclass(frozen=True, slots=True)
class StudentKind:
    """One entry.

    Attributes:
        reads: What its bags are of.
        shape: The dataclass of its sizes.
        make: Makes one.
    """

    reads: Literal["ngrams", "tokens"]
    shape: type[Any]
    make: MakeStudent


def _make_dan(
    shape: DANShape,
    *,
    embeddings: npt.NDArray[np.float32] | None = None,
    **given: Any,  # noqa: ANN401 - as MakeStudent has it
) -> DAN:
    student = DAN(shape, **given)
    if embeddings is not None:
        check_weights({"table": embeddings}, {"table": (np.float32, (shape.rows, shape.width))})
        student.table.fill(0, embeddings)
    return student


STUDENTS: Mapping[Architecture, StudentKind] = {
    "dan": StudentKind("ngrams", DANShape, _make_dan),
    "bilstm": StudentKind("tokens", BiLSTM, SubwordStudent),
    "cnn": StudentKind("tokens", CNN, SubwordStudent),
}


def student_kind(architecture: str) -> StudentKind:
    """Return the entry of that name.

    Raises:
        ConfigError: There is none.
    """
    for name, kind in STUDENTS.items():
        if name == architecture:
            return kind
    raise ConfigError(f"no student {architecture!r}; there are {', '.join(STUDENTS)}")


def shape_from(architecture: str, settings: Mapping[str, Any], *, rows: int, classes: int) -> Shape:
    """Return the sizes of a student as a config has them.

    Args:
        architecture: Its name.
        settings: Of a config. What is None, or no field of this student's, is left out.
        rows: Of its table.
        classes: Number of labels.

    Raises:
        ConfigError: There is none of that name.
    """
    kind = student_kind(architecture)
    own = {field.name for field in fields(kind.shape)}
    chosen = {name: v for name, v in settings.items() if name in own and v is not None}
    shape: Shape = kind.shape(**{**chosen, "rows": rows, "classes": classes})
    return shape


def to_metadata(shape: Shape) -> dict[str, str]:
    """Return what the file of a student says of it, beside its weights."""
    names = [name for name, kind in STUDENTS.items() if kind.shape is type(shape)]
    return {"architecture": names[0], "shape": json.dumps(shape.to_json(), sort_keys=True)}


def from_metadata(metadata: Mapping[str, str]) -> tuple[StudentKind, Shape]:
    """Return the kind and the sizes of the student in a file.

    Raises:
        ModelFileError: The file says neither, or what this version does not know.
    """
    try:
        kind = student_kind(metadata["architecture"])
        shape: Shape = kind.shape(**json.loads(metadata["shape"]))
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"the file does not say which student it holds, or it was written by a newer version: "
            f"{error}"
        ) from error
    return kind, shape
