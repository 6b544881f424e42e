"""A run that is killed in the middle of a stage, and the same command again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_task import run_config, write_toml

from storage import ArtifactStore

ROOT = Path(__file__).parents[2]
KILLED_RUN = ROOT / "tests" / "helpers" / "killed_run.py"
BEFORE = {
    "teacher": {"corpus", "ngrams", "vocabulary", "features"},
    "features": {"corpus", "ngrams", "vocabulary"},
    "logits": {"corpus", "ngrams", "vocabulary", "features", "teacher"},
    "student": {"corpus", "ngrams", "vocabulary", "features", "teacher", "logits"},
}


def start(*program: str, config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["distill", str(config), "--no-prefect", "--out", str(out)]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True, text=True, check=False, timeout=300,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def manifests(store: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every manifest."""
    return {
        str(path.relative_to(store)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in store.glob("*/*/manifest.json")
    }


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*"))


def a_killed_run_goes_on(
    stage: str,
    data: Path,
    tmp_path: Path,
    tables: Mapping[str, Mapping[str, Any]],
    undisturbed: Mapping[str, bytes],
) -> Sequence[str]:
    """Kill a run in a stage and repeat it; returns what lay in the work directory between."""
    store, out = tmp_path / "store", tmp_path / "out"
    config = write_toml(tmp_path / "tiny.toml", run_config(data, store, **tables))
    killed = start(str(KILLED_RUN), stage, config=config, out=out)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = manifests(store)
    kinds = {name.partition("/")[0] for name in finished}
    assert kinds >= BEFORE[stage]
    made = sum(name.startswith(f"{stage}/") for name in finished)
    assert made == (1 if stage in ("logits", "features") else 0)
    assert any(name.startswith(f"{stage}-") for name in left_in(store / ".tmp"))
    assert not out.exists()
    work = left_in(store / ".work")

    again = start("-m", "flows.cli", config=config, out=out)
    assert again.returncode == 0, again.stderr
    after = manifests(store)
    assert {name: after[name] for name in finished} == finished
    delivered = {path.name: path.read_bytes() for path in (out / "model").iterdir()}
    assert delivered.pop("README.md")  # has speeds, which no two runs share
    assert delivered == undisturbed
    assert left_in(store / ".tmp") == []
    assert left_in(store / ".work") == []
    assert all(found.ok for found in ArtifactStore(store).verify())
    return work


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["teacher", "features", "logits"])
def test_a_run_killed_in_this_stage_does_the_rest(
    stage: str,
    tiny_data: Path,
    tmp_path: Path,
    small: Mapping[str, Any],
    small_model: dict[str, bytes],
):
    a_killed_run_goes_on(stage, tiny_data, tmp_path, small, small_model)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_student_killed_in_training_goes_on_from_its_checkpoint_to_the_same_bits(
    tiny_data: Path, tmp_path: Path, small: Mapping[str, Any], small_model: dict[str, bytes]
):
    work = a_killed_run_goes_on("student", tiny_data, tmp_path, small, small_model)
    (directory, lock) = work
    assert directory.startswith("student-")
    assert lock == f"{directory}.lock"
