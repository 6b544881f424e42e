"""A run that is killed, wherever it is, and goes on ends in the bytes of an undisturbed one."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_runs import RECIPE, DyingDisk, Killed, killed_after, ticking, trained

from sparsedistill.training.loop import Checkpointing

UPDATES = 20
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def undisturbed():
    return trained()


def left_in(directory):
    """Kinds of the files that a run leaves; those of its chain are what the checkpoint names."""
    files = {path.name for path in directory.iterdir()}
    checkpoint = directory / "checkpoint.json"
    if checkpoint.exists():
        named = {one["name"] for one in json.loads(checkpoint.read_text())["files"]}
        assert named == {name for name in files if name.startswith(("base-", "delta-"))}
    return sorted(name.split("-")[0] for name in files)


@pytest.mark.parametrize("kill", np.random.default_rng(5).integers(1, UPDATES + 1, 20).tolist())
@pytest.mark.parametrize("every_seconds", [0, 12])
def test_a_run_killed_at_any_update_ends_in_the_bytes_of_an_undisturbed_one(
    tmp_path, monkeypatch, undisturbed, kill, every_seconds
):
    ticking(monkeypatch)
    checkpointing = Checkpointing(tmp_path, every_seconds)
    with pytest.raises(Killed):
        trained(checkpointing, progress=killed_after(kill))
    assert trained(checkpointing) == undisturbed
    # Killed after the last update, before its artifact was published: nothing is trained again.
    if every_seconds == 0:
        assert trained(checkpointing, progress=killed_after(1)) == undisturbed


def test_a_run_may_be_killed_any_number_of_times(tmp_path, monkeypatch, undisturbed):
    ticking(monkeypatch)
    checkpointing = Checkpointing(tmp_path, every_seconds=12)
    kills = np.random.default_rng(0).integers(1, UPDATES + 1, 20).tolist()
    for kill in kills:
        with suppress(Killed):
            trained(checkpointing, progress=killed_after(kill))
    assert trained(checkpointing) == undisturbed


@pytest.mark.parametrize("every_seconds", [0, 12])
def test_a_run_killed_in_any_call_that_changes_a_file_loses_nothing(
    tmp_path, monkeypatch, caplog, every_seconds
):
    ticking(monkeypatch)
    recipe = replace(RECIPE, epochs=1, evaluate_every=2)
    undisturbed, kinds, calls = trained(recipe=recipe), set(), 0
    while True:
        calls += 1
        directory = tmp_path / str(calls)
        directory.mkdir()
        checkpointing = Checkpointing(directory, every_seconds)
        with monkeypatch.context() as patched:
            DyingDisk(calls).patch(patched)
            try:
                assert trained(checkpointing, recipe=recipe) == undisturbed
            except Killed:
                pass
            else:
                break
        with monkeypatch.context() as patched:
            DyingDisk(10**9).patch(patched)
            # A second kill, soon after the run was taken up.
            with suppress(Killed):
                trained(checkpointing, recipe=recipe, progress=killed_after_more(4))
            assert trained(checkpointing, recipe=recipe) == undisturbed
        kinds |= set(left_in(directory))
    assert calls > 20
    assert "damaged" not in caplog.text
    # Nothing temporary is left, and nothing that no checkpoint names.
    assert kinds <= {"best.safetensors", "checkpoint.json", "base", "delta"}


def killed_after_more(updates):
    seen = []

    def progress(done, total):
        seen.append(done)
        if len(seen) == updates:
            raise Killed

    return progress


@pytest.mark.parametrize("calls", [5, 29, 64, 101])
def test_a_process_that_is_gone_in_the_middle_of_a_write_loses_nothing(
    tmp_path, undisturbed, calls
):
    script = Path(__file__).with_name("killed_training.py")
    ended = subprocess.run(
        [sys.executable, script, tmp_path, str(calls)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
    )
    assert ended.returncode == 9, ended.stderr.decode()
    assert trained(Checkpointing(tmp_path, every_seconds=0)) == undisturbed


@pytest.mark.parametrize("kill", range(1, 10))
def test_a_run_that_ends_early_ends_at_the_same_update_when_it_was_killed(tmp_path, kill):
    recipe = replace(RECIPE, evaluate_every=1, patience=3)
    undisturbed = trained(recipe=recipe)
    assert undisturbed[1].stopped_early
    assert undisturbed[1].updates == undisturbed[1].best_update + 3
    checkpointing = Checkpointing(tmp_path, every_seconds=0)
    with suppress(Killed):
        trained(checkpointing, recipe=recipe, progress=killed_after(kill))
    assert trained(checkpointing, recipe=recipe) == undisturbed
    assert trained(checkpointing, recipe=recipe, progress=killed_after(1)) == undisturbed


def test_how_often_a_run_is_saved_does_not_change_it(tmp_path, undisturbed):
    (tmp_path / "often").mkdir()
    assert trained(Checkpointing(tmp_path / "often", every_seconds=0)) == undisturbed
    assert trained(Checkpointing(tmp_path)) == undisturbed
