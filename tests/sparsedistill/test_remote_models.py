import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
pytest.importorskip("huggingface_hub")

import fsspec
import huggingface_hub
from folded_cases import small_model, small_vocabulary
from fsspec.registry import _registry
from helpers.hub_server import TOKEN, Repository, hub_server
from helpers.mutations import seal
from huggingface_hub import constants
from huggingface_hub.utils import _http as hub_http

from sparsedistill import Classifier, remote, remote_sources
from sparsedistill.errors import ConfigError, ModelFileError
from sparsedistill.model_format import save_model
from sparsedistill.remote import fetch_model, push_model

FILES = ["config.json", "model.safetensors", "ngrams.txt.zst", "vocabulary.safetensors"]
NAME = "team/student"
ROOT = Path(remote.__file__).parents[1]


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


def models(cache):
    return sorted(cache.glob("models/*")) if cache.exists() else []


def config_with(content, **changes):
    """`config.json` with changes, which knows the digests that it has then."""
    return seal(
        {"config.json": json.dumps({**json.loads(content["config.json"]), **changes}).encode()}
    )["config.json"]


def test_a_directory_is_returned_as_it_is(saved, tmp_path):
    assert fetch_model(str(saved)) == fetch_model(saved) == saved
    assert fetch_model(tmp_path / "not there") == tmp_path / "not there"


def test_a_model_comes_whole_from_anywhere(place, content, own_cache):
    name, files = place
    files["README.md"] = b"# A card"
    directory = fetch_model(name)
    assert directory.parent == own_cache / "models"
    found = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert found == {**content, "README.md": b"# A card"}
    assert models(own_cache) == [directory]
    assert Classifier.load(directory, verify=True).predict("the film")


def test_a_model_without_card_or_strings_comes_as_well(place, own_cache, tmp_path):
    name, files = place
    save_model(tmp_path / "plain", small_model(), None)
    files.pop("ngrams.txt.zst")
    files.update({path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()})
    assert not (fetch_model(name) / "ngrams.txt.zst").exists()


def test_what_the_config_does_not_list_is_not_fetched(place):
    name, files = place
    files["model.py"] = b"import os"
    assert not (fetch_model(name) / "model.py").exists()


@pytest.mark.parametrize("kind", [NAME, "{url}/plain/student"])
def test_what_was_fetched_is_not_fetched_again(hub, kind):
    name = kind.format(url=hub.url)
    directory = fetch_model(name)
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    hub.requests.clear()
    assert fetch_model(name) == directory
    assert set(hub.downloads()) <= {"config.json"}
    assert {path.name: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_another_model_under_the_same_name_is_fetched(place, tmp_path):
    name, files = place
    before = fetch_model(name)
    save_model(tmp_path / "new", small_model(seed=1), small_vocabulary())
    files.update({path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()})
    after = fetch_model(name)
    assert before != after
    assert Classifier.load(after).folded.table[0, 0] == small_model(seed=1).table[0, 0]
    assert Classifier.load(before).folded.table[0, 0] == small_model().table[0, 0]


def test_the_cache_can_be_given(place, own_cache, tmp_path, monkeypatch):
    assert fetch_model(place[0], cache=tmp_path / "mine").parent == tmp_path / "mine" / "models"
    assert models(own_cache) == []
    monkeypatch.delenv("SPARSEDISTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fetch_model(place[0]).parent == tmp_path / "xdg" / "sparsedistill" / "models"


@pytest.mark.parametrize("name", FILES[1:])
def test_an_altered_file_is_refused_and_nothing_is_kept(place, own_cache, name):
    source, files = place
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    with pytest.raises(ModelFileError, match=f"student/{name}: altered"):
        fetch_model(source)
    assert models(own_cache) == []


@pytest.mark.parametrize("name", FILES[1:])
def test_a_short_file_is_refused_and_nothing_is_kept(place, own_cache, name):
    source, files = place
    files[name] = files[name][:-1]
    with pytest.raises(ModelFileError, match=f"student/{name}: .*truncated"):
        fetch_model(source)
    assert models(own_cache) == []


@pytest.mark.parametrize("name", FILES[1:])
def test_no_more_is_fetched_than_the_config_says(place, own_cache, name):
    source, files = place
    files[name] += b"\0"
    with pytest.raises(ModelFileError, match=f"student/{name}: longer than it may be"):
        fetch_model(source)
    assert models(own_cache) == []


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_there_is_refused_by_name(place, own_cache, name):
    source, files = place
    files.pop(name)
    with pytest.raises(ModelFileError, match=f"student.*{name}"):
        fetch_model(source)
    assert models(own_cache) == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "model.py", "sub/model.safetensors"])
