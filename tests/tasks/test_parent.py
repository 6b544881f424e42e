"""Workers of a pool whose parent is killed: they end, busy or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import tasks.parent

ROOT = Path(tasks.parent.__file__).parents[1]
# A worker that waits for work, and one that works.
POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from tasks.parent import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(
        2, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent
    )
    both = [pool.submit(time.sleep, 0.5) for _ in range(2)]
    [one.result() for one in both]
    busy = pool.submit(time.sleep, 3600)
    print("ready", flush=True)
    busy.result()
"""


@pytest.mark.timeout(120)
def test_workers_end_with_their_parent(tmp_path: Path):
    script = tmp_path / "pool.py"
    script.write_text(POOL, "utf-8")
    pool = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert pool.stdout is not None
    assert pool.stdout.readline() == b"ready\n"
    workers = [
        one
        for one in psutil.Process(pool.pid).children()
        if any("spawn_main" in part for part in one.cmdline())
    ]
    assert len(workers) == 2
    pool.kill()
    pool.wait()
    pool.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


def test_a_process_without_such_a_parent_is_left_alone():
    tasks.parent.end_with_parent()
