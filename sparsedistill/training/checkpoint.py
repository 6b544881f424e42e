"""The state of a run on disk, so that a killed run goes on where it was.

A checkpoint is a base with all arrays of the student, and after it deltas, each with the table rows
that changed since the file before it and with the arrays that have no rows. So a save costs what
changed, until the deltas would be as large as the base; then a new base takes their place.

``checkpoint.json`` says which files count, with their sizes and checksums, and where the run is. It
is replaced last, when all it names is on the disk, and what it names no more is removed after it:
whenever a kill strikes, the last whole checkpoint is there. What was damaged all the same is found
before anything is loaded and reported, and the run begins again. When the loop saves changes
nothing about the result.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsedistill.errors import ConfigError, ModelFileError
from sparsedistill.files import check_format, read_json, write_json
from sparsedistill.training.state_files import (
    CHECKPOINT_FILE,
    Part,
    Place,
    Stored,
    check_stored,
    fsync_directory,
    read_into,
    read_layout,
    write_parts,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sparsedistill.students.base import Arrays, Student
    from sparsedistill.training.best import BestOnDisk

FORMAT = 1
# What a delta has of an array: the numbers of its rows, int32 ascending, and the rows.
_ROWS, _ARRAY = "rows/", "array/"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What was seen at one look at ``dev``.

    The last three are of the clock, and differ between two runs that are equal otherwise.

    Attributes:
        update: Updates done.
        epoch: Passes over the data done.
        loss: Mean training loss since the last point.
        dev_accuracy: On the labels of ``dev``.
        seconds: Of the run so far (what a kill undid not counted).
        examples_per_second: Learned from since the last point, while nothing else was done.
        pauses: Share of the time since the last point that went to looking at ``dev`` and saving.
    """

    update: int
    epoch: float
    loss: float
    dev_accuracy: float
    seconds: float
    examples_per_second: float
    pauses: float


@dataclass(slots=True)
class RunState:
    """Where a run is.

    Attributes:
        update: Updates done.
        seconds: Of the run so far.
        best_update: After which the weights were best; 0 before the first look at ``dev``.
        best_accuracy: Of those.
        loss_sum: Of the updates since the last point of the curve.
        examples: Learned from since then.
        paused: Seconds of looking at ``dev`` and saving since then.
        looked: ``seconds`` at the last point.
        points: The curve.
    """

    update: int = 0
    seconds: float = 0.0
    best_update: int = 0
    best_accuracy: float = -1.0
    loss_sum: float = 0.0
    examples: int = 0
    paused: float = 0.0
    looked: float = 0.0
    points: list[CurvePoint] = field(default_factory=list)