def test_a_file_that_no_model_has_is_not_fetched(place, own_cache, tmp_path, name):
    source, files = place
    listed = json.loads(files["config.json"])["files"]
    files["config.json"] = config_with(files, files={**listed, name: {"bytes": 1, "sha256": ""}})
    with pytest.raises(ModelFileError, match=r"student/config.json: "):
        fetch_model(source)
    assert models(own_cache) == []


@pytest.mark.parametrize("config", [b"", b"{", b"<html>sign in</html>", b"[]", b"{}", b"\xff"])
def test_a_config_that_is_none_is_refused_with_its_source(place, own_cache, config):
    source, files = place
    files["config.json"] = config
    with pytest.raises(ModelFileError, match=r"student/config.json: ") as caught:
        fetch_model(source)
    assert str(own_cache) not in str(caught.value)
    assert models(own_cache) == []


def test_a_config_that_goes_on_and_on_is_given_up(server, monkeypatch):
    monkeypatch.setattr(remote_sources, "_MOST_CONFIG", 100)
    with pytest.raises(ModelFileError, match="longer than it may be"):
        fetch_model(f"{server.url}/plain/student")


def test_a_model_too_large_for_the_disk_is_not_begun(hub):
    files = hub.repositories[NAME].files
    listed = json.loads(files["config.json"])["files"]
    listed["model.safetensors"]["bytes"] = 1 << 60
    files["config.json"] = config_with(files, files=listed)
    hub.requests.clear()
    with pytest.raises(ModelFileError, match=r"needs .* bytes, and .* left; another place"):
        fetch_model(NAME)
    assert hub.downloads() == ["config.json"]


def test_a_card_that_cannot_be_had_keeps_no_model_back(hub):
    hub.status["README.md"] = 500
    assert not (fetch_model(f"{hub.url}/plain/student") / "README.md").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_connection_that_breaks_leaves_nothing(server, own_cache, name):
    server.cut.add(name)
    with pytest.raises(ModelFileError, match=f"plain/student/{name}"):
        fetch_model(f"{server.url}/plain/student")
    assert models(own_cache) == []
    server.cut.clear()
    assert Classifier.load(fetch_model(f"{server.url}/plain/student"), verify=True)


KILLED = """
import os, signal, sys
from sparsedistill import remote
fetch = remote.UrlSource.fetch
def killed(self, name, target, most):
    found = fetch(self, name, target, most)
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return found
remote.UrlSource.fetch = killed
remote.fetch_model(sys.argv[1])
"""


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_what_a_killed_download_leaves_does_not_load(saved, own_cache, name):
    done = subprocess.run([sys.executable, "-c", KILLED, saved.as_uri(), name], cwd=ROOT)
    assert done.returncode == -9
    (left,) = own_cache.glob("models/.fetch-*")
    for directory in (left, left / "model"):
        with pytest.raises(ModelFileError):
            Classifier.load(directory)
    assert Classifier.load(fetch_model(saved.as_uri()), verify=True)
    assert left.exists()
    os.utime(left, (0, 0))
    (own_cache / "models" / ".fetch-now").mkdir()
    shutil.rmtree(fetch_model(saved.as_uri()))
    fetch_model(saved.as_uri())
    assert not left.exists()
    assert (own_cache / "models" / ".fetch-now").exists()


def _fetch(url, barrier, results):
    barrier.wait()
    results.put(str(fetch_model(url)))


def test_many_processes_may_fetch_at_once(saved, own_cache):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    workers = [
        context.Process(target=_fetch, args=(saved.as_uri(), barrier, results)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=100) for _ in workers}
    for worker in workers:
        worker.join()
    assert [str(path) for path in models(own_cache)] == list(found)
    assert Classifier.load(*found, verify=True)


def test_who_comes_second_takes_the_model_of_the_first(saved, own_cache, monkeypatch):
    verify = remote.check_files

    def other_first(directory, config):
        monkeypatch.setattr(remote, "check_files", verify)
        fetch_model(saved.as_uri())
        verify(directory, config)

    monkeypatch.setattr(remote, "check_files", other_first)
    directory = fetch_model(saved.as_uri())
    assert models(own_cache) == [directory]


@pytest.mark.parametrize("name", FILES)
def test_a_kept_model_that_was_cut_short_is_fetched_again(saved, own_cache, content, name):
    directory = fetch_model(saved.as_uri())
    (directory / name).write_bytes(content[name][:-1])
    assert fetch_model(saved.as_uri()) == directory
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == content
    assert models(own_cache) == [directory]


