"""The disk is full in one stage after the other: a run says so, and goes on when room is made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.chaos import ROOT, STAGES
from helpers.tiny_task import run_config, write_toml

from flows.delivery import RunResult
from storage import ArtifactStore

MEASURED = {"evaluation", "report"}


def own_disk(directory: Path) -> list[str]:
    """The command that gives a process a name space in which it may mount a disk."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no `unshare` here, so no small disk can be made")
    directory.mkdir()
    command = [unshare, "-Urm"]
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    tried = subprocess.run([*command, *mount], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no small disk can be mounted here: {tried.stderr.strip()}")
    return command


def fill(
    tmp_path: Path, data: Path, reference: Path, stages: Sequence[str], **run: Any
) -> list[dict[str, Any]]:
    """What every stage said of a full disk, and last what there was in the end."""
    mount = tmp_path / "disk"
    command = own_disk(mount)
    store = mount / "store"
    config = write_toml(tmp_path / "tiny.toml", run_config(data, store, run=run))
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    program = [sys.executable, "tests/helpers/full_disk.py", config, mount, reference, *stages]
    done = subprocess.run(
        [*command, *program], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "stages",
    [("student",), pytest.param(STAGES, marks=pytest.mark.slow)],
    ids=["some", "every"],
)
def test_a_full_disk_stops_a_stage_with_the_reason_and_no_stage_for_good(
    tiny_data: Path, tiny_run: RunResult, tiny_store: Path, tmp_path: Path, stages: Sequence[str]
):
    *told, end = fill(tmp_path, tiny_data, tiny_store, stages, check_disk=False)
    assert [one["stage"] for one in told] == [stage for stage in stages for _ in range(2)]
    for one in told:
        assert one["struck"], one
        message = one["error"] or "it did not stop"
        assert one["ours"], one
        assert f"  {one['stage']}: StoreFullError: no space left in" in message, one
        assert "bytes of" in message, one
        assert "Free some space" in message, one
        assert "The rest of the stage needs about" in message, one
        assert one["stage"] not in one["made"] or len(tiny_run.artifacts[one["stage"]]) > 1, one
        assert one["damaged"] == [], one
        assert one["temporary"] == [], one
    undisturbed = {
        f"{made.kind}/{made.key}/{file.name}": file.sha256
        for made in ArtifactStore(tiny_store).artifacts()
        for file in made.files
    }
    assert end["sound"]
    kept = {name: sha for name, sha in end["files"].items() if name.split("/")[0] not in MEASURED}
    assert kept == {n: sha for n, sha in undisturbed.items() if n.split("/")[0] not in MEASURED}
    assert end["kinds"] == {stage: len(some) for stage, some in tiny_run.artifacts.items()}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_with_the_budget_checked_no_stage_begins_that_does_not_fit(
    tiny_data: Path, tiny_store: Path, tmp_path: Path
):
    *told, end = fill(tmp_path, tiny_data, tiny_store, STAGES)
    refused = [one for one in told if "DiskTooSmallError" in (one["error"] or "")]
    assert len(refused) >= 10
    for one in refused:
        assert " need about " in one["error"]
        assert "at the least, and" in one["error"]
        assert one["stage"] not in one["made"]
    assert end["sound"]
