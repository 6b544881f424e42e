"""Only one at a time works on an artifact, and a killed holder keeps nobody waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage import ArtifactStore, Recipe
from storage.turns import turn_if_free

RECIPE = Recipe("student", 1, {"width": 8})
REPOSITORY = Path(__file__).parents[2]

HOLDER = """
import sys, time
from storage import ArtifactStore, Recipe
store = ArtifactStore(sys.argv[1])
with store.turn(Recipe("student", 1, {"width": 8})):
    print("held", flush=True)
    time.sleep(60)
"""

# Each adds to a counter that nobody guards: only turns keep it exact.
COUNTING = """
import sys, time
from pathlib import Path
from storage import ArtifactStore, Recipe
store, counter = ArtifactStore(sys.argv[1]), Path(sys.argv[2])
for _ in range(int(sys.argv[3])):
    with store.turn(Recipe("student", 1, {"width": 8})) as waited:
        assert waited >= 0
        value = int(counter.read_text())
        time.sleep(0.001)
        counter.write_text(str(value + 1))
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )


def lock_of(root: Path) -> Path:
    return root / ".work" / f"student-{RECIPE.key}.lock"


def test_processes_take_turns_and_leave_no_file(root, tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    ArtifactStore(root)
    processes = [start(COUNTING, root, counter, 40) for _ in range(3)]
    assert [process.communicate()[0] for process in processes] == [""] * 3
    assert [process.returncode for process in processes] == [0] * 3
    assert counter.read_text() == "120"
    assert list((root / ".work").iterdir()) == []


def test_threads_take_turns_too(store):
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        for _ in range(50):
            with store.turn(RECIPE):
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_killed_holder_keeps_nobody_waiting(local_store, root):
    holder = start(HOLDER, root)
    assert holder.stdout.readline() == "held\n"
    with turn_if_free(lock_of(root)) as free:
        assert not free
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with local_store.turn(RECIPE):
        pass
    assert not lock_of(root).exists()


def test_who_waits_is_told_how_long_and_the_log_says_for_what(local_store, root, caplog):
    caplog.set_level("INFO")
    held, waiting = threading.Event(), []

    def first():
        with local_store.turn(RECIPE):
            held.set()
            while "waiting for another" not in caplog.text:
                time.sleep(0.001)

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    with local_store.turn(RECIPE) as waited:
        waiting.append(waited)
    thread.join()
    assert waiting[0] > 0
    assert f"student-{RECIPE.key}" in caplog.text


def test_other_recipes_do_not_wait(local_store):
    with local_store.turn(RECIPE), local_store.turn(Recipe("student", 1, {"width": 16})) as waited:
        assert waited < 60


def test_a_link_in_the_place_of_the_lock_is_refused(local_store, root, tmp_path):
    lock_of(root).parent.mkdir()
    lock_of(root).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), local_store.turn(RECIPE):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_where_nothing_can_be_locked_a_warning_says_so(local_store, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("storage.turns.fcntl.flock", unsupported)
    with local_store.turn(RECIPE):
        assert "cannot be locked" in caplog.text
