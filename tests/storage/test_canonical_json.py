"""Keys must be equal for equal recipes, on any machine, and differ for different ones."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import Input, Recipe, StorageError, canonical_json, sha256_json
from storage.digests import normalise, normalise_statistics

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
CONFIGS = st.dictionaries(TEXT, VALUES, max_size=5)


def shuffled(value, chance: random.Random):
    if isinstance(value, dict):
        items = list(value.items())
        chance.shuffle(items)
        return {name: shuffled(item, chance) for name, item in items}
    if isinstance(value, list):
        return tuple(shuffled(item, chance) for item in value)
    return value


@settings(deadline=None, max_examples=100)
@given(VALUES)
def test_canonical_json_is_json_of_the_same_value(value):
    assert json.loads(canonical_json(value)) == value


@settings(deadline=None, max_examples=100)
@given(CONFIGS, st.randoms(use_true_random=False))
def test_order_of_fields_and_tuples_for_lists_do_not_change_the_key(config, chance):
    one = Recipe("corpus", 1, config)
    other = Recipe("corpus", 1, shuffled(config, chance))
    assert one.key == other.key
    assert one == other


@settings(deadline=None, max_examples=100)
@given(CONFIGS, CONFIGS)
def test_different_configs_have_different_keys(one, other):
    same = canonical_json(one) == canonical_json(other)
    assert (Recipe("corpus", 1, one).key == Recipe("corpus", 1, other).key) == same


@settings(deadline=None, max_examples=50)
@given(CONFIGS)
def test_a_key_survives_the_way_through_a_json_file(config):
    assert Recipe("x", 1, json.loads(json.dumps(config))).key == Recipe("x", 1, config).key


def test_the_canonical_form_is_fixed_for_good():
    value = {"b": [1, 2.5, True, None], "a": "é\n", "c": {"y": 1e-7, "x": -0.0}}
    expected = '{"a":"é\\n","b":[1,2.5,true,null],"c":{"x":0.0,"y":1e-07}}'
    assert canonical_json(value) == expected.encode()


def test_the_key_of_a_recipe_is_fixed_for_good():
    # Stores in the field would be recomputed from the start if this ever changed.
    recipe = Recipe(
        "ngrams",
        3,
        {"min_n": 1, "max_n": 4},
        {"corpus": (Input("corpus", "0" * 32, "d" * 64),)},
        "c" * 64,
    )
    expected = {
        "kind": "ngrams",
        "version": 3,
        "config": {"min_n": 1, "max_n": 4},
        "inputs": {"corpus": ["d" * 64]},
        "content": "c" * 64,
    }
    assert recipe.key == sha256_json(expected)[:32] == "2d15527362ad87f004cde8e8a1a5d803"


def test_true_and_1_and_1_0_are_three_configs():
    assert len({Recipe("x", 1, {"a": value}).key for value in (True, 1, 1.0)}) == 3


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, {1: 2}, {"a": object()}, "\ud800", b"x", {1}]
)
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(StorageError):
        canonical_json(value)


def test_the_error_names_the_place_of_the_value():
    with pytest.raises(StorageError, match=r"config of student\.adam\.betas\[1\] is nan"):
        Recipe("student", 1, {"adam": {"betas": [0.9, math.nan]}})


def test_a_recipe_keeps_its_key_when_the_config_it_was_made_from_changes():
    config = {"a": [1]}
    recipe = Recipe("x", 1, config)
    key = recipe.key
    config["a"].append(2)
    assert recipe.key == key


def test_statistics_of_a_diverged_run_can_be_written():
    found = normalise_statistics(
        {"loss": math.nan, "n": np.int64(3), "f": np.float32(0.5), "flag": True, "l": (math.inf, 1)}
    )
    assert found == {"loss": None, "n": 3, "f": 0.5, "flag": True, "l": [None, 1]}
    assert json.dumps(normalise(found))