def test_a_model_of_the_hub_is_all_of_one_commit(hub, content, tmp_path):
    """The branch moves on after config.json has come."""
    repository = hub.repositories[NAME]
    old = repository.commit
    directory = fetch_model(NAME, revision=old)
    asked = {path.split("/")[4] for method, path in hub.requests}
    assert asked == {old}
    hub.requests.clear()
    shutil.rmtree(directory)
    fetch_model(NAME)
    revisions = {path.rpartition("/")[2]: path.split("/")[4] for _, path in hub.requests}
    assert revisions == {**dict.fromkeys([*FILES, "README.md"], old), "config.json": "main"}


def test_a_model_that_is_kept_serves_without_the_hub(hub, monkeypatch):
    directory = fetch_model(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert fetch_model(NAME) == directory
    assert hub.requests == []
    with pytest.raises(ModelFileError, match="team/other: not fetched before, and HF_HUB_OFFLINE"):
        fetch_model("team/other")


def test_a_hub_that_does_not_answer_is_told_apart_from_a_model_that_is_not_there(hub, monkeypatch):
    hub.status["config.json"] = 502
    with pytest.raises(ModelFileError, match="the hub does not answer: check network"):
        fetch_model(NAME)


def test_endpoint_and_offline_are_those_of_the_environment(server, own_cache):
    code = (
        "import sys; from sparsedistill.remote import fetch_model; print(fetch_model(sys.argv[1]))"
    )
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0"}
    for offline in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code, NAME],
            cwd=ROOT, env={**environment, "HF_HUB_OFFLINE": offline}, check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.stdout.strip() == str(models(own_cache)[0])
        server.repositories.clear()


@pytest.mark.parametrize("token", [None, "hf_wrongwrongwrong"])
def test_a_private_model_without_the_right_token_is_refused_with_advice(hub, token, caplog):
    hub.repositories[NAME].private = True
    with pytest.raises(ModelFileError, match=r"keeps it private: .* pass token=") as caught:
        fetch_model(NAME, token=token)
    assert str(token) not in str(caught.value) + caplog.text


def test_a_private_model_comes_with_its_token_which_is_never_told(hub, caplog, own_cache):
    caplog.set_level(0)
    hub.repositories[NAME].private = True
    directory = fetch_model(NAME, token=TOKEN)
    assert Classifier.load(directory, verify=True)
    hub.repositories[NAME].files.pop("model.safetensors")
    shutil.rmtree(directory)
    with pytest.raises(ModelFileError) as caught:
        fetch_model(NAME, token=TOKEN)
    assert TOKEN not in str(caught.value) + caplog.text
    kept = [path for path in own_cache.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in path.read_bytes() for path in kept)


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("team/other", None, "team/other: there is no such directory, and the hub has no such"),
        (NAME, "v2", "team/student@v2: the model on the hub has no such revision"),
        ("studnet", None, "studnet: there is no such directory, and the hub"),
        ("team/a--b", None, "neither a directory nor a name that the hub can have"),
    ],
)
def test_what_the_hub_does_not_have_is_said(hub, name, revision, message):
    with pytest.raises(ModelFileError, match=message):
        fetch_model(name, revision=revision)


def test_a_repository_of_something_else_is_said_to_be_none_of_ours(hub):
    hub.repositories["team/bert"] = Repository({"pytorch_model.bin": b""})
    with pytest.raises(ModelFileError, match=r"no config.json: is it a model of sparsedistill"):
        fetch_model("team/bert")


@pytest.mark.parametrize("name", ["/no/such/place", "./student", "a/b/c", "", "~", "a b", "..\\x"])
def test_a_path_that_is_not_there_is_not_asked_of_the_hub(hub, name):
    with pytest.raises(ModelFileError, match="there is no such directory"):
        fetch_model(name)
    assert hub.requests == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_url_that_refuses_says_whose_credentials_are_asked_for(server, status):
    server.status["config.json"] = status
    with pytest.raises(ModelFileError, match="access is refused; credentials for http:// are"):
        fetch_model(f"{server.url}/plain/student")


def test_a_url_that_answers_with_an_error_is_named(server):
    server.status["model.safetensors"] = 500
    with pytest.raises(ModelFileError, match=r"student/model.safetensors: cannot be .* 500"):
        fetch_model(f"{server.url}/plain/student")


def test_nobody_at_a_url_is_an_error_of_ours(server):
    with pytest.raises(ModelFileError, match=r"http://127.0.0.1:9/x/config.json: cannot be"):
        fetch_model("http://127.0.0.1:9/x")


