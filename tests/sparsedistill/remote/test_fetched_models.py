import json
import multiprocessing
import os
import shutil
import subprocess
import sys

import pytest
from helpers.folded_cases import small_model, small_vocabulary
from remote_cases import FILES, NAME, ROOT, config_with, models

from sparsedistill import Classifier, remote, remote_sources
from sparsedistill.errors import ModelFileError
from sparsedistill.model_format import save_model
from sparsedistill.remote import fetch_model


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
