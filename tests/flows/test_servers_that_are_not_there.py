"""What is said where there is no Prefect server to work with."""

from __future__ import annotations

import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from helpers.tiny_task import run_config, write_toml
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from flows import local_server, run_commands
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
    assert "refused" in said.err
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


class _Answering(BaseHTTPRequestHandler):
    """Not Prefect: its answers are those of the class that is made of it."""

    status = 200
    body = b"<html>welcome</html>"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


class _Healthy(_Answering):
    body = b"true"


class _Refusing(_Answering):
    """As Prefect does: its health is for everybody."""

    status = 401

    def do_GET(self) -> None:
        if self.path.endswith("/health"):
            self.status, self.body = 200, b"true"
        super().do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        super().do_GET()


class _Going(_Refusing):
    """Hangs up on whoever asks for more than its health."""

    def do_GET(self) -> None:
        if self.path.endswith("/health"):
            super().do_GET()

    def do_POST(self) -> None:
        self.do_GET()


class _Talking(socketserver.StreamRequestHandler):
    """No HTTP at all."""

    def handle(self) -> None:
        self.wfile.write(b"220 mail.example ready\r\n")


@contextmanager
def listening(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    """Have a program at a port of this machine; yields its address as if it were Prefect's."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as program:
        threading.Thread(target=program.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{program.server_address[1]}/api"
        program.shutdown()


@pytest.mark.parametrize("handler", [_Answering, _Talking])
def test_another_program_is_not_taken_for_a_server(handler: type[socketserver.BaseRequestHandler]):
    with listening(handler) as api:
        assert not local_server.answers(api)


def test_a_server_that_refuses_is_told_apart_from_one_that_is_down():
    with (
        listening(_Refusing) as api,
        temporary_settings({PREFECT_API_URL: api}),
        pytest.raises(ServerError, match=r"refuses \(401\): check PREFECT_API_KEY .*, or wait"),
    ):
        local_server.named_server("wait")


def test_a_server_that_goes_after_it_was_found_healthy_is_one_clear_error():
    with (
        listening(_Going) as api,
        temporary_settings({PREFECT_API_URL: api}),
        pytest.raises(ServerError, match=r"no Prefect server answers at .*Start it, or wait"),
    ):
        local_server.named_server("wait")


def test_a_server_that_a_command_finds_is_used_by_all_threads_and_child_processes(
    monkeypatch: pytest.MonkeyPatch,
):
    """Prefect's own threads send what the workers of a pool tell."""

    def asked() -> tuple[str | None, str | None]:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: get_current_settings().api.url).result(), os.environ.get(
                "PREFECT_API_URL"
            )

    with listening(_Healthy) as api:
        monkeypatch.setattr(run_commands, "_LOCAL_SERVER", api)
        monkeypatch.setattr(local_server, "named_server", lambda _: None)
        before = asked()
        with run_commands.quiet_prefect() as served:
            assert (served, *asked()) == (True, api, api)
        assert asked() == before
    with run_commands.quiet_prefect() as served:
        assert (served, *asked()) == (False, *before)
