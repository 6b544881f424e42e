"""What the environment keeps secret is in nothing that a run writes, whatever goes wrong."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helpers.chaos import Forks
from helpers.prefect_server import prefect_server
from helpers.tiny_task import run_config, write_toml

from flows.cli import main
from flows.errors import reason_of
from tasks.logs import log_file, within

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

from helpers.faulty_s3 import FaultyS3

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-bucket-4f1d",
    "HF_TOKEN": "hf_secretOfTheHub93ac",
    "HTTPS_PROXY": "http://somebody:secret-of-the-proxy-77@127.0.0.1:9",
    "SPARSEDISTILL_NOTIFY": "slack://secret-of-the-channel-21/b/c",
}
WORDS = [
    "secret-of-the-bucket-4f1d", "hf_secretOfTheHub93ac", "secret-of-the-proxy-77",
    "secret-of-the-channel-21",
]  # fmt: skip


def files_that_tell(*directories: Path) -> list[str]:
    """Files below directories that hold one of the secrets."""
    return [
        f"{path}: {word}"
        for directory in directories
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        for word in WORDS
        if word.encode() in path.read_bytes()
    ]


@pytest.fixture
def s3() -> Iterator[FaultyS3]:
    with FaultyS3() as server:
        yield server


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """The URL of a server that forbids everything."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.timeout(300)
def test_no_secret_is_in_store_results_or_log(s3: FaultyS3, tiny_data: Path, tmp_path: Path, small):
    url = s3.make_bucket("secrets")
    variables = {**s3.environment, **SECRETS, "NO_PROXY": "127.0.0.1"}
    variables["SPARSEDISTILL_CACHE"] = str(tmp_path / "cache")
    log = tmp_path / "run.log"
    run = {"store": url, "log": str(log)}
    toml = write_toml(tmp_path / "c.toml", run_config(tiny_data, Path("unused"), run=run, **small))
    arguments = ["distill", str(toml), "--no-prefect", "--out", str(tmp_path / "out")]
    with Forks(tmp_path / "said", variables, ["s3fs"]) as forks:
        assert forks.run(*arguments) == 0, forks.said()
        gone = "s3://no-such-bucket/runs"
        for spoiled in (
            ["--set", f"run.store={gone}"],
            ["--set", "corpus.sources=['s3://no-such-bucket/x.txt']"],
            ["--set", "data='s3://secrets/x'"],
        ):
            assert forks.run(*arguments, *spoiled) == 1, forks.said()
        for action in ("ls", "verify", "gc"):
            assert forks.run("store", action, "--store", url) == 0, forks.said()
        assert forks.run("store", "ls", "--store", gone) == 1
    stored = s3.objects("secrets")
    assert len(stored) > 50
    assert [key for key, (body, _) in stored.items() for w in WORDS if w.encode() in body] == []
    assert log.stat().st_size > 0
    assert files_that_tell(tmp_path) == []


