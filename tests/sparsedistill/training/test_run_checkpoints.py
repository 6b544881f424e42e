"""Checkpoints: a base and deltas, small where few rows changed, whole or not there."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import Killed, killed_after, trained
from toy_task import ROWS, WIDTH, Table, ToyStudent

from sparsedistill.training.best import BestOnDisk
from sparsedistill.training.checkpoint import Checkpoints, CurvePoint, RunState
from sparsedistill.training.loop import Checkpointing


def checkpoints(directory):
    return Checkpoints(directory, run={"seed": 1}, best=BestOnDisk(directory))


def chain(directory):
    """Kinds of the files that the checkpoint names, and their bytes."""
    files = json.loads((directory / "checkpoint.json").read_text())["files"]
    return [(one["name"].split("-")[0], one["bytes"]) for one in files]


rows_of_an_update = st.lists(st.integers(0, ROWS - 1), max_size=ROWS, unique=True)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(rows_of_an_update, min_size=1, max_size=4), min_size=1, max_size=12))
def test_what_is_loaded_is_what_was_saved_whatever_changed_between_saves(tmp_path_factory, changes):
    directory = tmp_path_factory.mktemp("run")
    student, saving = Table(), checkpoints(directory)
    for between in changes:
        for rows in between:
            student.change(rows)
        saving.save(student, RunState(update=student.update))
        other = Table()
        assert checkpoints(directory).load(other).update == student.update
        assert other.everything() == student.everything()
        kinds = [kind for kind, _ in chain(directory)]
        assert kinds == ["base"] + ["delta"] * (len(kinds) - 1)
        named = {path.name for path in directory.iterdir()} - {"checkpoint.json"}
        assert len(named) == len(kinds)


def test_a_run_goes_on_from_a_loaded_state_as_from_its_own(tmp_path):
    # The numbers of the updates start anew in a process, those of the rows that changed do too.
    student, saving = Table(), checkpoints(tmp_path)
    student.change(range(ROWS))
    saving.save(student, RunState(update=1))
    student.change([1, 2])
    saving.save(student, RunState(update=2))
    resumed, again = Table(), checkpoints(tmp_path)
    again.load(resumed)
    resumed.update = 2
    resumed.change([2, 5])
    again.save(resumed, RunState(update=3))
    loaded = Table()
    checkpoints(tmp_path).load(loaded)
    assert loaded.everything() == resumed.everything()
    assert [kind for kind, _ in chain(tmp_path)] == ["base", "delta", "delta"]


def test_a_delta_costs_what_changed_and_a_new_base_comes_before_deltas_outgrow_it(tmp_path):
    student, saving = Table(), checkpoints(tmp_path)
    seen = []
    for update in range(1, 40):
        student.change([update, update + 20])
        saving.save(student, RunState(update=update))
        files = chain(tmp_path)
        seen.append(len(files))
        base, *deltas = [size for _, size in files]
        assert base > 2 * ROWS * WIDTH * 4
        assert sum(deltas) < base
        # Two rows of each array, the small arrays and the header.
        assert all(size < 2 * 2 * WIDTH * 4 + 1500 for size in deltas)
    assert max(seen) > 4
    assert seen.count(1) > 1


def test_the_state_of_a_run_comes_back_to_the_last_bit(tmp_path):
    point = CurvePoint(3, 0.1, 1 / 3, 2 / 3, 1.25, 1e-9, 0.1)
    state = RunState(3, 0.1 + 0.2, 0, 0.7, 1 / 7, 12, 1e300, 5e-324, [point, point])
    student = Table()
    checkpoints(tmp_path).save(student, state)
    assert checkpoints(tmp_path).load(student) == state


def test_where_nothing_was_saved_nothing_is_loaded(tmp_path):
    student = Table()
    before = student.everything()
    assert checkpoints(tmp_path).load(student) is None
    assert student.everything() == before


def killed_run(directory, update=9):
    with pytest.raises(Killed):
        trained(Checkpointing(directory, every_seconds=0), progress=killed_after(update))
    assert [kind for kind, _ in chain(directory)][:2] == ["base", "delta"]


def find(directory, kind):
    return next(directory.glob(f"{kind}*"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


def replace_text(old, new):
    def change(path):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("base", cut),
        ("base", flip),
        ("base", lambda path: path.unlink()),
        ("delta", cut),
        ("delta", flip),
        ("delta", lambda path: path.unlink()),
        ("delta", lambda path: path.write_bytes(b"")),
        ("best", cut),
        ("best", lambda path: path.unlink()),
        ("best", lambda path: path.write_bytes(b"\xff" * 100)),
        ("checkpoint.json", cut),
        ("checkpoint.json", replace_text('"best_update"', '"bust_update"')),
        ("checkpoint.json", replace_text('"checksum"', '"check"')),
        ("checkpoint.json", replace_text('"format": 1', '"format": 0')),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_the_run_begins_again(tmp_path, caplog, kind, damage):
    killed_run(tmp_path)
    damaged = find(tmp_path, kind)
    damage(damaged)
    seen = []
    checkpointing = Checkpointing(tmp_path, every_seconds=0)
    assert trained(checkpointing, progress=lambda done, _: seen.append(done)) == trained()
    assert seen[0] == 1
    assert str(damaged) in caplog.text
    assert "training begins again" in caplog.text


def test_a_checkpoint_of_another_student_is_reported_and_the_run_begins_again(tmp_path, caplog):
    class Wider(ToyStudent):
        def __init__(self):
            super().__init__()
            self._state["more"] = np.zeros(3, np.float32)

    class Double(ToyStudent):
        def __init__(self):
            super().__init__()
            self._state["table.moment"] = self._state["table.moment"].astype(np.float64)

    checkpointing = Checkpointing(tmp_path, every_seconds=0)
    killed_run(tmp_path)
    trained(checkpointing, student=Wider())
    assert "not the arrays of this student" in caplog.text
    trained(checkpointing, student=Double())
    assert "not the arrays of this student" in caplog.text
    trained(checkpointing)
    assert "table.moment is F64[64, 16], not float32" in caplog.text


def test_what_a_kill_left_half_written_is_removed_and_other_files_are_not(tmp_path):
    killed_run(tmp_path)
    for name in ("base-000000000099.safetensors", ".checkpoint.json-x1", "notes.txt"):
        (tmp_path / name).write_bytes(b"half")
    assert trained(Checkpointing(tmp_path)) == trained()
    assert {path.name for path in tmp_path.iterdir() if path.read_bytes() == b"half"} == {
        "notes.txt"
    }
