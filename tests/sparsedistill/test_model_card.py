import html
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.folded_cases import small_model, small_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "dashboards"))
from summary_example import make_summary

from sparsedistill.model_card import model_card
from sparsedistill.model_format import read_config, save_model

HOSTILE = [
    "<script>alert(1)</script>",
    "a\n---\nlicense: evil",
    'x"\ntags:\n- pwned',
    "| a | b |\n# Heading",
    "[click](javascript:alert(1))",
    "![x](http://host/pixel.png)",
    "```\n<b>",
    "a`b`c *d* _e_ ~~f~~ @someone https://host",
    "\ud800 \u202e \0 \x85 \u2028 end",
    "{{ x }} {% y %} &amp; &lt;",
    "- item",
    "",
    " ",
    "x" * 5000,
]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    training = {"tool": "sparsedistill 1.2", "inputs": {"student": "abc"}, "seeds": [1, 2]}
    save_model(directory, small_model(), small_vocabulary(), training=training)
    return read_config(directory)


def header(card):
    """The metadata, read by YAML as the hub does."""
    yaml = pytest.importorskip("yaml")
    start, metadata, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(metadata)


def test_a_card_without_a_run_says_what_the_model_is(config):
    card = model_card(config)
    assert header(card) == {
        "library_name": "sparsedistill",
        "pipeline_tag": "text-classification",
        "tags": ["text-classification", "n-grams", "cpu"],
        "metrics": ["accuracy", "f1"],
    }
    for said in (
        "# Text classifier", "with 3 classes", "over the 11 n-grams of 1 to 4 tokens",
        'from_pretrained("path/to/this/directory")', "- label 0\n- label 1\n- label 2",
        "divided by 1.5 before", "| tool | sparsedistill 1.2 |", "| inputs.student | abc |",
        "| seeds | 1, 2 |", "| hidden units | 37 |", "| numbers of the table | float32 |",
        "the first 2,048 known n-grams",
    ):  # fmt: skip
        assert said in card
    assert "Results" not in card
    assert re.search(r"\| model.safetensors \| [\d,]+ bytes \|", card)


def test_a_card_of_a_run_has_its_results(config):
    card = model_card(config, summary=make_summary(), name="quickstart")
    (found,) = header(card)["model-index"]
    assert found["name"] == "quickstart"
    (result,) = found["results"]
    assert result["task"] == {"type": "text-classification"}
    assert result["dataset"] == {"name": "quickstart", "type": "quickstart", "split": "test"}
    assert result["metrics"] == [
        {"type": "accuracy", "value": 0.7764},
        {"type": "f1", "value": 0.7763},
    ]
    for said in (
        "# quickstart", "distilled from a slower model", "## Results (test, 4,000 texts)",
        "| DAN (KD+FT) | 0.7764 ± 0.0031 | 0.7763 | 0.8688 | 133,233 | 12,900,000 |",
        "| MiniLM-L6 (teacher) | 0.7973 | 0.7972 | – | 164 | 90,900,000 |",
        "the packaged one of “DAN (KD+FT)”", "It answers 812 times as many", "2 threads",
        "calibration error on test: 0.0092 (0.0571 without)", "4,000 labelled texts (train)",
        "160,000 unlabelled texts", "| quantise | 0.7764 | 0.011 | 12,900,000 |",
    ):  # fmt: skip
        assert said in card


def test_a_card_for_the_hub_fetches_from_there(config):
    card = model_card(config, name="team/student")
    assert 'Classifier.from_pretrained("team/student")' in card
    assert "pip install 'sparsedistill[hub]'" in card
    assert "sparsedistill predict team/student texts.txt" in card


def test_languages_are_said_where_they_are_known(config):
    known = replace(config, training={"language": ["en", "zh-Hans", "klingon!", 3]})
    assert header(model_card(known))["language"] == ["en", "zh-Hans"]
    assert header(model_card(replace(config, training={"language": "no"})))["language"] == ["no"]
    assert "language" not in header(model_card(config))


def test_a_narrowed_table_is_told_from_the_hidden_layer(config):
    assert "numbers in a row" not in model_card(config)
    card = model_card(replace(config, width=9))
    assert "| numbers in a row | 9 |\n| hidden units | 37 |" in card


def test_thresholds_are_listed(config):
    card = model_card(replace(config, thresholds={"label 0": 0.75}))
    assert "| label 0 | 0.7500 |" in card


def test_the_same_model_and_numbers_give_the_same_card(config):
    first, second = (model_card(config, summary=make_summary(), name="x") for _ in range(2))
    assert first == second
    assert make_summary()["created"] not in first


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_values_stay_text(config, hostile):
    places = re.compile(r'"(DAN \(KD\+FT\)|quickstart|test|fold|dan_kd_ft)"')
    marked = places.sub('"@@"', json.dumps(make_summary()))
    summary = json.loads(marked.replace('"@@"', json.dumps(hostile)))
    bad = replace(
        config,
        labels=(hostile, "b"),
        training={hostile: {hostile: [hostile]}},
        thresholds={hostile: 0.5},
    )
    harmless = replace(
        config, labels=("a", "b"), training={"k": {"k": ["v"]}}, thresholds={"a": 0.5}
    )
    plain = model_card(harmless, summary=make_summary(), name="x")
    card = model_card(bad, summary=summary, name=hostile)
    card.encode()
    found = header(card)
    assert set(found) <= set(header(plain))
    assert found["tags"] == ["text-classification", "n-grams", "cpu"]
    body = re.sub(r"```.*?```", "", card.split("---\n", 2)[2], flags=re.DOTALL)
    assert not re.search(r"<\w", body)
    assert "](" not in re.sub(r"\\.", "", body)
    assert "`" not in re.sub(r"\\.", "", re.sub(r"`abstain_below`|`Classifier.coverage`", "", body))
    # No line more, and so no heading, table or list.
    headings = [line for line in body.splitlines() if line.startswith("#")]
    assert len(headings) == len([x for x in plain.splitlines() if x.startswith("#")])
    assert len(max(card.splitlines(), key=len)) < 2000


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(sorted(make_summary()))


@given(
    changes=st.dictionaries(KEYS, ANY, max_size=4),
    inner=st.dictionaries(KEYS, st.dictionaries(st.sampled_from(
        ["ece", "before", "after", "student", "speedup", "rows", "steps", "evaluated_on", "test"]
    ), ANY), max_size=4),
    training=st.dictionaries(st.text(), ANY, max_size=3),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_summary_and_provenance_give_a_card_with_a_sound_header(
    config, changes, inner, training
):
    summary = {**make_summary(), **changes, **inner}
    card = model_card(replace(config, training=training), summary=summary, name="x")
    card.encode()
    assert header(card)["library_name"] == "sparsedistill"


@given(st.text(min_size=1, max_size=60))
@settings(max_examples=300, deadline=None)
def test_a_label_is_shown_as_it_is(config, label):
    """What Markdown and HTML make of the escaped label is the label, but for what has no form."""
    card = model_card(replace(config, labels=(label, "other")))
    (line, other) = re.search(r"## Labels\n\n(.*)\n(.*)", card).groups()
    assert other == "- other"
    shown = html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", line.removeprefix("- ")))
    expected = "".join(c if c.isprintable() else " " for c in label).strip()
    assert shown == (expected or "(blank)")
