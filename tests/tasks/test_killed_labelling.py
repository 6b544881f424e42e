"""A pass of the teacher that is killed at random moments loses, doubles and misaligns no row."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.stages import Workshop
from helpers.tiny_task import run_config, texts, write_lines

from storage import Artifact
from tasks.logit_file import FILE, read_logits
from tasks.shards import read_shard

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "helpers" / "labelling_run.py"
WORKERS = 2
BUDGET = 512


def start(config: Path, notes: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(config), str(notes)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"},
    )  # fmt: skip


def batches(notes: Path) -> int:
    return notes.read_bytes().count(b"\n") if notes.exists() else 0


def kill_after(count: int, config: Path, notes: Path) -> int:
    """Kill a run once it has begun so many batches; returns how many it had begun."""
    process = start(config, notes)
    while process.poll() is None and batches(notes) < count:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
    return batches(notes)


def config_of(workshop: Workshop, directory: Path, rows: int) -> Path:
    tables = {
        "corpus": {"rows_per_shard": rows},
        "teacher": {"checkpoint": "classifier", "finetune": False},
        "logits": {"token_budget": BUDGET},
        "run": {"threads": WORKERS},
    }
    given = run_config(workshop.data, Path(workshop.store.url), **tables)
    path = directory / f"{Path(workshop.store.url).name}.json"
    path.write_text(json.dumps(given), "utf-8")
    return path


def all_logits(workshop: Workshop) -> list[Artifact]:
    found = workshop.store.artifacts("logits")
    return [workshop.store.get(one.kind, one.key) for one in found]


def a_killed_pass_ends_in_the_same_bytes(
    own_data: Path, classifier: Path, tmp_path: Path, *, rows: int, kills: int
) -> None:
    (own_data / "classifier").symlink_to(classifier)
    write_lines(own_data / "corpus.txt", [text for text, _ in texts(rows, seed=5)])
    calm, killed = (Workshop(own_data, tmp_path / name) for name in ("calm", "killed"))
    notes = tmp_path / "calm.notes"
    assert start(config_of(calm, tmp_path, rows), notes).wait() == 0
    needed = batches(notes)

    config, notes = config_of(killed, tmp_path, rows), tmp_path / "killed.notes"
    when = sorted(random.Random(11).sample(range(1, needed - WORKERS), kills))
    for number, moment in enumerate(when):
        kill_after(moment + number * WORKERS, config, notes)
    assert start(config, notes).wait() == 0
    assert needed <= batches(notes) <= needed + kills * WORKERS

    expected = {one.key: one for one in all_logits(calm)}
    assert {one.key for one in all_logits(killed)} == set(expected)
    for one in all_logits(killed):
        assert one.path(FILE).read_bytes() == expected[one.key].path(FILE).read_bytes()
        shard = read_shard(killed.store, one.manifest.inputs["texts"][0])
        ids, values = read_logits(one)
        assert ids.tolist() == shard.ids.tolist()
        assert np.isfinite(values).all()
    assert list(Path(killed.store.url).glob("**/*.journal")) == []


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_pass_killed_twice_ends_in_the_same_bytes(own_data, tiny_classifier, tmp_path):
    a_killed_pass_ends_in_the_same_bytes(own_data, tiny_classifier, tmp_path, rows=3000, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_pass_over_100_000_rows_killed_ten_times_ends_in_the_same_bytes(
    own_data, tiny_classifier, tmp_path
):
    a_killed_pass_ends_in_the_same_bytes(
        own_data, tiny_classifier, tmp_path, rows=100_000, kills=10
    )