@pytest.mark.parametrize(
    "url",
    ["s3://somebody:secret-of-the-proxy-77@bucket/runs", "https://u:secret-of-the-proxy-77@h/x"],
)
@pytest.mark.parametrize("where", ["run.store", "data", "corpus.sources"])
def test_a_url_with_a_password_is_refused_and_not_repeated(
    url: str, where: str, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    toml = write_toml(tmp_path / "c.toml", run_config(tiny_data, tmp_path / "store"))
    value = f"['{url}']" if where == "corpus.sources" else f"'{url}'"
    out = ["--out", str(tmp_path / "out")]
    status = main(["distill", str(toml), "--no-prefect", *out, "--set", f"{where}={value}"])
    said = "".join(capsys.readouterr())
    assert status == 1
    assert "secret-of-the-proxy-77" not in said
    assert files_that_tell(tmp_path) == []


def _missing_source(data: Path, secret: str) -> list[str]:
    return ["--set", f"corpus.sources=['{secret}.txt']"]


def _source_of_bad_rows(data: Path, secret: str) -> list[str]:
    (data / f"{secret}.txt").write_bytes(b"one\n\xff\xfe\n")
    return ["--set", f"corpus.sources=['{secret}.txt']"]


def _broken_teacher(data: Path, secret: str) -> list[str]:
    shutil.copytree(data / "encoder", data / secret)
    (data / secret / "model.safetensors").write_bytes(b"no model")
    return ["--set", f"teacher.checkpoint='{secret}'"]


@pytest.mark.parametrize("spoil", [_missing_source, _source_of_bad_rows, _broken_teacher])
def test_an_error_that_quotes_a_secret_is_told_without_it(
    spoil: Callable[[Path, str], list[str]],
    own_data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    secret = SECRETS["HF_TOKEN"]
    monkeypatch.setenv("HF_TOKEN", secret)
    log = tmp_path / "results" / "run.log"
    config = run_config(own_data, tmp_path / "results" / "store", run={"log": str(log)})
    log.parent.mkdir()
    toml = write_toml(tmp_path / "c.toml", config)
    settings = spoil(own_data, secret)
    out = ["--out", str(tmp_path / "results" / "out")]
    assert main(["distill", str(toml), "--no-prefect", *out, *settings]) == 1
    said = "".join(capfd.readouterr())
    assert "error: " in said
    assert "***" in said
    assert secret not in said
    assert log.is_file()
    assert files_that_tell(log.parent) == []


@pytest.mark.parametrize("spoil", [_missing_source, _broken_teacher])
@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_plan_quotes_no_secret(
    spoil: Callable[[Path, str], list[str]], json: list[str], own_data: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    secret = SECRETS["HF_TOKEN"]
    monkeypatch.setenv("HF_TOKEN", secret)
    toml = write_toml(tmp_path / "c.toml", run_config(own_data, tmp_path / "store"))
    main(["plan", str(toml), *json, *spoil(own_data, secret)])
    said = "".join(capfd.readouterr())
    assert "***" in said
    assert secret not in said


def test_a_signed_url_that_is_refused_is_told_without_its_query(
    tiny_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], refusing: str
):
    pytest.importorskip("aiohttp")
    log = tmp_path / "run.log"
    config = run_config(tiny_data, tmp_path / "store", run={"log": str(log)})
    toml = write_toml(tmp_path / "c.toml", config)
    url = f"{refusing}/corpus.txt?X-Amz-Signature={WORDS[0]}&X-Amz-Expires=60"
    arguments = ["distill", str(toml), "--no-prefect", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--set", f"corpus.sources=['{url}']"]) == 1
    said = "".join(capfd.readouterr())
    assert f"error: {refusing}/corpus.txt: cannot be reached" in said
    assert "403" in said
    assert WORDS[0] not in said
    assert files_that_tell(tmp_path) == []


def test_a_failed_job_and_a_log_record_quote_no_secret(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What is in a variable that names a secret, and what is in any URL."""
    for variable, value in SECRETS.items():
        monkeypatch.setenv(variable, value)
    proxy = SECRETS["HTTPS_PROXY"]
    error = ConnectionError(f"{proxy}: 407; sent {SECRETS['HF_TOKEN']}, {WORDS[0]}")
    told = reason_of(error, rest=None)
    log = tmp_path / "run.log"
    with log_file(str(log), run="tiny"), within(run="tiny", stage="teacher"):
        logging.getLogger("tasks.teacher").warning("no answer: %s", error, exc_info=error)
    (line,) = log.read_text("utf-8").splitlines()
    for text in (told, line):
        assert "407; sent ***, ***" in text
        assert [word for word in WORDS if word in text] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_secret_is_in_what_prefect_keeps(s3: FaultyS3, tiny_data: Path, tmp_path: Path, small):
    """Its database holds parameters, artifacts, logs and events of the run; one of them failed."""
    url = s3.make_bucket("secrets")
    with prefect_server(tmp_path / "prefect") as prefect:
        variables = {**s3.environment, **SECRETS, **prefect, "NO_PROXY": "127.0.0.1"}
        variables["SPARSEDISTILL_CACHE"] = str(tmp_path / "cache")
        run = {"store": url, "log": str(tmp_path / "run.log")}
        config = run_config(tiny_data, Path("unused"), run=run, **small)
        toml = write_toml(tmp_path / "c.toml", config)
        arguments = ["distill", str(toml), "--out", str(tmp_path / "out")]
        with Forks(tmp_path / "said", variables, ["s3fs", "flows.prefect_runner"]) as forks:
            assert forks.run(*arguments) == 0, forks.said()
            assert forks.run(*arguments, "--set", "vocabulary.min_count=1000000") == 1
            assert forks.run(*arguments, "--set", "run.store=s3://no-such-bucket/x") == 1
            # In no parameter, but in what a job finds: the name of a file with a bad row.
            data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
            _source_of_bad_rows(data, SECRETS["HF_TOKEN"])
            found = ["--set", f"data='{data}'", "--set", "corpus.sources=['hf_*.txt']"]
            assert forks.run(*arguments, *found) == 1
            assert "***.txt" in forks.said()
        database = tmp_path / "prefect" / "prefect.db"
        with sqlite3.connect(database) as connection:
            (runs,) = connection.execute("select count(*) from flow_run").fetchone()
            assert runs >= 2
            connection.execute("pragma wal_checkpoint(truncate)")
    stored = s3.objects("secrets")
    assert [key for key, (body, _) in stored.items() for w in WORDS if w.encode() in body] == []
    assert files_that_tell(tmp_path) == []
