import hashlib
import json

import numpy as np
import pytest
from helpers.folded_cases import NGRAMS, TEXTS, small_model, small_vocabulary
from safetensors.numpy import load_file, save_file

from sparsedistill import Classifier
from sparsedistill.errors import DataError, ModelFileError
from sparsedistill.model_format import (
    config_digest,
    load_model,
    load_ngrams,
    read_config,
    save_model,
)
from sparsedistill.text.buffers import TextBuffer

FILES = ["config.json", "model.safetensors", "ngrams.txt.zst", "vocabulary.safetensors"]


@pytest.fixture
def saved(tmp_path):
    directory = tmp_path / "student"
    save_model(directory, small_model(), small_vocabulary(), training={"teacher": "base"})
    return directory


@pytest.mark.parametrize("table_type", ["float32", "float16", "int8"])
def test_a_loaded_model_answers_the_same_bits(tmp_path, table_type):
    model = small_model(activation="tanh").converted(table_type)
    save_model(tmp_path, model, small_vocabulary())
    loaded = load_model(tmp_path, verify=True)
    texts = TextBuffer.from_strings(TEXTS)
    np.testing.assert_array_equal(loaded.logits(texts), model.logits(texts))
    assert (loaded.labels, loaded.spec, loaded.temperature, loaded.max_ngrams) == (
        model.labels,
        model.spec,
        model.temperature,
        model.max_ngrams,
    )


def test_the_directory_holds_what_the_design_says_and_the_same_model_the_same_bytes(
    saved, tmp_path
):
    assert sorted(path.name for path in saved.iterdir()) == FILES
    Classifier.load(saved).save_pretrained(tmp_path / "again")
    for name in FILES:
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert list(load_ngrams(saved)) == NGRAMS
    assert read_config(saved).training == {"teacher": "base"}


def test_the_table_is_mapped_and_not_read(saved):
    table = load_model(saved).table
    while isinstance(table, np.ndarray) and not isinstance(table, np.memmap):
        table = table.base
    assert isinstance(table, np.memmap)


def test_a_model_may_do_without_its_strings(tmp_path):
    save_model(tmp_path, small_model(), None)
    classifier = Classifier.load(tmp_path)
    assert classifier.explain("the film").ngrams[0].ngram in NGRAMS
    assert load_ngrams(tmp_path) is None
    assert classifier.ngrams is None
    classifier.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "ngrams.txt.zst").exists()


def test_the_vocabulary_of_another_model_is_refused(tmp_path):
    with pytest.raises(DataError, match="row by row"):
        save_model(tmp_path, small_model(), small_vocabulary(NGRAMS[::-1]))


def test_replacing_a_model_leaves_a_loaded_one_as_it_was(saved):
    texts = TextBuffer.from_strings(TEXTS)
    loaded = load_model(saved)
    save_model(saved, small_model(seed=1), small_vocabulary())
    np.testing.assert_array_equal(loaded.logits(texts), small_model().logits(texts))
    np.testing.assert_array_equal(
        load_model(saved).logits(texts), small_model(seed=1).logits(texts)
    )


def test_the_ngrams_of_a_model_that_was_replaced_are_refused(saved):
    loaded = Classifier.load(saved)
    save_model(saved, small_model(), small_vocabulary(NGRAMS), training={"other": "bytes"})
    assert list(loaded.ngrams) == NGRAMS
    loaded = Classifier.load(saved)
    other = small_vocabulary(NGRAMS[::-1])
    save_model(saved, small_model(index=other.index), other)
    with pytest.raises(ModelFileError, match=r"ngrams.txt.zst: (altered|.* bytes)"):
        _ = loaded.ngrams


def test_strings_of_a_model_that_was_there_before_do_not_stay(saved):
    save_model(saved, small_model(), None)
    assert not (saved / "ngrams.txt.zst").exists()


