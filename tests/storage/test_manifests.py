"""A manifest says what an artifact is; a damaged or newer one must never be believed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from storage import (
    DamagedArtifactError,
    FileEntry,
    Input,
    Manifest,
    Recipe,
    StorageError,
    StoreVersionError,
    sha256_json,
)

KEY = "0123456789abcdef" * 2
MANIFEST = Manifest(
    kind="ngrams",
    key=KEY,
    version=2,
    config={"max_n": 4},
    inputs={"corpus": (Input("corpus", KEY, "d" * 64),)},
    content=None,
    files=(FileEntry("a/b.parquet", 10, "a" * 64, 3), FileEntry("c.json", 0, "b" * 64, None)),
    statistics={"rows": 3},
    seconds=1.5,
    created="2026-01-02T03:04:05+00:00",
    tool_version="0.1.0",
)


def altered(**changes):
    fields = json.loads(MANIFEST.to_json())
    fields.update(changes)
    del fields["sha256"]
    fields["sha256"] = sha256_json(fields)
    return json.dumps(fields)


def with_file(**changes):
    return altered(files=[{"name": "a", "bytes": 1, "sha256": "a" * 64, "rows": None} | changes])


def test_json_gives_back_the_same_manifest():
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert Manifest.from_json(MANIFEST.to_json().encode()) == MANIFEST


def test_unknown_fields_are_passed_over_so_that_a_format_can_gain_some():
    assert Manifest.from_json(altered(colour="blue")) == MANIFEST


def test_the_digest_is_of_names_and_bytes_only():
    same = dataclasses.replace(
        MANIFEST, statistics={}, seconds=9.0, created="x", tool_version="y", key="f" * 32
    )
    swapped = dataclasses.replace(MANIFEST, files=MANIFEST.files[::-1])
    renamed = dataclasses.replace(MANIFEST, files=(FileEntry("z", 10, "a" * 64, 3),))
    assert MANIFEST.digest == same.digest == swapped.digest
    assert renamed.digest != MANIFEST.digest


def test_a_content_digest_known_beforehand_is_the_digest():
    assert dataclasses.replace(MANIFEST, content="c" * 64).digest == "c" * 64


def test_a_newer_manifest_is_refused_with_the_advice_to_upgrade():
    with pytest.raises(StoreVersionError, match=r"format 2.*Upgrade"):
        Manifest.from_json(altered(format=2, files="a new kind of list"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        b"\xff\xfe",
        "[" * 100_000,
        "{}",
        altered(kind="../etc"),
        altered(kind=1),
        altered(key="../../x"),
        altered(key="ABC"),
        altered(version="1"),
        altered(version=True),
        altered(config=[]),
        altered(inputs={"corpus": [{"kind": "corpus"}]}),
        altered(inputs={"corpus": "x"}),
        altered(inputs={"c": [{"kind": "corpus", "key": "../x", "digest": "d"}]}),
        altered(files=["a"]),
        altered(directory="../.."),
        altered(statistics=None),
        altered(format="1"),
        with_file(name="../x"),
        with_file(name="/etc/passwd"),
        with_file(name="a/../../x"),
        with_file(name="manifest.json"),
        with_file(bytes=-1),
        with_file(sha256="short"),
        with_file(rows="3"),
        altered(files=[json.loads(with_file())["files"][0]] * 2),
    ],
)
def test_a_malformed_manifest_is_damaged_and_named(text):
    with pytest.raises(DamagedArtifactError, match=r"ngrams/1: manifest\.json"):
        Manifest.from_json(text, artifact="ngrams/1")


def test_only_the_digests_of_inputs_enter_the_key():
    def recipe(key, digest):
        return Recipe("ngrams", 1, {}, {"corpus": (Input("corpus", key, digest),)})

    assert recipe("0" * 32, "d").key == recipe("1" * 32, "d").key
    assert recipe("0" * 32, "d").key != recipe("0" * 32, "e").key


def test_role_order_kind_version_and_content_enter_the_key():
    one, two = Input("corpus", KEY, "1"), Input("corpus", KEY, "2")
    recipes = [
        Recipe("x", 1, {}, {"a": (one, two)}),
        Recipe("x", 1, {}, {"a": (two, one)}),
        Recipe("x", 1, {}, {"b": (one, two)}),
        Recipe("x", 1, {}, {"a": (one,), "b": (two,)}),
        Recipe("y", 1, {}, {"a": (one, two)}),
        Recipe("x", 2, {}, {"a": (one, two)}),
        Recipe("x", 1, {}, {"a": (one, two)}, "c"),
    ]
    assert len({recipe.key for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("kind", ["", "..", "a/b", "A", "1a", "a.b", "_a", "a\n"])
def test_a_kind_that_could_leave_the_root_is_refused(kind):
    with pytest.raises(StorageError, match="kind"):
        Recipe(kind, 1, {})


def test_the_recipe_of_a_manifest_gives_its_key_again():
    recipe = Recipe("x", 1, {"a": 1}, {"r": (Input("corpus", KEY, "1"),)}, "c")
    manifest = dataclasses.replace(
        MANIFEST,
        kind="x",
        version=1,
        key=recipe.key,
        config=recipe.config,
        inputs=recipe.inputs,
        content="c",
    )
    assert Manifest.from_json(manifest.to_json()).recipe == recipe


def test_any_change_of_a_manifest_is_seen():
    text = bytearray(MANIFEST.to_json().encode())
    for place in range(8 * len(text)):
        text[place // 8] ^= 1 << place % 8
        try:
            found = Manifest.from_json(bytes(text))
        except (DamagedArtifactError, StoreVersionError):
            pass
        else:
            assert found == MANIFEST  # white space, or the case of a \u escape
        text[place // 8] ^= 1 << place % 8


def test_a_manifest_of_before_there_were_checksums_is_read():
    fields = json.loads(MANIFEST.to_json())
    del fields["sha256"], fields["work"]
    assert Manifest.from_json(json.dumps(fields)) == MANIFEST
