import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.folded_cases import small_model, small_vocabulary
from helpers.hub_server import TOKEN, Repository
from huggingface_hub import constants
from remote_cases import FILES, NAME, ROOT, models

from sparsedistill import Classifier
from sparsedistill.errors import ConfigError, ModelFileError
from sparsedistill.model_format import save_model
from sparsedistill.remote import fetch_model, push_model


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
