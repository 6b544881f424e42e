"""A web server in this process that speaks as much of the Hugging Face hub as the tests need.

Repositories with one branch, private ones behind a token, and uploads of small files; and below
`/plain/` files as any web server gives them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secretsecretsecret"
HEADERS_OF_ERRORS = {"RepoNotFound": 401, "EntryNotFound": 404, "RevisionNotFound": 404}


@dataclass
class Repository:
    files: dict[str, bytes]
    private: bool = False
    message: str = ""

    @property
    def commit(self) -> str:
        content = [(name, hashlib.sha1(data).hexdigest()) for name, data in self.files.items()]
        return hashlib.sha1(repr(sorted(content)).encode()).hexdigest()


@dataclass
class Hub:
    """What the server has, and what it was asked.

    Attributes:
        repositories: By id.
        plain: Files below `/plain/`, by path.
        cut: Names of files of which only half is sent before the connection is closed.
        status: Answers with this status, by name of the file.
        requests: Method and path of each request.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    plain: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    status: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def downloads(self) -> list[str]:
        """The names of the files that were sent."""
        return [path.rpartition("/")[2] for method, path in self.requests if method == "GET"]


@contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def do_POST(self) -> None:
        path, body = self._noted(), self._body()
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse("RepoNotFound")
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            if name in self.hub.repositories:
                return self._json({"url": f"{self.hub.url}/{name}"}, status=409)
            private = wanted.get("visibility") == "private"
            self.hub.repositories[name] = Repository({}, private=private)
            return self._json({"url": f"{self.hub.url}/{name}"})
        owner, name, action, _ = path.removeprefix("/api/models/").split("/")
        return self._commit(f"{owner}/{name}", action, body)

    def _commit(self, name: str, action: str, body: bytes) -> None:
        repository = self.hub.repositories[name]
        if action == "preupload":
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": modes})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository.message = value["summary"]
            else:
                repository.files[value["path"]] = base64.b64decode(value["content"])
        commit = repository.commit
        url = f"{self.hub.url}/{name}/commit/{commit}"
        return self._json({"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})

    def _get(self) -> None:
        path = self._noted()
        file = path.rpartition("/")[2]
        if file in self.hub.status:
            return self._answer(b"", status=self.hub.status[file])
        if path.startswith("/plain/"):
            content = self.hub.plain.get(path.removeprefix("/plain/"))
            return self._answer(content or b"", status=200 if content is not None else 404)
        name, _, place = path[1:].partition("/resolve/")
        revision, _, file = place.partition("/")
        repository = self.hub.repositories.get(name)
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not allowed):
            return self._refuse("RepoNotFound")
        if revision not in ("main", repository.commit):
            return self._refuse("RevisionNotFound")
        if file not in repository.files:
            return self._refuse("EntryNotFound", {"X-Repo-Commit": repository.commit})
        content = repository.files[file]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        return self._answer(content, {"X-Repo-Commit": repository.commit, "ETag": etag})

    def _noted(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        return path

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, value: object, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self._answer(content, {"Content-Type": "application/json"}, status=status)

    def _refuse(self, code: str, headers: Mapping[str, str] | None = None) -> None:
        self._answer(b"", {"X-Error-Code": code, **(headers or {})}, status=HEADERS_OF_ERRORS[code])

    def _answer(
        self, content: bytes, headers: Mapping[str, str] | None = None, *, status: int = 200
    ) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        if unquote(self.path).rpartition("/")[2] in self.hub.cut:
            content = content[: len(content) // 2]
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