def test_password_and_signature_of_a_url_are_used_and_never_told(server, caplog):
    caplog.set_level(0)
    plain = server.url.removeprefix("http://")
    url = f"http://user:pass1234@{plain}/plain/student/?signature=abcd1234"
    assert fetch_model(url)
    server.plain.pop("student/config.json")
    for status in (None, 401, 500):
        server.status = {} if status is None else {"config.json": status}
        with pytest.raises(ModelFileError, match=r"plain/student/config.json") as caught:
            fetch_model(url)
        told = f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
        assert "pass1234" not in told
        assert "abcd1234" not in told


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing://x/y", "nothing://x/y: .*[Pp]rotocol"),
        ("gs://bucket/x", "gs://bucket/x: .*gcsfs"),
    ],
)
def test_a_protocol_that_is_not_known_or_not_installed_is_said(url, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises((ModelFileError, ConfigError), match=message):
        fetch_model(url)


@pytest.mark.parametrize(
    ("missing", "name", "extra"),
    [
        ("fsspec", "https://host/x", "remote"),
        ("huggingface_hub", NAME, "hub"),
        ("s3fs", "s3://bucket/x", "s3"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(missing, name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(ConfigError, match=rf"pip install 'sparsedistill\[{extra}\]'"):
        fetch_model(name)


def test_a_revision_is_for_the_hub_only(saved):
    for name in (saved, str(saved), saved.as_uri()):
        with pytest.raises(ConfigError, match="revision 'v1' is for a model on the hub"):
            fetch_model(name, revision="v1")


def test_nothing_is_imported_for_a_model_that_is_here(saved):
    code = (
        "import sys; from sparsedistill import Classifier\n"
        "Classifier.from_pretrained(sys.argv[1]); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert {"fsspec", "huggingface_hub", "aiohttp"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("private", [False, True])
def test_a_pushed_model_comes_back_the_same_with_a_card(hub, saved, content, private):
    url = push_model(saved, "team/new", private=private, token=TOKEN, message="First")
    assert url == f"{hub.url}/team/new"
    made = hub.repositories["team/new"]
    assert (made.private, made.message) == (private, "First")
    assert sorted(made.files) == sorted([*FILES, "README.md"])
    assert b'Classifier.from_pretrained("team/new")' in made.files["README.md"]
    directory = fetch_model("team/new", token=TOKEN)
    assert {name: (directory / name).read_bytes() for name in FILES} == content


def test_pushing_again_replaces_the_model_and_keeps_a_given_card(hub, saved, tmp_path):
    push_model(saved, "team/new", token=TOKEN)
    new = tmp_path / "new"
    save_model(new, small_model(seed=1), small_vocabulary())
    (new / "README.md").write_text("# Ours")
    (new / "notes.txt").write_text("not for anybody")
    push_model(new, "team/new", token=TOKEN)
    made = hub.repositories["team/new"]
    assert made.files["README.md"] == b"# Ours"
    assert "notes.txt" not in made.files
    digest = hashlib.sha256((new / "model.safetensors").read_bytes()).digest()
    assert hashlib.sha256(made.files["model.safetensors"]).digest() == digest


def test_a_damaged_model_is_not_pushed(hub, saved, content, tmp_path):
    for name in FILES[1:]:
        directory = Path(shutil.copytree(saved, tmp_path / name))
        (directory / name).write_bytes(content[name][:-1] + b"\0\0")
        with pytest.raises(ModelFileError, match=name):
            push_model(directory, "team/new", token=TOKEN)
        (directory / name).unlink()
        with pytest.raises(ModelFileError, match=f"{name}: there is no such file"):
            push_model(directory, "team/new", token=TOKEN)
    assert hub.requests == []


def test_a_push_that_is_refused_says_why_and_not_with_what(hub, saved, caplog):
    caplog.set_level(0)
    with pytest.raises(ConfigError, match=r"team/new: .*token") as caught:
        push_model(saved, "team/new", token="hf_wrongwrongwrong")
    assert "hf_wrong" not in str(caught.value) + caplog.text


def test_a_push_without_the_hubs_library_names_the_extra(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'sparsedistill\[hub\]'"):
        push_model(saved, "team/new")


def test_the_classifier_fetches_and_pushes(hub, saved):
    classifier = Classifier.from_pretrained(NAME, threads=2)
    assert classifier.threads == 2
    assert classifier.push_to_hub("team/copy", token=TOKEN) == f"{hub.url}/team/copy"
    again = Classifier.from_pretrained("team/copy")
    assert (
        again.predict_proba(["the film"]).tolist()
        == Classifier.load(saved).predict_proba(["the film"]).tolist()
    )
    assert huggingface_hub.__version__
