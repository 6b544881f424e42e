"""Clients that hold connections open for nothing, over real sockets, with each parser."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
import uvicorn
from helpers.small_service import head, received, request, small_service, until_ready

from sparsedistill.serving import connections

PROTOCOLS = [connections.GuardedH11]
if connections.Protocol is not connections.GuardedH11:
    PROTOCOLS.append(connections.Protocol)


@pytest.fixture(params=PROTOCOLS, ids=lambda protocol: protocol.__name__)
def address(request, monkeypatch):
    """Where a service listens that has little patience."""
    monkeypatch.setattr(connections.Guarded, "head_seconds", 0.3)
    monkeypatch.setattr(connections.Guarded, "write_seconds", 0.3)
    monkeypatch.setattr(connections.Guarded, "max_connections", 3)
    service = small_service(body_seconds=0.3, max_bytes=300_000)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        service, http=request.param, ws="none", lifespan="on", log_config=None,
        timeout_keep_alive=1, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)

    async def serving():
        await until_ready(service)
        await server.serve([listening])

    thread = threading.Thread(target=asyncio.run, args=[serving()])
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()
    server.should_exit = True
    thread.join()


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


@pytest.mark.parametrize("sent", [b"", b"P", b"POST /v1/predict HTTP/1.1\r\nhost: x\r\n"])
def test_a_head_that_does_not_end_ends_the_connection(address, sent):
    with connect(address) as connection:
        connection.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            assert received(connection) == b""


def test_a_head_that_drips_in_ends_the_connection_too(address):
    with connect(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert is_cut_off(connection, b"a: b\r\n", pause=0.05, most=1200)


def test_also_the_second_head_of_a_connection_may_not_drip(address):
    with connect(address) as connection:
        connection.sendall(request(GOOD, close=False))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert is_cut_off(connection, b"P", pause=0.05, most=200)


def test_a_head_without_end_is_refused(address):
    with connect(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert is_cut_off(connection, b"a: " + b"b" * 1000 + b"\r\n")


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


def test_a_client_that_does_not_read_its_answers_loses_them(address):
    many = request(b'{"texts": [' + b'"a",' * 1000 + b'"a"], "proba": true}', close=False)
    with connect(address) as connection:
        assert is_cut_off(connection, many)
    with connect(address) as connection:
        connection.sendall(request(GOOD))
        assert received(connection).startswith(b"HTTP/1.1 200 ")


def test_a_connection_too_many_is_told_to_come_again(address):
    held = [connect(address) for _ in range(3)]
    with connect(address) as connection:
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in answer
    assert b"too_many_connections" in answer
    for connection in held:
        connection.close()
    while True:
        with connect(address) as connection:
            connection.sendall(request(GOOD))
            if received(connection).startswith(b"HTTP/1.1 200 "):
                break


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
