"""Devices for the teacher, one worker each: a job takes one for itself and gives it back.

A GPU is held by a lock on a file that all of a user's processes on the machine see, so that two
runs, or two workers of one run, never share one; the kernel lets go of it when a process dies. The
processor is held within a process only: its threads share the cores, and other processes may use
theirs.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedistill.errors import ConfigError, TeacherError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

logger = logging.getLogger(__name__)

CPU = "cpu"
FIRST_GPU = "cuda:0"
_SECONDS_BETWEEN_LOOKS = 0.05
_processor = threading.Lock()
# What this process used last, where its model may still be loaded.
_used: list[str] = []


def teacher_devices(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the devices of this machine that a teacher may run on.

    Args:
        names: As torch names them; None takes every GPU there is, or else the processor.

    Raises:
        ConfigError: torch knows no such device, or finds none here.
    """
    import torch

    gpus = torch.cuda.device_count()
    if names is None:
        return tuple(f"cuda:{index}" for index in range(gpus)) or (CPU,)
    devices = device_names(names)
    for device in devices:
        kind, _, index = device.partition(":")
        if kind == "cuda" and int(index) >= gpus:
            raise ConfigError(
                f"run.teacher_devices: there is no {device} here, torch finds {gpus} GPUs; leave "
                "the key out to use what there is"
            )
    return devices


def device_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return devices by their full names, each once, whether or not they are on this machine.

    Args:
        names: As torch names them.

    Raises:
        ConfigError: torch knows no such device.
    """
    import torch

    found = []
    for name in names:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ConfigError(
                f"run.teacher_devices: torch knows no device {name!r}: {error!s:.200}"
            ) from error
        found.append(CPU if device.type == CPU else f"{device.type}:{device.index or 0}")
    return tuple(dict.fromkeys(found))


def fine_tuning_device(devices: Sequence[str]) -> str:
    """Return which of these devices the Trainer of transformers takes: the first GPU of torch.

    Args:
        devices: By their full names.

    Raises:
        ConfigError: It is none of them.
    """
    gpus = [device for device in devices if device != CPU]
    if not gpus:
        return CPU
    for device in gpus:
        if not device.startswith("cuda:"):
            raise ConfigError(
                f"run.teacher_devices: fine-tuning runs on a CPU or on CUDA, not on {device}; set "
                '[run] teacher_devices = ["cpu"], or [teacher] finetune = false with a checkpoint '
                "that is fine-tuned"
            )
    if FIRST_GPU not in gpus:
        raise ConfigError(
            f"run.teacher_devices: fine-tuning takes the first GPU that torch sees, {FIRST_GPU}, "
            f"which {', '.join(devices)} leaves out; leave teacher_devices out and set the "
            "environment variable CUDA_VISIBLE_DEVICES to the GPUs that the run may use"
        )
    return FIRST_GPU


@contextmanager
def device_in_turn(devices: Sequence[str]) -> Iterator[str]:
    """Wait until one of these devices is free, and hold it for the length of the block.

    Who waits longer is served before who comes, or comes back, later.

    Args:
        devices: As ``teacher_devices`` gives them.

    Yields:
        The device; where several are free, the one that this process used last.

    Raises:
        TeacherError: The directory of the locks belongs to somebody else.
    """
    if tuple(devices) == (CPU,):
        with _processor:
            yield CPU
        return
    with ExitStack() as held:
        with _turn(devices):
            device = _first_free(devices, held)
        _used[:] = [device]
        yield device


@contextmanager
def _turn(devices: Sequence[str]) -> Iterator[None]:
    """Let one at a time look for a free one of these devices; the others stand behind it.

    Without it, who has just given a device back would take it again at once, while another that
    looks now and then would never find it free.
    """
    queue = hashlib.sha256("\n".join(sorted(devices)).encode()).hexdigest()[:16]
    if CPU in devices:  # whose turn is a matter of each process
        queue += f"-{os.getpid()}"
    file = os.open(_lock_directory() / f"queue-{queue}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        _let_go(file)


def _first_free(devices: Sequence[str], held: ExitStack) -> str:
    looked = False
    while True:
        for device in sorted(devices, key=lambda one: one not in _used):
            if _take(device, held):
                return device
        if not looked:
            logger.info("waiting for one of %s", ", ".join(devices))
            looked = True
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _take(device: str, held: ExitStack) -> bool:
    """Take a device if it is free; the stack gives it back."""
    if device == CPU:
        if not _processor.acquire(blocking=False):
            return False
        held.callback(_processor.release)
        return True
    name = f"device-{_identity(device)}"
    file = os.open(_lock_directory() / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    held.callback(_let_go, file)
    return True


def _let_go(file: int) -> None:
    """Unlock and close: a child forked meanwhile has the file open too, and its lock with it."""
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _identity(device: str) -> str:
    """Return what names a GPU alike in all processes, whichever of them each one sees."""
    if not device.startswith("cuda:"):
        return device.replace(":", "-")
    import torch

    return str(torch.cuda.get_device_properties(device).uuid)


def _lock_directory() -> Path:
    directory = Path(tempfile.gettempdir()) / f"sparsedistill-{os.getuid()}"
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise TeacherError(
            f"{directory} is not a directory of this user; set TMPDIR to one where it can be made"
        )
    return directory
