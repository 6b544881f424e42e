"""A device is one worker's at a time, over threads, processes and their deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparsedistill.errors import ConfigError, TeacherError
from sparsedistill.teacher.devices import device_in_turn, teacher_devices

# Takes a device, says which, and holds it until its standard input ends.
HOLDER = """
import sys
from sparsedistill.teacher.devices import device_in_turn
with device_in_turn(sys.argv[1:]) as device:
    print(device, flush=True)
    sys.stdin.read()
"""
# Forks in a block of devices.py and goes on out of it, while its child stays inside.
FORKER = """
import os, sys
from sparsedistill.teacher import devices
with getattr(devices, sys.argv[1])(["made-up:0"]):
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
print("out of the block", flush=True)
sys.stdin.read()
"""
MADE_UP = ["made-up:0", "made-up:1"]


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.fixture
def holder() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test started; all are ended."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def hold(
    started: list[subprocess.Popen[str]], *devices: str, script: str = HOLDER
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *devices],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    started.append(process)
    return process


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_no_two_threads_have_the_same_device_and_all_devices_are_used() -> None:
    holding: list[str] = []
    seen: list[tuple[str, ...]] = []
    lock = threading.Lock()

    def work(_: int) -> None:
        with device_in_turn(MADE_UP) as device:
            with lock:
                holding.append(device)
                seen.append(tuple(holding))
            time.sleep(0.02)
            with lock:
                holding.remove(device)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(24)))
    assert len(seen) == 24
    assert all(len(set(some)) == len(some) <= 2 for some in seen)
    assert {device for some in seen for device in some} == set(MADE_UP)


def test_processes_have_different_devices_and_a_third_waits_for_one_of_them(holder) -> None:
    first, second = hold(holder, *MADE_UP), hold(holder, *MADE_UP)
    have = {said(first): first, said(second): second}
    assert sorted(have) == MADE_UP
    got: list[str] = []

    def wait() -> None:
        with device_in_turn(MADE_UP) as device:
            got.append(device)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(0.3)
    assert got == []
    have["made-up:1"].communicate("")
    thread.join()
    assert got == ["made-up:1"]


def test_a_killed_process_gives_its_device_back(holder) -> None:
    process = hold(holder, "made-up:0")
    assert said(process) == "made-up:0"
    os.kill(process.pid, signal.SIGKILL)
    with device_in_turn(["made-up:0"]) as device:
        assert device == "made-up:0"


@pytest.mark.parametrize("block", ["device_in_turn", "_turn"])
def test_a_child_forked_meanwhile_does_not_keep_what_was_given_back(holder, block: str) -> None:
    assert said(hold(holder, block, script=FORKER)) == "out of the block"
    locks = sorted(_lock_directory().iterdir())
    assert locks
    assert not [path.name for path in locks if _is_locked(path)]


def test_a_process_killed_while_it_waits_holds_up_nobody(holder) -> None:
    with device_in_turn(["made-up:0"]):
        waiting = hold(holder, "made-up:0")
        queue = next(_queues(1))
        while not _is_locked(queue):
            time.sleep(0.01)
        os.kill(waiting.pid, signal.SIGKILL)
        waiting.wait()
    with device_in_turn(["made-up:0"]) as device:
        assert device == "made-up:0"


def test_who_waits_is_served_before_who_has_just_given_the_device_back(holder) -> None:
    with device_in_turn(["made-up:0"]):
        process = hold(holder, "made-up:0")
        queue = next(_queues(1))
        while not _is_locked(queue):
            time.sleep(0.01)
    got: list[str] = []

    def again() -> None:
        with device_in_turn(["made-up:0"]) as device:
            got.append(device)

    thread = threading.Thread(target=again)
    thread.start()
    assert said(process) == "made-up:0"
    thread.join(0.2)
    assert got == []
    process.communicate("")
    thread.join()
    assert got == ["made-up:0"]


def test_a_process_keeps_to_the_device_that_it_used_before() -> None:
    with device_in_turn(["made-up:1"]):
        pass
    for _ in range(3):
        with device_in_turn(MADE_UP) as device:
            assert device == "made-up:1"


def test_a_device_is_given_back_when_the_work_fails() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="failed"), device_in_turn(["made-up:0"]):
            raise ValueError("failed")


def test_threads_take_turns_at_the_processor_and_processes_each_have_it(holder) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with device_in_turn(["cpu"]) as device:
            assert device == "cpu"
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(12)))
    assert set(most) == {1}
    assert said(hold(holder, "cpu")) == said(hold(holder, "cpu")) == "cpu"


def test_the_processor_may_be_one_of_several_devices(holder) -> None:
    process = hold(holder, "made-up:0")
    assert said(process) == "made-up:0"
    with device_in_turn(["made-up:0", "cpu"]) as device:
        assert device == "cpu"


def test_locks_are_not_put_where_somebody_else_made_the_directory(tmp_path: Path) -> None:
    (tmp_path / f"sparsedistill-{os.getuid()}").write_text("not a directory")
    with (
        pytest.raises(TeacherError, match="is not a directory of this user; set TMPDIR"),
        device_in_turn(["made-up:0"]),
    ):
        pass


def test_without_names_every_gpu_is_used_or_else_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    for gpus, expected in ((0, ("cpu",)), (2, ("cuda:0", "cuda:1"))):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert teacher_devices(None) == expected
    assert teacher_devices(["cuda", "cuda:0", "cpu"]) == ("cuda:0", "cpu")
    with pytest.raises(ConfigError, match="there is no cuda:2 here, torch finds 2 GPUs"):
        teacher_devices(["cuda:2"])
    with pytest.raises(ConfigError, match="torch knows no device 'gpu'"):
        teacher_devices(["gpu"])


def _queues(count: int) -> Iterator[Path]:
    """Files in which processes stand in line, as soon as there are so many."""
    while len(found := sorted(_lock_directory().glob("queue-*"))) < count:
        time.sleep(0.01)
    yield from found


def _lock_directory() -> Path:
    return Path(tempfile.gettempdir()) / f"sparsedistill-{os.getuid()}"


def _is_locked(path: Path) -> bool:
    import fcntl

    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
