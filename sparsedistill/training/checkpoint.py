"""The state of a run on disk, so that a killed run goes on where it was.

One safetensors file, written beside its place and renamed, so that a kill leaves the last whole
one. One that a power cut damaged all the same is reported, and the run begins again. The loop
decides when to save; nothing about when changes the result.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sparsedistill.errors import ModelFileError
from sparsedistill.files import read_tensors

if TYPE_CHECKING:
    from pathlib import Path

Arrays = dict[str, npt.NDArray[np.float32]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What was seen at one look at ``dev``.

    Attributes:
        update: Updates done.
        epoch: Passes over the data done.
        loss: Mean training loss since the last point.
        dev_accuracy: On the labels of ``dev``.
        seconds: Of training so far (what a kill undid not counted).
    """

    update: int
    epoch: float
    loss: float
    dev_accuracy: float
    seconds: float


@dataclass(slots=True)
class RunState:
    """Where a run is: updates and seconds done, the curve, and the losses since its last point."""

    update: int = 0
    seconds: float = 0.0
    best_update: int = 0
    best_accuracy: float = -1.0
    loss_sum: float = 0.0
    points: list[CurvePoint] = field(default_factory=list)


def save_checkpoint(directory: Path, state: RunState, current: Arrays, best: Arrays) -> None:
    """Write the run's state; an older one stays until this one is whole."""
    arrays = {f"current/{name}": value for name, value in current.items()}
    arrays |= {f"best/{name}": value for name, value in best.items()}
    save_file(arrays, _unfinished(directory), metadata={"state": json.dumps(asdict(state))})
    _unfinished(directory).replace(_file(directory))


def load_checkpoint(directory: Path) -> tuple[RunState, Arrays, Arrays] | None:
    """Return (state, current arrays, best weights) of the last checkpoint, if there is a whole one.

    The current arrays are mapped from the file, the best weights are in memory.
    """
    path = _file(directory)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            fields = json.loads(file.metadata()["state"])
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
        fields["points"] = [CurvePoint(**point) for point in fields["points"]]
        state = RunState(**fields)
        arrays = read_tensors(path, {name: (np.float32, shape) for name, shape in shapes.items()})
    except (SafetensorError, ModelFileError, OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged, so training begins again: %s", path, error)
        return None
    groups: dict[str, Arrays] = {"current": {}, "best": {}}
    for name, value in arrays.items():
        group, _, array = name.partition("/")
        groups[group][array] = value
    return state, groups["current"], {name: value.copy() for name, value in groups["best"].items()}


def _file(directory: Path) -> Path:
    return directory / "checkpoint.safetensors"


def _unfinished(directory: Path) -> Path:
    return directory / "checkpoint.tmp"
