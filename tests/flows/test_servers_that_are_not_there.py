"""What is said where there is no Prefect server to work with."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tiny_task import run_config, write_toml
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import local_server
from flows.cli import main
from flows.local_server import ServerError, server

PASSWORD = "pa55-of-the-proxy"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which something listens that is no server."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


@pytest.mark.parametrize("command", ["distill", "redistill", "compare"])
def test_a_server_that_is_set_and_down_is_one_clear_error_without_its_password(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    config = str(write_toml(tmp_path / "tiny.toml", run_config(tmp_path, tmp_path)))
    configs = [config, config] if command == "compare" else [config]
    with temporary_settings({PREFECT_API_URL: f"http://me:{PASSWORD}@127.0.0.1:9/api"}):
        assert main([command, *configs]) == 1
    said = capsys.readouterr()
    assert "error: no Prefect server answers at http://...@127.0.0.1:9/api" in said.err
    assert "give --no-prefect" in said.err
    assert PASSWORD not in said.out + said.err
    assert "Traceback" not in said.err


def test_a_port_of_another_program_is_told_before_a_server_is_started(
    taken: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(local_server, "answers", lambda _: False)
    monkeypatch.setattr(local_server, "_started", None)
    with pytest.raises(ServerError, match=f"port {taken} is taken by another program: give --port"):
        server(taken).__enter__()
    with pytest.raises(ServerError, match=r"port 99999 cannot be used \(.*\): give --port"):
        server(99999).__enter__()
