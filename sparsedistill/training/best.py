"""The best weights so far: in memory, or where there is a directory, on disk.

On disk they are one safetensors file that is changed in place: a better moment rewrites the rows
that changed since the last, not the table. Between two checkpoints the file is ahead of what the
last one says, and where a kill struck, half of it may be. That is safe, because a run repeats
itself: from its checkpoint on it comes to the same better moment again. A run that was resumed does
not know which rows the killed one had written, so its first better moment writes all of them, and
from there on the file is exact. If there is no better moment after the checkpoint, the killed run
had none either, and the file is still the one that the checkpoint speaks of. The number of the
update is written into the file before the rows, so that a run which did not repeat itself is found
out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sparsedistill.errors import ModelFileError
from sparsedistill.training.state_files import (
    CHECKPOINT_FILE,
    Part,
    layout_of,
    opened,
    read_into,
    read_layout,
    write_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sparsedistill.students.base import Arrays, Student

BEST_FILE = "best.safetensors"
# Unchanged bytes between two changed rows that are written with them, rather than in two calls.
_BRIDGE = 64 << 10


class Best(Protocol):
    """Where the best weights are kept."""

    def keep(self, student: Student[Any, Any], update: int) -> None:
        """Take over the weights, which are those after an update."""
        ...

    def restore(self, student: Student[Any, Any], update: int) -> None:
        """Give the student the weights that were kept, which are those after that update."""
        ...


class BestInMemory:
    """For runs without a directory: one copy of the weights."""

    def __init__(self) -> None:
        self._weights: Arrays = {}

    def keep(self, student: Student[Any, Any], update: int) -> None:  # noqa: ARG002
        """As ``Best`` has it."""
        for name, value in student.weights().items():
            if name in self._weights:  # in place: one more copy of the table may not fit
                self._weights[name][...] = value
            else:
                self._weights[name] = value.copy()

    def restore(self, student: Student[Any, Any], update: int) -> None:  # noqa: ARG002
        """As ``Best`` has it."""
        student.load(self._weights)


class BestOnDisk:
    """A file that follows the best weights.

    Args:
        directory: There already.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / BEST_FILE
        # The update whose weights the file is known to hold in every row; 0 is none.
        self._known = 0
        self._flushed = True

    def keep(self, student: Student[Any, Any], update: int) -> None:
        """As ``Best`` has it; writes the rows that changed since the last call."""
        weights, changed = student.weights(), student.changed()
        header, places = _layout(weights, update)
        self._flushed = False
        # Never truncated to nothing: a checkpoint may speak of what is there.
        with opened(self._path, os.O_WRONLY | os.O_CREAT) as handle:
            write_at(handle, header, 0)
            for name, place in places.items():
                values = weights[name]
                numbers = changed.get(name) if self._known else None
                if numbers is None:
                    _write(handle, values, place.begin)
                    continue
                size = values.nbytes // max(len(values), 1)
                for start, stop in _runs(np.flatnonzero(numbers > self._known), size):
                    _write(handle, values[start:stop], place.begin + start * size)
            os.ftruncate(handle, _size(header, weights))
        self._known = update

    def flush(self) -> None:
        """See what was kept to the disk; a checkpoint that speaks of it may be put down then."""
        if not self._flushed:
            with opened(self._path, os.O_WRONLY) as handle:
                os.fsync(handle)
            self._flushed = True

    def check(self, student: Student[Any, Any], update: int) -> None:
        """See that there is a file for a run to go on with.

        Args:
            student: Whose weights the file is for.
            update: Of the best weights, as the run's checkpoint has it; 0 where it had none.

        Raises:
            ModelFileError: There is none, it is for another student, or is older than that.
        """
        if update and self._written_at(student) < update:
            raise ModelFileError(f"{self._path}: older than the checkpoint beside it")

    def restore(self, student: Student[Any, Any], update: int) -> None:
        """As ``Best`` has it; read into the student's own arrays.

        Raises:
            ModelFileError: The file is not as it was left, or not of that update.
        """
        found = self._written_at(student)
        if found != update:
            # Else the next run would go on from there, to the same end.
            self._path.with_name(CHECKPOINT_FILE).unlink(missing_ok=True)
            raise ModelFileError(
                f"{self._path}: has weights of update {found}, but the best are of {update}: after "
                "it was resumed the run was not the same again, as on another kind of processor, "
                "on a GPU, or in another number of processes; start it again, from the beginning"
            )
        weights = student.weights()
        _, places = _layout(weights, update)
        for name, place in places.items():
            read_into(self._path, place, weights[name])
        student.load(weights)

    def _written_at(self, student: Student[Any, Any]) -> int:
        places, metadata = read_layout(self._path)
        number = metadata.get("update", "")
        update = int(number) if number.isdecimal() else 0
        if places != _layout(student.weights(), update)[1]:
            raise ModelFileError(f"{self._path}: not the weights of this student")
        return update


def _layout(weights: Arrays, update: int) -> tuple[bytes, dict[str, Any]]:
    # Of one length for all updates, so that it can be changed in place.
    parts = {name: Part(value) for name, value in weights.items()}
    return layout_of(parts, {"update": f"{update:020d}"})


def _size(header: bytes, weights: Arrays) -> int:
    return len(header) + sum(value.nbytes for value in weights.values())


def _write(handle: int, values: NDArray[Any], position: int) -> None:
    for block in Part(values).blocks():
        write_at(handle, block, position)
        position += len(block)


def _runs(rows: NDArray[np.int64], row_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the ascending rows as ranges; rows between that are few are taken in."""
    if len(rows) == 0:
        return
    breaks = np.flatnonzero(np.diff(rows) > 1 + _BRIDGE // max(row_bytes, 1))
    starts = rows[np.concatenate([[0], breaks + 1])].tolist()
    stops = (rows[np.concatenate([breaks, [len(rows) - 1]])] + 1).tolist()
    yield from zip(starts, stops, strict=True)
