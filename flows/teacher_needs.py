"""Where the teacher of a run works: asked before the run's first stage, and before its tasks."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from sparsedistill.errors import ConfigError
from sparsedistill.teacher.devices import CPU, device_names, fine_tuning_device, teacher_devices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.config import DistillConfig

GPU_TAG = "gpu"
_STAGES = {"teacher", "logits", "evaluation"}


def check_teacher_devices(config: DistillConfig) -> None:
    """See that the devices of the teacher are there, and can do what is asked of them.

    What is on machines elsewhere (a Dask cluster by its address) each looks for itself.

    Raises:
        ConfigError: torch knows no such device, or finds none here; or the device has not the
            precision or the engine, or cannot fine-tune. The message says what to set.
    """
    named, elsewhere = config.run.teacher_devices, config.run.dask_address is not None
    if config.teacher is None and named is None:
        return
    if elsewhere:
        devices = () if named is None else device_names(named)
    else:
        devices = teacher_devices(named)
    if config.teacher is None:
        return
    if config.logits.engine == "openvino":
        _check_openvino(devices, precision=config.teacher.precision, installed_here=not elsewhere)
    if config.teacher.precision == "float16" and CPU in devices:
        raise ConfigError(
            '[teacher] precision = "float16" is for GPUs, and the teacher would run on the CPU; '
            'set "bfloat16" or "float32", or name only GPUs in [run] teacher_devices'
        )
    if config.teacher.finetune:
        fine_tuning_device(devices)


def on_gpu(stage: str, config: DistillConfig) -> bool:
    """Return whether what a stage has to make needs a GPU for the teacher.

    Where no devices are named, this machine's are looked at: for a Dask cluster elsewhere they
    should be named.
    """
    if config.teacher is None or stage not in _STAGES:
        return False
    named = config.run.teacher_devices
    return any(name != CPU for name in (teacher_devices(None) if named is None else named))


def _check_openvino(devices: Sequence[str], *, precision: str, installed_here: bool) -> None:
    """Refuse OpenVINO where it cannot run.

    Args:
        devices: As far as they are known.
        precision: Of the products.
        installed_here: Whether it is on this machine that it has to be installed.

    Raises:
        ConfigError: A device is no CPU, the precision is float16, or the package is missing.
    """
    gpus = [device for device in devices if device != CPU]
    if gpus:
        raise ConfigError(
            f'[logits] engine = "openvino" is for CPUs, and the teacher would run on {gpus[0]}; '
            'set engine = "torch", or [run] teacher_devices = ["cpu"]'
        )
    if precision == "float16":
        raise ConfigError(
            '[logits] engine = "openvino" has no float16; set [teacher] precision to "bfloat16" '
            'or "float32"'
        )
    if installed_here and find_spec("openvino") is None:
        raise ConfigError(
            '[logits] engine = "openvino" needs the package: pip install "sparsedistill[openvino]"'
            '; or set engine = "torch"'
        )
