"""What the environment keeps secret is in nothing that a run writes, whatever goes wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.chaos import Forks
from helpers.prefect_server import prefect_server
from helpers.tiny_task import run_config, write_toml

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
    from flows.cli import main

    toml = write_toml(tmp_path / "c.toml", run_config(tiny_data, tmp_path / "store"))
    value = f"['{url}']" if where == "corpus.sources" else f"'{url}'"
    out = ["--out", str(tmp_path / "out")]
    status = main(["distill", str(toml), "--no-prefect", *out, "--set", f"{where}={value}"])
    said = "".join(capsys.readouterr())
    assert status == 1
    assert "secret-of-the-proxy-77" not in said
    assert files_that_tell(tmp_path) == []


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
        database = tmp_path / "prefect" / "prefect.db"
        with sqlite3.connect(database) as connection:
            (runs,) = connection.execute("select count(*) from flow_run").fetchone()
            assert runs >= 2
            connection.execute("pragma wal_checkpoint(truncate)")
    stored = s3.objects("secrets")
    assert [key for key, (body, _) in stored.items() for w in WORDS if w.encode() in body] == []
    assert files_that_tell(tmp_path) == []
