"""A saved model, and every kind of place that it can be fetched from."""

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
pytest.importorskip("huggingface_hub")

import fsspec
from helpers.folded_cases import small_model, small_vocabulary
from helpers.hub_server import Repository, hub_server
from huggingface_hub import constants
from huggingface_hub.utils import _http as hub_http
from remote_cases import NAME

from sparsedistill.model_format import save_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "student"
    save_model(directory, small_model(), small_vocabulary())
    return directory


@pytest.fixture
def content(saved):
    return {path.name: path.read_bytes() for path in saved.iterdir()}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(content):
    with hub_server() as hub:
        hub.repositories[NAME] = Repository(dict(content))
        hub.plain = {f"student/{name}": data for name, data in content.items()}
        yield hub


@pytest.fixture
def hub(server, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    pattern = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{")[2]
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{server.url}/{{{pattern}")
    # Between its attempts.
    monkeypatch.setattr(hub_http.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return server


@pytest.fixture(scope="module")
def s3():
    """An S3 server, as fsspec's configuration for it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = {"endpoint_url": f"http://{host}:{port}"}
    yield {"key": "k", "secret": "s", "client_kwargs": client, "use_listings_cache": False}
    server.stop()


@pytest.fixture(params=["hub", "web", "s3", "file", "memory"])
def place(request, content, tmp_path, monkeypatch):
    """A source of each kind, as its name and the files that it has, which a test may change."""
    if request.param == "hub":
        hub = request.getfixturevalue("hub")
        yield NAME, hub.repositories[NAME].files
    elif request.param == "web":
        server = request.getfixturevalue("server")
        yield (
            f"{server.url}/plain/student",
            _Files(
                lambda name, data: server.plain.__setitem__(f"student/{name}", data),
                lambda name: server.plain.pop(f"student/{name}"),
                content,
            ),
        )
    else:
        if request.param == "s3":
            monkeypatch.setitem(fsspec.config.conf, "s3", request.getfixturevalue("s3"))
            url = "s3://models/student"
        else:
            url = "memory://student" if request.param == "memory" else f"file://{tmp_path}/student"
        files_there, _ = fsspec.core.url_to_fs(url)
        files_there.makedirs(url, exist_ok=True)
        files = _Files(
            lambda name, data: files_there.pipe_file(f"{url}/{name}", data),
            lambda name: files_there.rm_file(f"{url}/{name}"),
            {},
        )
        files.update(content)
        yield url, files
        files_there.rm(url, recursive=True)


class _Files(dict):
    """Files by name, of which each change is made known."""

    def __init__(self, put, remove, files):
        super().__init__(files)
        self._put, self._remove = put, remove

    def __setitem__(self, name, data):
        super().__setitem__(name, data)
        self._put(name, data)

    def update(self, files):
        for name, data in files.items():
            self[name] = data

    def pop(self, name):
        self._remove(name)
        return super().pop(name)