def edit(path, **changes):
    """Change a configuration as someone would who knows how it is signed."""
    config = {**json.loads(path.read_text()), **changes}
    config.pop("digest")
    path.write_text(json.dumps({**config, "digest": config_digest(config)}))


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def cut_and_hide_it(directory, name):
    cut(directory / name)
    files = json.loads((directory / "config.json").read_text())["files"]
    content = (directory / name).read_bytes()
    files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(directory / "config.json", files=files)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "config.json: there is no such file"),
        (lambda d: (d / "config.json").write_bytes(b"\xff"), "config.json: not JSON"),
        (lambda d: (d / "config.json").write_text("[]"), "config.json: not a JSON object"),
        (lambda d: edit(d / "config.json", format=3), "config.json: format 3 is newer"),
        (lambda d: edit(d / "config.json", format="1"), "config.json: format must be of type int"),
        (lambda d: edit(d / "config.json", format=1), "format 1 is not read any more"),
        (lambda d: edit(d / "config.json", labels=["a", 2, "b"]), "labels must be strings"),
        (lambda d: edit(d / "config.json", labels=["a", "a", "b"]), "config.json: .*different"),
        (lambda d: edit(d / "config.json", labels=["a", "b"]), r"head_weight is F32\[3, 37\]"),
        (lambda d: edit(d / "config.json", rows=12), r"table is F32\[11, 37\]"),
        (lambda d: edit(d / "config.json", rows=-1), "rows is negative"),
        (lambda d: edit(d / "config.json", hidden=None), "hidden must be of type int"),
        (lambda d: edit(d / "config.json", slots=5), "vocabulary.safetensors: slots"),
        (lambda d: edit(d / "config.json", width=38), "a table of 38 columns for 37 hidden units"),
        (lambda d: edit(d / "config.json", width=0), "a table of 0 columns for 37 hidden units"),
        (lambda d: edit(d / "config.json", hidden=0, width=0), "0 columns for 0 hidden units"),
        (lambda d: edit(d / "config.json", thresholds={"label 1": "x"}), "'x' is no threshold"),
        (lambda d: edit(d / "config.json", thresholds={"other": 0.5}), "for a label 'other'"),
        (lambda d: edit(d / "config.json", dtype="float64"), "dtype 'float64'"),
        (lambda d: edit(d / "config.json", dtype="float16"), "table is F32"),
        (lambda d: edit(d / "config.json", dtype="int8"), "model.safetensors: holds"),
        (lambda d: edit(d / "config.json", activation="gelu"), "config.json: activation"),
        (lambda d: edit(d / "config.json", temperature="hot"), "temperature must be a number"),
        (lambda d: edit(d / "config.json", temperature=-1), "config.json: temperature"),
        (lambda d: edit(d / "config.json", max_ngrams=0), "config.json: max_ngrams"),
        (lambda d: edit(d / "config.json", ngrams=[1]), "config.json: an n-gram spec"),
        (lambda d: edit(d / "config.json", hash="md5"), "config.json: hash 'md5'"),
        (lambda d: edit(d / "config.json", training=3), "training must be of type dict"),
        (lambda d: edit(d / "config.json", files={"../x": {}}), "config.json: files are"),
        (
            lambda d: edit(
                d / "config.json", files={"model.safetensors": 1, "vocabulary.safetensors": 1}
            ),
            "must be an object",
        ),
        (
            lambda d: (d / "config.json").write_text(
                (d / "config.json").read_text().replace("label 1", "label 9")
            ),
            "config.json: altered",
        ),
        (lambda d: cut(d / "model.safetensors"), "model.safetensors: .* truncated"),
        (lambda d: cut(d / "ngrams.txt.zst"), "ngrams.txt.zst: .* truncated"),
        (lambda d: (d / "vocabulary.safetensors").unlink(), "vocabulary.safetensors: there is no"),
        (
            lambda d: cut_and_hide_it(d, "model.safetensors"),
            "model.safetensors: not a whole safetensors file",
        ),
        (
            lambda d: cut_and_hide_it(d, "vocabulary.safetensors"),
            "vocabulary.safetensors: not a whole safetensors file",
        ),
    ],
)
def test_a_damaged_model_is_refused_with_file_and_reason(saved, damage, message):
    damage(saved)
    with pytest.raises(ModelFileError, match=message):
        Classifier.load(saved)


def rewrite(directory, name, change):
    """Change a file's tensors and sign it as someone would who knows how."""
    path = directory / name
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    content = path.read_bytes()
    files = json.loads((directory / "config.json").read_text())["files"]
    files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(directory / "config.json", files=files)


def point_outside(tensors):
    tensors["slots"][tensors["slots"] != 0] |= np.uint64(15)


def leave_no_slot_empty(tensors):
    tensors["slots"][:] = 1


def make_one_long_run(tensors):
    count = len(tensors["slots"]) // 2
    tensors["slots"][:count] = np.uint64(1 << 40) + np.uint64(2)
    tensors["slots"][count:] = 0


def other_bias(tensors):
    tensors["head_bias"] += 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vocabulary.safetensors", point_outside, "a slot points outside of the 11 rows"),
        ("vocabulary.safetensors", leave_no_slot_empty, "more than half of the slots are taken"),
        ("model.safetensors", other_bias, "its layers are not those saved"),
    ],
)
def test_a_hostile_file_with_right_checksums_is_refused_all_the_same(saved, name, change, message):
    rewrite(saved, name, change)
    with pytest.raises(ModelFileError, match=f"{name}: .*{message}"):
        Classifier.load(saved)


def test_a_changed_vocabulary_is_found_at_once(saved):
    path = saved / "vocabulary.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"vocabulary.safetensors: altered"):
        Classifier.load(saved)


def test_a_damaged_table_that_makes_no_number_is_an_error_and_no_answer(saved):
    rewrite(saved, "model.safetensors", lambda tensors: tensors["table"].fill(np.nan))
    with pytest.raises(ModelFileError, match="damaged"):
        Classifier.load(saved).predict("the film was good")


def test_a_changed_byte_is_found_when_asked_to_verify(saved):
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    Classifier.load(saved)
    with pytest.raises(ModelFileError, match=r"model.safetensors: altered"):
        Classifier.load(saved, verify=True)


def test_a_table_that_is_not_finite_is_found_when_asked_to_verify(tmp_path):
    table = np.zeros((len(NGRAMS), 37), np.float32)
    table[3, 3] = np.nan
    save_model(tmp_path, small_model(table=table), None)
    with pytest.raises(ModelFileError, match="not finite"):
        load_model(tmp_path, verify=True)


def test_damaged_strings_are_found_when_they_are_asked_for(saved):
    path = saved / "ngrams.txt.zst"
    path.write_bytes(bytes(path.stat().st_size))
    classifier = Classifier.load(saved)
    with pytest.raises(ModelFileError, match=r"ngrams.txt.zst: altered"):
        _ = classifier.ngrams


def test_slots_in_one_long_run_would_hang_and_are_refused(tmp_path):
    words = [f"word{i}" for i in range(2000)]
    vocabulary = small_vocabulary(words)
    table = np.zeros((2000, 37), np.float32)
    save_model(tmp_path, small_model(table=table, index=vocabulary.index), vocabulary)
    rewrite(tmp_path, "vocabulary.safetensors", make_one_long_run)
    with pytest.raises(ModelFileError, match="2,048 slots in a row are taken"):
        Classifier.load(tmp_path)
