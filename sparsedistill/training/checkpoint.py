"""The state of a run on disk, so that a killed run goes on where it was.

One safetensors file, written beside its place and renamed: there is always the last whole one. The
loop decides when; nothing about when changes the result.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from pathlib import Path

Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What was seen at one look at ``dev``.

    Attributes:
        update: Updates done.
        epoch: Passes over the data done.
        loss: Mean training loss since the last point.
        dev_accuracy: On the labels of ``dev``.
        seconds: Since the run began (what came before a kill not counted).
    """

    update: int
    epoch: float
    loss: float
    dev_accuracy: float
    seconds: float


@dataclass(slots=True)
class RunState:
    """Where a run is: updates done, the curve so far, and the loss since its last point."""

    update: int = 0
    best_update: int = 0
    best_accuracy: float = -1.0
    losses: list[float] = field(default_factory=list)
    points: list[CurvePoint] = field(default_factory=list)


def save_checkpoint(directory: Path, state: RunState, current: Arrays, best: Arrays) -> None:
    """Write the run's state; an older one stays until this one is whole."""
    temporary = directory / "checkpoint.tmp"
    arrays = {f"current/{name}": value for name, value in current.items()}
    arrays |= {f"best/{name}": value for name, value in best.items()}
    save_file(arrays, temporary, metadata={"state": json.dumps(asdict(state))})
    temporary.replace(_file(directory))


def load_checkpoint(directory: Path) -> tuple[RunState, Arrays, Arrays] | None:
    """Return (state, current arrays, best weights) of the last whole checkpoint, if there is one."""
    if not _file(directory).exists():
        return None
    with safe_open(_file(directory), framework="numpy") as file:
        fields = json.loads(file.metadata()["state"])
        fields["points"] = [CurvePoint(**point) for point in fields["points"]]
        groups: dict[str, Arrays] = {"current": {}, "best": {}}
        for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
            group, _, array = name.partition("/")
            groups[group][array] = file.get_tensor(name)
    return RunState(**fields), groups["current"], groups["best"]


def discard_checkpoint(directory: Path) -> None:
    """Remove what a finished run no longer needs."""
    for path in (_file(directory), directory / "checkpoint.tmp"):
        if path.exists():
            path.unlink()


def _file(directory: Path) -> Path:
    return directory / "checkpoint.safetensors"