class Checkpoints:
    """The last state of one run, in a directory.

    Args:
        directory: There already; other files in it are let be.
        run: What tells this run from others, plain JSON.
        best: The file of the best weights, in the same directory.
    """

    def __init__(self, directory: Path, *, run: Mapping[str, Any], best: BestOnDisk) -> None:
        self._directory = directory
        self._run = dict(run)
        self._best = best
        self._files: list[Stored] = []
        self._saved = 0

    def load(self, student: Student[Any, Any]) -> RunState | None:
        """Put the student into the state of the last checkpoint, if there is a whole one.

        Returns:
            Where the run is; None where it begins, and then the student is as it was.

        Raises:
            ConfigError: The checkpoint is of another run.
        """
        state = None
        own = _arrays(student)
        if self._path.exists():
            try:
                state, files = self._read()
                self._best.check(student, state.best_update)
                for stored in files:
                    check_stored(self._directory, stored)
                layouts = [_checked_layout(self._directory / one.name, own) for one in files]
            except ModelFileError as error:
                logger.warning("%s. The checkpoint is damaged, so training begins again", error)
                self._path.unlink()
                state = None
            else:
                for stored, layout in zip(files, layouts, strict=True):
                    _apply(self._directory / stored.name, layout, own)
                student.load(own)
                self._files, self._saved = files, state.update
        self._tidy()
        return state

    def save(self, student: Student[Any, Any], state: RunState) -> None:
        """Put down the state of the run; an older one stays until this one is whole."""
        self._best.flush()
        own = _arrays(student)
        parts = self._delta(own, student.changed())
        deltas = sum(stored.bytes for stored in self._files[1:])
        size = sum(part.nbytes for part in parts.values())
        whole = not self._files or deltas + size >= self._files[0].bytes
        if whole:
            parts = {_ARRAY + name: Part(value) for name, value in own.items()}
        name = f"{'base' if whole else 'delta'}-{state.update:012d}.safetensors"
        stored = write_parts(self._directory / name, parts)
        files = [stored] if whole else [*self._files, stored]
        fsync_directory(self._directory)
        content = {
            "format": FORMAT,
            "run": self._run,
            "state": asdict(state),
            "files": [asdict(one) for one in files],
        }
        write_json(self._path, content)
        # Before what the older one names is removed, the newer one must be there for good.
        fsync_directory(self._directory)
        self._files, self._saved = files, state.update
        self._tidy()

    @property
    def _path(self) -> Path:
        return self._directory / CHECKPOINT_FILE

    def _read(self) -> tuple[RunState, list[Stored]]:
        content = read_json(self._path)
        check_format(self._path, content, FORMAT)
        try:
            run = dict(content["run"])
            fields = dict(content["state"])
            fields["points"] = [CurvePoint(**point) for point in fields["points"]]
            state = RunState(**fields)
            files = [Stored(**one) for one in content["files"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(f"{self._path}: not the state of a run: {error!r:.200}") from error
        if run != self._run:
            other = sorted(key for key in {*run, *self._run} if run.get(key) != self._run.get(key))
            raise ConfigError(
                f"{self._path} is of another run, which differs in {', '.join(other)}; give this "
                "one a directory of its own, or remove that one"
            )
        return state, files

    def _delta(self, own: Arrays, changed: Mapping[str, NDArray[np.int32]]) -> dict[str, Part]:
        parts = {}
        for name, value in own.items():
            rows = None
            if name in changed:
                rows = np.flatnonzero(changed[name] > self._saved).astype(np.int32)
                parts[_ROWS + name] = Part(rows)
            parts[_ARRAY + name] = Part(value, rows)
        return parts

    def _tidy(self) -> None:
        """Remove what a kill left half-written, and what no checkpoint names any more."""
        named = {stored.name for stored in self._files}
        for pattern in ("base-*", "delta-*", f".{CHECKPOINT_FILE}-*"):
            for path in self._directory.glob(pattern):
                if path.name not in named:
                    path.unlink()


def _arrays(student: Student[Any, Any]) -> Arrays:
    return {**student.weights(), **student.optimiser_state()}


def _checked_layout(path: Path, own: Arrays) -> dict[str, Place]:
    """Return where the arrays of a base or delta are; they must be those of the student."""
    places, _ = read_layout(path)
    rows = {name.removeprefix(_ROWS) for name in places if name.startswith(_ROWS)}
    arrays = {name.removeprefix(_ARRAY) for name in places if name.startswith(_ARRAY)}
    if arrays != set(own) or not rows <= arrays or len(places) != len(rows) + len(arrays):
        raise ModelFileError(f"{path}: holds {sorted(places)}, not the arrays of this student")
    for name, value in own.items():
        place = places[_ARRAY + name]
        expected = value.shape
        if name in rows:
            expected = (*places[_ROWS + name].shape, *value.shape[1:])
            _read_rows(path, places[_ROWS + name], len(value))
        if place.shape != expected or not place.is_of(value.dtype):
            raise ModelFileError(
                f"{path}: {name} is {place.dtype}{list(place.shape)}, not {value.dtype} "
                f"{list(expected)}"
            )
    return places


def _apply(path: Path, places: Mapping[str, Place], own: Arrays) -> None:
    """Read a base, or what a delta changes, into the arrays."""
    for name, value in own.items():
        listed = places.get(_ROWS + name)
        rows = None if listed is None else _read_rows(path, listed, len(value))
        read_into(path, places[_ARRAY + name], value, rows=rows)


def _read_rows(path: Path, place: Place, most: int) -> NDArray[np.int32]:
    """Return the row numbers of a delta, which must ascend and be below ``most``."""
    if not place.is_of(np.dtype(np.int32)) or len(place.shape) != 1 or place.shape[0] > most:
        raise ModelFileError(f"{path}: row numbers are {place.dtype}{list(place.shape)}")
    rows = np.empty(place.shape, np.int32)
    read_into(path, place, rows)
    if len(rows) and (rows[0] < 0 or rows[-1] >= most or (np.diff(rows) <= 0).any()):
        raise ModelFileError(f"{path}: row numbers do not ascend below {most:,}")
    return rows
