"""Every record says run, stage and shard; a log file holds whole lines and no secrets."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.logs import OURS, Told, Where, handled_by, log_file, within, without_secrets

LOG = logging.getLogger("tasks.something")
ROOT = Path(__file__).parents[2]
WRITER = """
import logging, sys
from tasks.logs import log_file, within
with log_file(sys.argv[1], run="r"), within(run="r", stage="features", shard=sys.argv[2]):
    for number in range(300):
        logging.getLogger("storage.store").warning("%s %d", "x" * 500, number)
"""


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_line_says_where_its_record_belongs(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    with log_file(str(path), run="weekly"), within(run="weekly"):
        LOG.info("begun")
        with within(stage="features", shard="shard 3"):
            LOG.warning("odd: %d", 7, extra={"fields": {"artifact": "features/abc"}})
        with within(stage="logits"):
            try:
                1 / 0  # noqa: B018
            except ZeroDivisionError:
                LOG.exception("failed")
    begun, odd, failed = lines(path)
    assert (begun["level"], begun["message"], begun["logger"]) == ("info", "begun", LOG.name)
    assert [begun[name] for name in ("run", "stage", "shard")] == ["weekly", "", ""]
    assert [odd[name] for name in ("run", "stage", "shard")] == ["weekly", "features", "shard 3"]
    assert (odd["message"], odd["artifact"]) == ("odd: 7", "features/abc")
    assert failed["stage"] == "logits"
    assert "ZeroDivisionError" in failed["error"]


def test_threads_that_work_side_by_side_do_not_mix(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    together = threading.Barrier(4)

    def work(number: int) -> None:
        with within(run="r", stage="logits", shard=f"shard {number}"):
            for _ in range(20):
                together.wait(timeout=30)
                LOG.info("%d", number)

    with log_file(str(path), run="r"):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = lines(path)
    assert len(found) == 80
    assert all(line["shard"] == f"shard {line['message']}" for line in found)


def test_processes_append_whole_lines_to_one_file(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, f"shard {number}"], cwd=ROOT)
        for number in range(3)
    ]
    assert [writer.wait(timeout=100) for writer in writers] == [0, 0, 0]
    found = lines(path)
    assert len(found) == 900
    for number in range(3):
        mine = [line for line in found if line["shard"] == f"shard {number}"]
        assert [line["message"].split()[1] for line in mine] == [str(n) for n in range(300)]
        assert len({line["process"] for line in mine}) == 1


def test_a_log_has_nothing_of_another_run_in_the_same_process(tmp_path: Path):
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    with log_file(str(one), run="one"), log_file(str(other), run="other"):
        for run in ("one", "other"):
            with within(run=run):
                LOG.info("of %s", run)
    assert [line["message"] for line in lines(one)] == ["of one"]
    assert [line["message"] for line in lines(other)] == ["of other"]


def test_blocks_of_one_log_share_its_handler_and_leave_everything_as_it_was(tmp_path: Path):
    before = [(logging.getLogger(n).level, list(logging.getLogger(n).handlers)) for n in OURS]
    path = tmp_path / "run.jsonl"
    with log_file(str(path), run="r"):
        with log_file(str(path), run="r"):
            LOG.info("once")
        LOG.info("still")
    LOG.info("no more")
    assert [line["message"] for line in lines(path)] == ["once", "still"]
    after = [(logging.getLogger(n).level, list(logging.getLogger(n).handlers)) for n in OURS]
    assert after == before


def test_a_worker_that_cannot_write_the_log_says_so_and_works_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with log_file(str(tmp_path / "no" / "such" / "run.jsonl"), run="r"):
        LOG.warning("worked on")
    assert "cannot be written here" in caplog.text
    assert "worked on" in caplog.text


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD", "SOME_API_KEY", "AWS_ACCESS_KEY_ID"],
)
def test_what_the_environment_keeps_secret_is_in_no_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    secret = 'hunter2"\\\N{SNOWMAN}/+more'
    monkeypatch.setenv(name, secret)
    path = tmp_path / "run.jsonl"
    with log_file(str(path), run="r"):
        LOG.warning("refused for %s", secret, extra={"fields": {"given": [secret]}})
        try:
            raise ValueError(f"bad: {secret}")
        except ValueError:
            LOG.exception("failed")
    written = path.read_text("utf-8")
    assert len(lines(path)) == 2
    assert secret not in written
    assert secret not in " ".join(str(value) for line in lines(path) for value in line.values())
    assert "***" in written


@pytest.mark.parametrize("name", ["GIT_AUTHOR_NAME", "XAUTHORITY"])
def test_an_author_is_no_secret(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "features")
    assert without_secrets("features/0a1b made") == "features/0a1b made"
    monkeypatch.setenv("PROXY_AUTH", "features")
    assert without_secrets("features/0a1b made") == "***/0a1b made"


def test_a_url_is_in_no_line_with_its_password_or_its_query(tmp_path: Path):
    path = tmp_path / "run.jsonl"
    with log_file(str(path), run="r"):
        LOG.warning("cannot reach %s", "postgresql://u:hunter2hunter2@h/db")
        LOG.warning("read", extra={"fields": {"source": "https://h/c.txt?X-Amz-Signature=5ecret"}})
    password, query = lines(path)
    assert password["message"] == "cannot reach postgresql://...@h/db"
    assert query["source"] == "https://h/c.txt"


@given(text=st.text(st.characters(codec="utf-8")).filter(lambda text: "://" not in text))
def test_a_text_that_holds_no_secret_stays_as_it_is(text: str):
    assert without_secrets(text) == text


def test_a_record_is_told_with_its_stage_and_shard():
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(self.format(record))

    def make() -> logging.Handler:
        handler = Listener()
        handler.setFormatter(Told())
        handler.addFilter(Where())
        return handler

    with handled_by("test", make):
        LOG.info("by itself")
        with within(run="r", stage="logits", shard="shard 3"):
            LOG.info("made")
    assert heard == ["by itself", "logits shard 3: made"]
