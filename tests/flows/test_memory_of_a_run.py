"""Counting under Prefect keeps to `[run] memory`, and every runner makes the same vocabulary."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TITLES = ROOT.parent / "shared/data/corpora/reddit_titles.parquet"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not TITLES.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("runner", ["threads", "processes", "dask"])
def test_any_shards_and_workers_give_the_same_vocabulary_in_little_memory(tmp_path, runner):
    found = tmp_path / "rows.json"
    command = [sys.executable, ROOT / "benchmarks/memory_budget.py", TITLES, "--json", found]
    options = ["--rows", 300_000, "--size", 100_000, "--memory", "128MB", "--runners", runner]
    subprocess.run([str(part) for part in (*command, *options)], check=True, cwd=ROOT)
    rows = json.loads(found.read_text("utf-8"))["rows"]
    assert {(row["shards"], row["workers"]) for row in rows[1:]} == {
        (shards, workers) for shards in (1, 7, 64) for workers in (1, 2)
    }
    assert all(row["same"] and row["kept"] for row in rows)
