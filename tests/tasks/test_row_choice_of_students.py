"""``[student] least_margin`` and ``balance``: which rows each student learns from, and its key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.stages import Workshop

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.row_choice import margins
from storage import Artifact
from tasks.logit_file import read_logits

ONE = {"baselines": [], "epochs": 1}


def student(workshop: Workshop, **settings: Any) -> tuple[Artifact, dict[str, list[Artifact]]]:
    made = workshop.make("student", student={**ONE, **settings})
    return made["student"][-1], made


def median_margin(made: dict[str, list[Artifact]]) -> float:
    """Of the corpus; the tiny teacher is not sure of much."""
    values = np.concatenate([read_logits(one)[1] for one in made["logits"][:-3]])
    return float(np.median(margins(values)))


def test_a_student_that_takes_all_rows_has_the_recipe_it_always_had(stocked: Workshop):
    (plain,) = stocked.jobs("student", student=ONE)
    (said,) = stocked.jobs("student", student={**ONE, "least_margin": 0.0, "balance": "none"})
    assert said.recipe.key == plain.recipe.key
    assert not {"least_margin", "balance"} & set(plain.recipe.config)


@pytest.mark.parametrize("choice", [{"least_margin": 0.3}, {"balance": "even"}])
def test_a_choice_is_part_of_the_key_of_all_who_learn_from_the_corpus(
    choice: dict[str, Any], stocked: Workshop
):
    rivals = {"rivals": [{"architecture": "cnn"}]}
    before, after = (stocked.jobs("student", student={**rivals, **own}) for own in ({}, choice))
    changed = {
        one.recipe.config["variant"]: one.recipe.key != other.recipe.key
        for one, other in zip(before, after, strict=True)
    }
    assert changed == {"scratch": False, "kd_private": True, "kd": True, "kd_cnn": True}


def test_rows_of_too_small_a_margin_are_not_learned_from_but_all_of_train_are(stocked: Workshop):
    plain, made = student(stocked)
    *corpus, train, _, _ = (read_logits(one)[1] for one in made["logits"])
    least = median_margin(made)
    chosen, _ = student(stocked, least_margin=least)
    wanted = sum(int((margins(values) >= least).sum()) for values in corpus)
    assert wanted < 600
    assert chosen.statistics["examples"] == wanted + len(train)
    counts: Any = chosen.statistics["chosen"]
    assert sum(counts["kept"]) == wanted
    assert sum(counts["labelled"]) == 600
    assert "chosen" not in plain.statistics
    assert chosen.manifest.files != plain.manifest.files


def test_classes_are_balanced_evenly_or_as_train_has_them(stocked: Workshop):
    _, made = student(stocked)
    says = np.concatenate([read_logits(one)[1] for one in made["logits"][:-3]]).argmax(axis=1)
    predicted = np.bincount(says, minlength=3)
    train: Any = made["dataset"][0].statistics["rows_per_label"]
    for balance, weights in (("even", [1, 1, 1]), ("train", train)):
        chosen, _ = student(stocked, balance=balance)
        counts: Any = chosen.statistics["chosen"]
        most = np.ceil(600 * np.array(weights) / sum(weights))
        assert counts["labelled"] == predicted.tolist()
        assert counts["kept"] == np.minimum(predicted, most).tolist()
        assert chosen.manifest.config["balance"] == weights


def test_the_same_rows_are_chosen_whatever_the_shards(stocked: Workshop):
    files = []
    least = median_margin(stocked.make("logits"))
    for rows in (200, 130):
        settings = {"student": {**ONE, "least_margin": least, "balance": "even"}}
        made = stocked.make("student", corpus={"rows_per_shard": rows}, **settings)
        files.append(made["student"][0].manifest.files)
    assert files[0] == files[1]


def test_a_private_student_and_a_rival_choose_as_the_distilled_one_does(stocked: Workshop):
    rivals = [{"architecture": "cnn", "epochs": 1, "hidden": 4}]
    settings = {"baselines": ["kd_private"], "rivals": rivals, "balance": "even", "epochs": 1}
    students = stocked.make("student", student=settings)["student"]
    assert [one.statistics["variant"] for one in students] == ["kd_private", "kd", "kd_cnn"]
    private, kd, rival = (one.statistics for one in students)
    assert private["chosen"] == kd["chosen"] == rival["chosen"]
    assert kd["examples"] == rival["examples"] == int(private["examples"]) + 120  # type: ignore[call-overload]


def test_a_margin_that_no_row_has_is_refused_with_what_to_change(stocked: Workshop):
    with pytest.raises(DataError, match=r"none of the 600 labelled rows .* least_margin"):
        student(stocked, least_margin=0.9999999)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"least_margin": 1.0}, "student.least_margin: Input should be less than 1"),
        ({"least_margin": -0.1}, "student.least_margin: Input should be greater than or equal"),
        ({"balance": "fair"}, "student.balance: Input should be 'none', 'even' or 'train'"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(settings: Any, said: str, workshop: Workshop):
    with pytest.raises(ConfigError, match=said):
        workshop.config(student=settings)
