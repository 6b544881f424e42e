"""No password and no signature of a URL gets into a name, a message, a log or a quarantine."""

from __future__ import annotations

import http.server
import logging
import threading
import traceback

import pytest

from storage import ArtifactStore, SourceError, StorageError, expand_sources, read_texts
from storage.urls import holds_credentials, shown

SECRET = "hush-hush"
SIGNED = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={SECRET}"


@pytest.fixture
def server(monkeypatch):
    """Answers /good.txt with rows, /bad.txt with one that is no UTF-8, anything else with 403."""
    pytest.importorskip("aiohttp")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET(body=False)

        def do_GET(self, *, body=True):
            content = {"/good.txt": b"one\ntwo\n", "/bad.txt": b"one\n\xff\xff\n"}
            data = content.get(self.path.partition("?")[0])
            if data is None or SECRET not in self.path:
                self.send_error(404 if "missing" in self.path else 403)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "url",
    [
        f"s3://KEY:{SECRET}@bucket/x.txt",
        f"s3://KEY:{SECRET}/with/slashes@bucket/x.txt",
        f"https://somebody:{SECRET}@host/x.txt",
        f"https://{SECRET}@host/x.txt",
        f"ftp://somebody:{SECRET}@host:21/x.txt",
        f"simplecache::s3://KEY:{SECRET}@bucket/x.txt",
    ],
)
def test_a_url_with_a_password_is_refused_and_not_repeated(url):
    assert holds_credentials(url)
    for attempt in (
        lambda: ArtifactStore(url),
        lambda: expand_sources([url]),
        lambda: list(read_texts(url, on_bad=print)),
    ):
        with pytest.raises(StorageError, match="holds a password or a token") as caught:
            attempt()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown(f"cannot open {url}: no")


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/a@b/2020-01-01T10:00/x.txt",
        "http://127.0.0.1:8080/x@y.txt",
        "http://host:8080",
        "abfs://container@account.dfs.core.windows.net/x.txt",
        "sftp://somebody@host/x.txt",
        "hf://datasets/somebody/texts@main/x.parquet",
        "/data/a:b@c/x.txt",
        "s3://bucket/part-?.txt",
    ],
)
def test_a_url_without_one_is_taken_and_shown_whole(url):
    assert not holds_credentials(url)
    assert shown(f"error: {url}: no") == f"error: {url}: no"


def test_the_query_of_a_url_is_never_shown():
    text = f"403 at 'https://host/a.txt?{SIGNED}', and https://other/b?sig={SECRET}"
    assert shown(text) == "403 at 'https://host/a.txt', and https://other/b"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (f"https://host/a.txt#access_token={SECRET}", "https://host/a.txt"),
        (f"https://host/a.txt?x#access_token={SECRET}", "https://host/a.txt"),
        (f"https://host/my texts/a b.txt?sig={SECRET}", "https://host/my texts/a b.txt"),
        (f"https://host/a#b c.txt?sig={SECRET}", "https://host/a#b c.txt"),
    ],
)
def test_nor_is_a_fragment_or_a_query_behind_a_blank(url, path):
    assert shown(url) == path
    assert shown(f"403 at {url}, message='no'") == f"403 at {path} message='no'"


def test_a_presigned_source_is_read_under_a_name_without_its_signature(server, caplog):
    caplog.set_level(logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    (source,) = expand_sources([f"{server}/good.txt?{SIGNED}"])
    assert source.name == f"{server}/good.txt"
    assert SECRET in source.url
    assert [row for rows in read_texts(source, on_bad=print) for row in rows] == ["one", "two"]
    assert SECRET not in caplog.text


def test_a_bad_row_of_a_presigned_source_names_it_without_its_signature(server):
    for source in (*expand_sources([f"{server}/bad.txt?{SIGNED}"]), f"{server}/bad.txt?{SIGNED}"):
        bad = []
        list(read_texts(source, on_bad=bad.append))
        assert [(row.source, row.row) for row in bad] == [(f"{server}/bad.txt", 2)]


@pytest.mark.parametrize("name", ["forbidden.txt", "missing.txt", "good.unknown"])
def test_errors_of_presigned_sources_do_not_repeat_the_signature(server, name, caplog):
    caplog.set_level(logging.INFO)
    url = f"{server}/{name}?{SIGNED}"
    for attempt in (lambda: expand_sources([url]), lambda: list(read_texts(url, on_bad=print))):
        with pytest.raises(SourceError) as caught:
            attempt()
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in caplog.text


def test_a_store_shows_its_url_without_a_query():
    assert SECRET not in repr(ArtifactStore(f"memory://signed/runs?sig={SECRET}"))
