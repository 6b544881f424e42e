"""Names that stand for checkpoints: found quickly, or refused quickly with a clear reason."""

import json
import shutil
import time

import huggingface_hub.constants
import pytest
from helpers.tiny_bert import write_tiny_bert
from helpers.tiny_task import LABELS

from sparsedistill.errors import ConfigError, TeacherError
from sparsedistill.teacher.checkpoint import (
    load_classifier,
    load_model,
    load_tokenizer,
    resolve_checkpoint,
    save_classifier,
)
from sparsedistill.teacher.quiet import quiet_transformers

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def own(tiny_classifier, tmp_path):
    """A copy of the tiny classifier that a test may spoil."""
    return shutil.copytree(tiny_classifier, tmp_path / "own")


@pytest.fixture
def cached(tiny_classifier, tmp_path, monkeypatch):
    """The tiny classifier in the hub's cache, as someone/tiny."""
    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_classifier, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_the_digest_of_a_directory_is_of_what_decides_the_model(own):
    found = resolve_checkpoint(str(own))
    assert (found.name, found.revision) == (str(own), None)
    (own / "README.md").write_text("notes")
    (own / ".cache").mkdir()
    (own / ".cache" / "x.json").write_text("{}")
    assert resolve_checkpoint(str(own)) == found
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert resolve_checkpoint(str(own)).digest != found.digest


def test_the_digest_does_not_depend_on_where_the_directory_is(own, tmp_path):
    moved = shutil.copytree(own, tmp_path / "moved")
    assert resolve_checkpoint(str(own)).digest == resolve_checkpoint(str(moved)).digest


def test_a_home_directory_is_expanded(own, monkeypatch):
    monkeypatch.setenv("HOME", str(own.parent))
    assert resolve_checkpoint("~/own").name == str(own)


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "~/nothing", "a/b/c"])
def test_what_can_only_be_a_directory_is_not_asked_of_the_hub(name, asked):
    with pytest.raises(ConfigError, match=r"no directory .*config\.json"):
        resolve_checkpoint(name)
    assert asked == []


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json"):
        resolve_checkpoint(str(tmp_path))


@pytest.mark.parametrize("name", ["someone/unknown", "unknown", "bad name/with space", "x/.."])
def test_without_a_network_a_hub_name_fails_within_seconds(name, asked):
    begin = time.monotonic()
    with pytest.raises(ConfigError, match=r"no directory .* and the hub gave no model"):
        resolve_checkpoint(name)
    assert time.monotonic() - begin < 5


def test_the_offline_switch_of_the_hub_is_named_as_the_reason(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="OfflineMode"):
        resolve_checkpoint("someone/unknown")


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_cached_hub_model_is_found_and_loaded_without_a_network(cached, asked, revision):
    found = resolve_checkpoint("someone/tiny", revision=revision)
    assert (found.name, found.revision) == ("someone/tiny", COMMIT)
    assert found.digest == f"hub:someone/tiny@{COMMIT}"
    begin = time.monotonic()
    _, model = load_classifier(found.name, revision=found.revision)
    assert model.config.id2label == dict(enumerate(LABELS))
    assert time.monotonic() - begin < 10


def test_a_hub_model_that_is_gone_since_it_was_resolved_fails_within_seconds(cached, asked):
    begin = time.monotonic()
    with pytest.raises(TeacherError, match="someone/other cannot be fetched"):
        load_classifier("someone/other", revision=COMMIT)
    assert time.monotonic() - begin < 5


def test_loading_a_directory_asks_the_network_nothing(own, asked):
    load_classifier(own)
    assert asked == []


def test_an_unknown_directory_is_not_taken_for_a_hub_name(tmp_path, asked):
    for load in (load_classifier, load_tokenizer, load_model):
        with pytest.raises(TeacherError, match="no directory"):
            load("not/there")
    assert asked == []


def test_a_missing_tokenizer_is_an_error_and_not_one_that_knows_no_word(own):
    # transformers makes up a tokenizer of special tokens only, and says nothing.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (own / name).unlink()
    config = json.loads((own / "config.json").read_text())
    assert config["model_type"] == "bert"
    with pytest.raises(TeacherError, match="no tokenizer"):
        load_classifier(own)


def test_a_tokenizer_that_cannot_pad_is_refused(own):
    config = json.loads((own / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (own / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TeacherError, match="pad_token"):
        load_tokenizer(own)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{"),
        ("config.json", b"{"),
        ("config.json", b"{}"),
        ("model.safetensors", b"cut"),
        ("model.safetensors", None),
    ],
)
def test_a_damaged_or_missing_file_is_a_teacher_error(own, name, content):
    (own / name).unlink()
    if content is not None:
        (own / name).write_bytes(content)
    with pytest.raises(TeacherError, match=str(own)):
        load_classifier(own)


def test_a_checkpoint_without_a_head_is_not_taken_as_a_classifier(tiny_encoder):
    # transformers would give it a random one.
    with pytest.raises(TeacherError, match=r"no fine-tuned classifier: it lacks .*classifier"):
        load_classifier(tiny_encoder)
    assert load_model(tiny_encoder, num_labels=4).config.num_labels == 4


def test_a_head_of_another_size_is_replaced_where_one_is_asked_for(own):
    assert load_model(own, num_labels=5).classifier.out_features == 5


def test_code_that_comes_with_a_checkpoint_is_not_run_and_nobody_is_asked(own):
    config = json.loads((own / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}}
    (own / "config.json").write_text(json.dumps(config))
    (own / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(TeacherError):
        load_model(own)


def test_loading_and_saving_write_nothing_to_the_terminal(tiny_encoder, tmp_path, capfd):
    tokenizer, model = load_tokenizer(tiny_encoder), load_model(tiny_encoder, num_labels=3)
    save_classifier(tokenizer, model, tmp_path / "saved")
    assert capfd.readouterr() == ("", "")


def test_the_switches_of_transformers_are_put_back_by_the_last_one_out():
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    first, second = quiet_transformers(), quiet_transformers()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.ERROR, False)
    second.__exit__(None, None, None)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_what_is_saved_holds_no_path_and_loads_to_the_same_logits(tmp_path):
    import torch

    source = write_tiny_bert(tmp_path / "secret-place" / "m", ["good", "bad"], labels=["x", "y"])
    tokenizer, model = load_classifier(source)
    save_classifier(tokenizer, model, tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        assert b"secret-place" not in file.read_bytes(), file.name
    _, again = load_classifier(tmp_path / "saved")
    ids = tokenizer("good bad", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, again.eval()(ids).logits)
