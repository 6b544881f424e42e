"""The best weights: in memory, or in a file of which only the changed rows are rewritten."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from toy_runs import Killed, killed_after, trained
from toy_task import ROWS, WIDTH, Table

from sparsedistill.errors import ModelFileError
from sparsedistill.training import best as module
from sparsedistill.training.best import BestInMemory, BestOnDisk
from sparsedistill.training.loop import Checkpointing


def weights_of(student):
    return {name: value.tobytes() for name, value in student.weights().items()}


@settings(deadline=None, max_examples=40)
@given(
    changes=st.lists(
        st.tuples(st.lists(st.integers(0, ROWS - 1), max_size=ROWS), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    bridge=st.sampled_from([0, 200, 64 << 10]),
)
def test_both_kinds_give_back_what_was_kept_last(tmp_path_factory, changes, bridge):
    directory = tmp_path_factory.mktemp("best")
    student, memory, disk = Table(), BestInMemory(), BestOnDisk(directory)
    kept = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BRIDGE", bridge)
        for rows, better in changes:
            student.change(rows)
            if better:
                kept = (student.update, weights_of(student))
                memory.keep(student, student.update)
                disk.keep(student, student.update)
    if kept is None:
        return
    update, weights = kept
    for best in (memory, disk):
        other = Table()
        best.restore(other, update)
        assert weights_of(other) == weights
    file = load_file(directory / "best.safetensors")
    assert {name: value.tobytes() for name, value in file.items()} == weights


def test_only_rows_that_changed_are_written(tmp_path, monkeypatch):
    student, best = Table(), BestOnDisk(tmp_path)
    student.change(range(ROWS))
    best.keep(student, 1)
    written = []
    pwrite = os.pwrite
    monkeypatch.setattr(module, "_BRIDGE", 2 * WIDTH * 4)
    monkeypatch.setattr(
        os, "pwrite", lambda handle, data, at: written.append(len(data)) or pwrite(handle, data, at)
    )
    student.change([3, 40, 41, 44])
    best.keep(student, 2)
    # Row 3, and as one piece those from 40 to 44: the two between them are few.
    row = WIDTH * 4
    assert sorted(written[1:]) == sorted([row, 5 * row, 2 * WIDTH * 4, 2 * 4])


def test_the_first_better_moment_of_a_resumed_run_mends_what_the_killed_one_left(tmp_path):
    student, best = Table(), BestOnDisk(tmp_path)
    student.change(range(ROWS))
    best.keep(student, 1)
    ahead = Table()
    ahead.change(range(ROWS))
    ahead.change([7, 8, 9])  # as a run that was killed after a moment its checkpoint has not
    killed = BestOnDisk(tmp_path)
    killed.keep(ahead, 2)
    resumed = BestOnDisk(tmp_path)
    resumed.check(student, 1)
    student.change([9])
    resumed.keep(student, 2)
    other = Table()
    resumed.restore(other, 2)
    assert weights_of(other) == weights_of(student)


def test_a_run_that_did_not_repeat_itself_is_found_out(tmp_path):
    student, best = Table(), BestOnDisk(tmp_path)
    student.change([1])
    best.keep(student, 5)
    (tmp_path / "checkpoint.json").touch()
    with pytest.raises(ModelFileError, match="has weights of update 5, but the best are of 3"):
        BestOnDisk(tmp_path).restore(student, 3)
    # Or the next run would go on from there, and end here again.
    assert not (tmp_path / "checkpoint.json").exists()
    with pytest.raises(ModelFileError, match="older than the checkpoint"):
        BestOnDisk(tmp_path).check(student, 6)


def test_a_file_changed_behind_a_runs_back_is_an_error_that_names_it(tmp_path):
    student, best = Table(), BestOnDisk(tmp_path)
    student.change([1])
    best.keep(student, 5)
    path = tmp_path / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelFileError, match=r"best\.safetensors: not a whole"):
        best.restore(student, 5)


def test_before_a_checkpoint_speaks_of_it_the_file_is_seen_to_the_disk(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "pwrite", "replace"):
        call = getattr(os, name)

        def noted(*arguments, name=name, call=call):
            file = Path("/proc/self/fd", str(arguments[0])) if name != "replace" else Path()
            calls.append((name, file.resolve().name))
            return call(*arguments)

        monkeypatch.setattr(os, name, noted)
    with pytest.raises(Killed):
        trained(Checkpointing(tmp_path, every_seconds=0), progress=killed_after(10))
    unsynced, moves = set(), 0
    for name, file in calls:
        if name == "pwrite":
            unsynced.add(file)
        elif name == "fsync":
            unsynced.discard(file)
        else:
            moves += 1
            assert not unsynced
    assert moves == 10


def test_without_a_directory_the_table_is_copied_once(monkeypatch):
    student, best = Table(), BestInMemory()
    best.keep(student, 1)
    copies = dict(best._weights)
    student.change([2])
    best.keep(student, 2)
    assert all(best._weights[name] is copies[name] for name in copies)
    assert all(
        np.array_equal(best._weights[name], value) for name, value in student.weights().items()
    )
