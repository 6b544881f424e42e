"""What the benchmark of orchestration measures and counts; its times are nobody's promise."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_measures_unchanged_and_working_runs(tmp_path: Path):
    found = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "benchmarks/orchestration.py", "--shards", "6", "--seconds", "0.05",
         "--workers", "2", "--repeat", "1", "--runners", "threads", "--json", found],
        capture_output=True, text=True, check=False, timeout=500, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read = json.loads(found.read_text())
    assert read["unchanged"]["threads"]["computed"] == 0
    assert read["working"]["threads"]["ideal_seconds"] == pytest.approx(0.15)
    first, later = (read["unchanged_s3"][when] for when in ("first", "later"))
    # Manifests are read once each, and not again by a machine that has read them.
    artifacts = read["made_inline"]["artifacts"]
    assert artifacts <= first["requests"]["GET"] <= artifacts + 40
    assert later["requests"]["GET"] < 5
    assert first["requests"]["LIST"] < 60
    assert first["computed"] == later["computed"] == 0
    assert "one task run a shard" in done.stdout
    assert read["environment"]["packages"]["prefect"]


def test_requests_are_told_apart_by_what_they_ask_for(tmp_path: Path):
    import local_servers

    log = tmp_path / "log"
    log.write_text(
        'x - - [now] "GET /b/store/a HTTP/1.1" 200 -\n'
        'x - - [now] "GET /b?list-type=2&prefix=store HTTP/1.1" 200 -\n'
        'x - - [now] "PUT /b/store/a HTTP/1.1" 200 -\n'
    )
    assert local_servers.requests(log) == {"GET": 1, "LIST": 1, "PUT": 1}


def test_the_size_of_a_database_has_what_is_still_in_its_log(tmp_path: Path):
    import local_servers

    path = tmp_path / "some.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    before = local_servers.size(path)
    connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.commit()
    assert local_servers.size(path) - before >= 90_000
    connection.close()
