"""Damaged and hostile model files are refused by name, or do no harm; some thousand of them."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_cases
import numpy as np
import pytest
import zstandard
from helpers.folded_cases import small_model, small_vocabulary
from helpers.mutations import VALUES, mutate_bytes, mutate_json, mutate_model, seal
from hostile_cases import Models

from sparsedistill import Classifier, files
from sparsedistill.errors import DataError, ModelFileError
from sparsedistill.model_format import load_ngrams, save_model
from sparsedistill.text.buffers import TextBuffer


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return Models(tmp_path_factory.mktemp("models"))


def work_through(kind, first, last):
    """The outcomes of a range of seeds, in a process that may die of one."""
    root = Path(hostile_cases.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", hostile_cases.__file__, kind, str(first), str(last)],
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    *_, final = done.stdout.splitlines() or [""]
    assert done.returncode == 0, f"{kind}, at {final:.80}:\n{done.stderr[-4000:]}"
    return json.loads(final)


@pytest.mark.parametrize("cases", [1000, pytest.param(4000, marks=pytest.mark.slow)])
def test_some_thousand_changed_models_are_refused_or_do_no_harm(cases):
    outcomes = work_through("models", 0, cases)
    assert sum(outcomes.values()) == cases
    # The cases are worth something: of each kind there are enough.
    assert outcomes["damaged refused"] > cases / 4
    assert outcomes["hostile refused"] > cases / 4
    assert outcomes["hostile verified"] > cases / 40


def test_some_thousand_changed_texts_are_answered_alone_as_together_and_as_by_the_formula():
    assert work_through("texts", 0, 20_000) == {"texts": 20_000}


def places(value, path=()):
    """The path of every value in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in inner:
        yield (*path, key)
        if isinstance(one, dict | list):
            yield from places(one, (*path, key))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_value_at_any_key_of_a_config_does_harm(models, tmp_path):
    good = models.files[2]
    for name, content in good.items():
        (tmp_path / name).write_bytes(content)
    config = json.loads(good["config.json"])
    for path in list(places(config)):
        for value in VALUES:
            changed = copy.deepcopy(config)
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            # With the digest that it has then: without, it would be refused for that.
            changed = seal({**good, "config.json": json.dumps(changed).encode()})
            (tmp_path / "config.json").write_bytes(changed["config.json"])
            hostile_cases.loaded(tmp_path, verify=False)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocabulary.safetensors"])
def test_no_bit_of_a_file_can_be_flipped_unseen(models, tmp_path, name):
    which = 2
    for file, content in models.files[which].items():
        (tmp_path / file).write_bytes(content)
    good = models.files[which][name]
    # Every bit of where there is most to say, and some of each other byte.
    for bit in [*range(8 * min(len(good), 120)), *range(8 * 120, 8 * len(good), 37)]:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        (tmp_path / name).write_bytes(bad)
        found = hostile_cases.loaded(tmp_path, verify=True)
        assert found in (None, models.answers[which]), f"bit {bit}"


@pytest.mark.parametrize("bad", ["cut", "empty", "missing", "folder", "link"])
@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "vocabulary.safetensors", "ngrams.txt.zst"]
)
def test_a_file_that_is_none_is_refused_by_name(models, tmp_path, name, bad):
    directory = tmp_path / "model"
    directory.mkdir()
    for file, content in models.files[0].items():
        (directory / file).write_bytes(content)
    path = directory / name
    content = path.read_bytes()
    path.unlink()
    if bad == "folder":
        path.mkdir()
    elif bad == "link":
        path.symlink_to(tmp_path / "nothing")
    elif bad != "missing":
        path.write_bytes(content[: len(content) // 2] if bad == "cut" else b"")
    with pytest.raises(ModelFileError, match=name):
        _ = Classifier.load(directory).ngrams


def test_few_bytes_that_would_become_very_many_are_not_unpacked(models, tmp_path):
    bomb = zstandard.ZstdCompressor().compress(b"a\n" * (64 << 20))
    assert len(bomb) < 1 << 20
    for content in (bomb, b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little") + bomb[6:]):
        changed = seal({**models.files[0], "ngrams.txt.zst": content})
        for name, data in changed.items():
            (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelFileError, match=r"ngrams.txt.zst: .*too many for 11 n-grams"):
            load_ngrams(tmp_path)


def test_strings_of_which_nobody_says_how_many_they_are_are_not_unpacked(tmp_path):
    path = tmp_path / "strings"
    path.write_bytes(zstandard.ZstdCompressor(write_content_size=False).compress(b"a\n"))
    with pytest.raises(ModelFileError, match="damaged: does not say how long"):
        files.read_strings(path, 1)


def test_strings_with_something_after_them_are_refused(tmp_path):
    path = tmp_path / "strings"
    files.write_strings(path, TextBuffer.from_strings(["a", "b"]))
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ModelFileError, match="damaged"):
        files.read_strings(path, 2)


def test_strings_too_long_to_be_read_again_are_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MOST_AT_LEAST", 100)
    files.write_strings(tmp_path / "strings", TextBuffer.from_strings(["x" * 1000]))
    assert len(files.read_strings(tmp_path / "strings", 1)) == 1
    with pytest.raises(DataError, match="1,124 bytes are too many for 1 n-grams"):
        files.write_strings(tmp_path / "strings", TextBuffer.from_strings(["x" * 1124]))


@pytest.mark.parametrize("strings", [[], [""], ["", ""], ["a"]])
def test_few_and_empty_strings_are_read_as_they_were(tmp_path, strings):
    files.write_strings(tmp_path / "strings", TextBuffer.from_strings(strings))
    assert list(files.read_strings(tmp_path / "strings", len(strings))) == strings


def test_the_same_seed_gives_the_same_damage(models):
    for seed in range(50):
        assert mutate_model(models.files[0], seed) == mutate_model(models.files[0], seed)
        config = models.files[0]["config.json"]
        assert mutate_bytes(config, seed) == mutate_bytes(config, seed)
        assert mutate_json(config, seed) == mutate_json(config, seed)


def test_a_model_that_gives_no_finite_answer_says_so(tmp_path):
    table = np.full((11, 37), 3e38, np.float32)
    save_model(tmp_path, small_model(table=table), small_vocabulary())
    classifier = Classifier.load(tmp_path)
    for ask in (classifier.predict, classifier.predict_proba, classifier.answers):
        for texts in (["the film was good bad"], "the film was good bad"):
            with pytest.raises((ModelFileError, DataError), match="not finite"):
                ask(texts)
