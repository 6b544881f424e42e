"""`sparsedistill serve` as a process: it starts, answers, survives, and stops as it should."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from helpers.small_service import Server, head, received, request, small_classifier

from flows.cli import main
from sparsedistill.remote_sources import shown_name
from sparsedistill.serving.settings import ServerSettings, Settings
from sparsedistill.serving.worker import run

BODY = b'{"text": "a good film"}'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("served") / "model"
    small_classifier().save_pretrained(directory)
    return directory


def test_it_answers_counts_logs_and_stops_with_status_0(model: Path, tmp_path: Path):
    with Server(model, tmp_path / "log") as server:
        answer = server.predict({"text": "a secret good film"})
        assert answer.json()["model"] == "small"
        assert answer.json()["prediction"]["label"] == small_classifier().predict("a good film")
        assert server.metric("sparsedistill_texts_total") == 1
        assert server.stop() == 0
    events = [line["event"] for line in server.log_lines()]
    assert "ready" in events
    assert events.count("request") >= 2
    assert "secret" not in server.log.read_text()


def test_a_request_in_flight_is_answered_before_it_stops(model: Path, tmp_path: Path):
    with Server(model, tmp_path / "log") as server, server.connect() as connection:
        connection.sendall(head(len(BODY), close=False) + BODY[:5])
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        with suppress(ConnectionRefusedError):
            while time.monotonic() < deadline:  # until it takes no connections
                server.connect().close()
                time.sleep(0.05)
        assert server.process.poll() is None
        connection.sendall(BODY[5:])
        assert received(connection).startswith(b"HTTP/1.1 200 OK")
        assert server.process.wait(30) == 0


def test_ctrl_c_stops_it_too(model: Path, tmp_path: Path):
    with Server(model, tmp_path / "log") as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0


def test_limits_are_those_of_the_command_line(model: Path, tmp_path: Path):
    with Server(model, tmp_path / "log", "--max-texts", "2", "--max-bytes", "1KB") as server:
        assert server.predict({"texts": ["a", "b"]}).status_code == 200
        assert server.predict({"texts": ["a", "b", "c"]}).status_code == 413
        assert server.predict({"text": "x" * 1000}).status_code == 413


@pytest.mark.slow
def test_several_workers_count_together_and_one_that_is_killed_is_replaced(
    model: Path, tmp_path: Path
):
    with Server(model, tmp_path / "log", "--workers", "2") as server:
        workers = both_workers(server)
        assert server.process.pid not in workers
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(server.predict, [{"texts": ["good", "bad"]}] * 100))
        assert {answer.status_code for answer in answers} == {200}
        assert server.metric("sparsedistill_texts_total") == 200
        os.kill(workers[0], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            with suppress(httpx.TransportError):
                now = server.workers()
                if len(now) == 2 and workers[0] not in now:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert server.metric("sparsedistill_texts_total") == 200
        assert server.stop() == 0
    for worker in {*workers, *now}:
        assert not is_running(worker)


def test_workers_end_when_the_process_that_started_them_is_killed(model: Path, tmp_path: Path):
    with Server(model, tmp_path / "log", "--workers", "2") as server:
        workers = both_workers(server)
        server.process.kill()
        deadline = time.monotonic() + 30
        while any(map(is_running, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def both_workers(server: Server) -> list[int]:
    deadline = time.monotonic() + 60
    while len(workers := server.workers()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return workers


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


DRAINING = """
import sys
from pathlib import Path
from sparsedistill.serving.settings import ServerSettings, Settings
from sparsedistill.serving.worker import run
server = ServerSettings(port=int(sys.argv[2]), drain_seconds=6, grace_seconds=1)
sys.exit(run(Path(sys.argv[1]), Settings(body_seconds=60), server, access_log=False))
"""


def test_while_it_drains_it_is_not_ready_but_answers_and_its_patience_ends(
    model: Path, tmp_path: Path
):
    class Draining(Server):
        def __init__(self) -> None:
            with socket.create_server(("127.0.0.1", 0)) as trial:
                self.port = trial.getsockname()[1]
            self.log = tmp_path / "log"
            with self.log.open("wb") as file:
                command = [sys.executable, "-c", DRAINING, str(model), str(self.port)]
                environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
                self.process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)

    with Draining() as server, server.connect() as never:
        never.sendall(head(100) + b"{")
        server.process.send_signal(signal.SIGTERM)
        while server.get("/readyz").status_code == 200:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)  # a second one changes nothing
        assert server.get("/healthz").status_code == 200
        with server.connect() as connection:
            connection.sendall(request(BODY))
            assert received(connection).startswith(b"HTTP/1.1 200 OK")
        # One request never comes to its end: that is not waited for.
        assert server.process.wait(20) == 0
    assert "request" not in [line["event"] for line in server.log_lines()]


def test_a_port_that_is_taken_is_an_error_in_one_line(
    model: Path, capsys: pytest.CaptureFixture[str]
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(model), "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert f"cannot listen on 127.0.0.1 port {port}" in error


@pytest.mark.parametrize("host", ["nosuch", "a" * 70])
def test_a_host_that_is_none_is_named(
    host: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    if host == "nosuch":  # without asking any name server

        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert main(["serve", str(model), "--host", host]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert f"cannot listen on {host} port 8000: " in error


def test_one_process_does_not_keep_its_numbers_where_those_of_others_are(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "there is none"))
    with Server(model, tmp_path / "log") as server:
        server.predict({"texts": ["good", "bad"]})
        assert server.metric("sparsedistill_texts_total") == 2
        assert len(server.workers()) == 1
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("https://user:secret@host/models/reviews/?signature=secret#secret", "reviews"),
        ("https://user:secret@host:80?signature=secret", "host:80"),
        ("s3://bucket/reviews@2", "reviews@2"),
        ("zip://reviews::https://user:secret@host/models.zip?secret", "models.zip"),
        ("zip://reviews::https://user:secret@host", "host"),
        ("file:///", "model"),
        ("file:///reviews@2", "reviews@2"),
        ("owner/reviews", "owner/reviews"),
    ],
)
def test_the_name_of_a_model_from_elsewhere_holds_no_secret(model: str, name: str):
    assert shown_name(model) == name


def test_a_model_at_a_url_is_served_under_the_last_part_of_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
):
    served = []
    monkeypatch.setattr("flows.serve_command.fetch_model", lambda _: model)
    monkeypatch.setattr(
        "sparsedistill.serving.worker.run", lambda *given, **_: served.append(given) or 0
    )
    assert main(["serve", "https://user:secret@host/reviews?signature=secret"]) == 0
    [(directory, settings, _)] = served
    assert (directory, settings.name) == (model, "reviews")


def test_a_directory_that_holds_no_model_is_an_error_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["serve", str(tmp_path)]) == 1
    assert "config.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [["--workers", "0"], ["--threads", "0"], ["--max-texts", "0"], ["--max-bytes", "big"]]
)
def test_an_option_that_cannot_be_is_an_error(
    wrong: list[str], model: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["serve", str(model), *wrong]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_signals_mean_afterwards_what_they_meant_before(
    model: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = {}

    def served(app: str, **options: object) -> None:
        seen.update(options, service=json.loads(os.environ["SPARSEDISTILL_SERVICE"]))

    monkeypatch.setattr("uvicorn.run", served)
    before = signal.getsignal(signal.SIGTERM)
    assert run(model, Settings(), ServerSettings(port=0, grace_seconds=7)) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert "SPARSEDISTILL_SERVICE" not in os.environ
    assert seen["timeout_graceful_shutdown"] == 7
    assert seen["service"]["server"]["grace_seconds"] == 7
