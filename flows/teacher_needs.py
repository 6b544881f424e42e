"""Where the teacher of a run works: asked before the run's first stage, and before its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsedistill.teacher.devices import CPU, teacher_devices

if TYPE_CHECKING:
    from flows.config import DistillConfig

GPU_TAG = "gpu"
_STAGES = {"teacher", "logits"}


def check_teacher_devices(config: DistillConfig) -> None:
    """See that the devices named for the teacher are there.

    On machines elsewhere (a Dask cluster by its address) each looks for itself.

    Raises:
        ConfigError: torch knows no such device, or finds none here.
    """
    if config.run.teacher_devices is not None and config.run.dask_address is None:
        teacher_devices(config.run.teacher_devices)


def on_gpu(stage: str, config: DistillConfig) -> bool:
    """Return whether what a stage has to make needs a GPU for the teacher.

    Where no devices are named, this machine's are looked at: for a Dask cluster elsewhere they
    should be named.
    """
    if config.teacher is None or stage not in _STAGES:
        return False
    named = config.run.teacher_devices
    return any(name != CPU for name in (teacher_devices(None) if named is None else named))
