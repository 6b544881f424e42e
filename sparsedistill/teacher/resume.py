"""What survives a kill while a teacher is fine-tuned: resume points, the best model, what is done.

A directory counts only with its seal, a file written last and whole that holds the digest of every
other file: whatever a kill cut short, or a disk spoiled, is not there. So the last good one is
found, whatever happened to those after it.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sparsedistill.errors import ModelFileError
from sparsedistill.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEAL = "sealed.json"


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the grid with one seed, and how well it does.

    Attributes:
        batch_size: Rows of an update.
        learning_rate: Its highest.
        seed: Of the head's start, the data order and dropout.
        dev_accuracy: Of its best epoch.
        best_epoch: Which that is, from 1.
        seconds: Of work, without what a kill made vain.
    """

    batch_size: int
    learning_rate: float
    seed: int
    dev_accuracy: float
    best_epoch: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Best:
    """The best model of a trial so far."""

    directory: Path
    accuracy: float
    epoch: int


class TrialFiles:
    """The directory of one trial: at most two resume points, and the best model so far.

    Args:
        directory: Made where it is missing. What is in it without a good seal is removed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        for path in self._all("checkpoint") + self._all("best"):
            if opened(path) is None:
                shutil.rmtree(path)

    def checkpoint(self, update: int) -> Path:
        """Return where transformers' Trainer puts the state after an update."""
        return self.directory / f"checkpoint-{update}"

    def last_checkpoint(self, *, first_look: int) -> tuple[Path, float] | None:
        """Return the last resume point and the seconds of work that led to it, if there is one.

        One that comes after a look at ``dev`` needs the best model of that look: without it, all of
        them are removed, and the trial begins anew.

        Args:
            first_look: Updates before the first look at ``dev``.
        """
        for path in reversed(self._all("checkpoint")):
            facts = opened(path)
            if facts is not None and (_number(path) < first_look or self.best() is not None):
                return path, float(facts["seconds"])
        self.forget("checkpoint")
        self.forget("best")
        return None

    def best(self) -> Best | None:
        """Return the best model so far."""
        for path in reversed(self._all("best")):
            facts = opened(path)
            if facts is not None:
                return Best(path, float(facts["accuracy"]), int(facts["epoch"]))
        return None

    def keep_best(
        self, accuracy: float, *, epoch: int, update: int, save: Callable[[Path], None]
    ) -> None:
        """Have a model saved and put it in place of the best before."""
        before, path = self._all("best"), self.directory / f"best-{update}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        save(path)
        seal(path, accuracy=accuracy, epoch=epoch)
        for old in before:
            if old != path:
                shutil.rmtree(old)

    def forget(self, kind: str) -> None:
        """Remove all resume points (``checkpoint``) or models (``best``)."""
        for path in self._all(kind):
            shutil.rmtree(path)

    def _all(self, kind: str) -> list[Path]:
        return sorted(self.directory.glob(f"{kind}-*"), key=_number)


class Records:
    """Which trials of a grid are done, and the directory of the best of them.

    Args:
        directory: Of all trials; survives a kill.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def files(self, number: int) -> TrialFiles:
        """Return the directory of a trial that is still to be run, or to be finished."""
        return TrialFiles(self._directory / f"trial-{number:03d}")

    def done(self) -> dict[int, Trial]:
        """Return the finished trials by number; none, where the model of the best of them is lost.

        The others' models are removed as soon as there is a better one, so all are to be run again.
        """
        found = {}
        for path in sorted(self._directory.glob("trial-*.json")):
            try:
                found[_number(path.with_suffix(""))] = Trial(**read_json(path))
            except (ModelFileError, TypeError):
                path.unlink()
        winner = best_trial(found)
        if winner is not None and self.files(winner).best() is None:
            for number in found:
                self._record(number).unlink()
            return {}
        return found

    def finish(self, number: int, trial: Trial) -> None:
        """Write a trial down as done, and remove the models of those that are not the best."""
        write_json(self._record(number), asdict(trial))
        done = self.done()
        for other in done:
            if other != best_trial(done):
                shutil.rmtree(self._directory / f"trial-{other:03d}", ignore_errors=True)
            else:
                self.files(other).forget("checkpoint")

    def _record(self, number: int) -> Path:
        return self._directory / f"trial-{number:03d}.json"


def best_trial(trials: dict[int, Trial]) -> int | None:
    """Return the number of the first of the best."""
    return max(sorted(trials), key=lambda number: trials[number].dev_accuracy, default=None)


def seal(directory: Path, **facts: Any) -> None:  # noqa: ANN401
    """Say that a directory is complete; its files must not change from now on."""
    write_json(directory / SEAL, {**facts, "files": _digests(directory)})


def opened(directory: Path) -> dict[str, Any] | None:
    """Return the facts of a sealed directory; None if it has no seal, or is not as it was."""
    try:
        facts = read_json(directory / SEAL)
    except ModelFileError:
        return None
    return facts if facts.get("files") == _digests(directory) else None


def _digests(directory: Path) -> dict[str, str]:
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != SEAL:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(directory).as_posix()] = digest
    return found


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
