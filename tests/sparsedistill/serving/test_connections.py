"""Clients that hold connections open for nothing, over real sockets, with each parser."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
import uvicorn
from helpers.small_service import head, received, request, small_service, until_ready

from sparsedistill.classifier import Classifier
from sparsedistill.serving import connections

PROTOCOLS = [connections.GuardedH11]
if connections.Protocol is not connections.GuardedH11:
    PROTOCOLS.append(connections.Protocol)


PATIENT = {"head_seconds": 20, "write_seconds": 20, "body_seconds": 20, "max_connections": 100}
# Answered in a thread, not where it arrives.
LARGE = b'{"texts": [' + b'"aaaa",' * 1000 + b'"a"], "proba": true}'


@pytest.fixture
def limits():
    """What a test wants other than `PATIENT`; see `limited`."""
    return {}


def limited(**limits):
    """Have a test's service be stricter: small only where that is what is tested."""
    return pytest.mark.parametrize("limits", [limits], ids=["limited"])


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.__name__)
def address(request, monkeypatch, limits):
    """Where a service listens."""
    chosen = {**PATIENT, **limits}
    service = small_service(body_seconds=chosen.pop("body_seconds"), max_bytes=300_000)
    for name, value in chosen.items():
        monkeypatch.setattr(connections.Guarded, name, value)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        service, http=request.param, ws="none", lifespan="on", log_config=None,
        timeout_keep_alive=20, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)

    async def serving():
        await until_ready(service)
        await server.serve([listening])

    thread = threading.Thread(target=asyncio.run, args=[serving()], daemon=True)
    thread.start()
    deadline = time.monotonic() + 50
    try:
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield listening.getsockname()
    finally:
        server.should_exit = True
        thread.join(20)


def connect(address):
    return socket.create_connection(address, timeout=20)


GOOD = b'{"text": "a good film"}'


def test_requests_on_one_connection_are_answered_one_after_another(address):
    with connect(address) as connection:
        connection.sendall(request(GOOD, close=False) + request(GOOD, close=False) + request(GOOD))
        assert received(connection).count(b"HTTP/1.1 200 OK") == 3


def is_cut_off(connection, piece, *, pause=0.0, most=10**8):
    """Whether the other side ends the connection while pieces are sent."""
    try:
        for _ in range(0, most, len(piece)):
            connection.sendall(piece)
            time.sleep(pause)
    except ConnectionError:
        return True
    return False


@limited(head_seconds=0.3)
@pytest.mark.parametrize("sent", [b"", b"P", b"POST /v1/predict HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_does_not_end_ends_the_connection(address, sent):
    with connect(address) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            assert received(connection) == b""


@limited(head_seconds=0.3)
def test_a_head_that_drips_in_ends_the_connection_too(address):
    with connect(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert is_cut_off(connection, b"a: b\r\n", pause=0.05, most=1200)


@limited(head_seconds=0.3)
def test_also_the_second_head_of_a_connection_may_not_drip(address):
    with connect(address) as connection:
        connection.sendall(request(GOOD, close=False))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert is_cut_off(connection, b"P", pause=0.05, most=200)


def test_a_head_without_end_is_refused(address):
    with connect(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert is_cut_off(connection, b"a: " + b"b" * 1000 + b"\r\n")


MANY_BYTES = 20_000_000  # more than the buffers of both sockets hold


@pytest.mark.parametrize("endless", [b"0\r\na: " + b"b" * 50_000, b"1;" + b"a" * 50_000])
def test_trailers_and_chunk_extensions_without_end_end_the_connection(address, endless):
    start = b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n"
    with connect(address) as connection:
        connection.sendall(start + endless)
        assert is_cut_off(connection, b"a" * 50_000, most=MANY_BYTES)


def test_a_head_without_end_behind_an_answer_that_is_awaited_ends_the_connection(
    address, monkeypatch
):
    go = threading.Event()
    answers = Classifier.answers

    def held(*given, **options):
        assert go.wait(60)
        return answers(*given, **options)

    monkeypatch.setattr(Classifier, "answers", held)
    try:
        with connect(address) as connection:
            connection.settimeout(2)
            connection.sendall(request(LARGE, close=False) + b"GET /healthz HTTP/1.1\r\n")
            # h11 does not end it but reads no further, which bounds it as well.
            with contextlib.suppress(TimeoutError):
                line = b"a: " + b"b" * 50_000 + b"\r\n"
                assert is_cut_off(connection, line, most=MANY_BYTES)
    finally:
        go.set()


def test_a_long_chunked_body_with_some_trailers_is_no_head_without_end(address):
    body = b'{"texts": [' + b'"a",' * 1000 + b'"a"]}' + b" " * 200_000
    chunks = b"".join(
        b"%x;name=value\r\n%b\r\n" % (len(part), part)
        for part in (body[start : start + 1000] for start in range(0, len(body), 1000))
    )
    with connect(address) as connection:
        for _ in range(2):
            connection.sendall(
                b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
                + chunks
                + b"0\r\nsum: 1\r\n\r\n"
            )
        connection.sendall(request(GOOD))
        assert received(connection).count(b"HTTP/1.1 200 ") == 3


@limited(body_seconds=0.3)
def test_a_body_that_drips_in_is_given_up_with_an_answer(address):
    with connect(address) as connection:
        connection.sendall(head(100, close=False) + b'{"text": ')
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_too_slow" in answer


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_all_of_a_body_too_large_sees_why_it_is_refused(address, chunked):
    length = b"transfer-encoding: chunked" if chunked else b"content-length: 2000000"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (2000000, b" " * 2000000) if chunked else b" " * 2000000
    with connect(address) as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%b\r\n\r\n" % length
        )
        connection.sendall(sent)
        assert received(connection).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_waits_to_be_told_to_send_is_told_no_at_once(address):
    with connect(address) as connection:
        connection.sendall(head(400_000).replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"))
        assert received(connection).startswith(b"HTTP/1.1 413 ")


@limited(write_seconds=0.3)
def test_a_client_that_does_not_read_its_answers_loses_them(address):
    with connect(address) as connection:
        assert is_cut_off(connection, request(LARGE, close=False))
    with connect(address) as connection:
        connection.sendall(request(GOOD))
        assert received(connection).startswith(b"HTTP/1.1 200 ")


@limited(max_connections=3)
def test_a_connection_too_many_is_told_to_come_again(address):
    held = [connect(address) for _ in range(3)]
    with connect(address) as connection:
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer
    assert b"too_many_connections" in answer
    for connection in held:
        connection.close()
    deadline = time.monotonic() + 20
    while True:
        # One that is still refused may be reset, because what it sent was not read.
        with connect(address) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(request(GOOD))
            if received(connection).startswith(b"HTTP/1.1 200 "):
                break
        assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    ],
)
def test_what_is_no_http_is_refused_and_the_server_lives(address, sent):
    with connect(address) as connection:
        connection.sendall(sent)
        answer = received(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    with connect(address) as connection:
        connection.sendall(request(GOOD))
        assert received(connection).startswith(b"HTTP/1.1 200 ")
