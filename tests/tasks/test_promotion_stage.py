"""Whether a new model may take the current one's place: the comparison, and the rule."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.stages import Workshop
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsedistill.classifier import Classifier
from sparsedistill.model_format import save_model
from storage import Artifact, Recipe
from tasks import promotion
from tasks.earlier import ROLE, Earlier
from tasks.promotion import LEAST_ROWS, Paired, RedistillConfig, decide, paired, read_promotion
from tasks.stage import Job

answers = st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=60)


def pair(rows: int, new: int, current: int) -> Paired:
    return Paired(rows, new, current, 0, 0, 0, 1.0)


@settings(deadline=None)
@given(rows=answers)
def test_counts_are_those_of_going_through_the_rows_one_by_one(rows: list[tuple[int, int, int]]):
    truth, new, current = (np.array(column) for column in zip(*rows, strict=True))
    found = paired(truth, new, current)
    assert found.rows == len(rows)
    assert found.new_right == sum(t == n for t, n, _ in rows)
    assert found.current_right == sum(t == c for t, _, c in rows)
    assert found.only_new == sum(t == n != c for t, n, c in rows)
    assert found.only_current == sum(t == c != n for t, n, c in rows)
    assert found.agreed == sum(n == c for _, n, c in rows)
    assert found.new_right - found.current_right == found.only_new - found.only_current


@settings(deadline=None)
@given(only_new=st.integers(0, 25), only_current=st.integers(0, 25))
def test_p_is_the_chance_of_a_split_as_uneven_by_coin_tosses(only_new: int, only_current: int):
    truth = np.zeros(only_new + only_current + 1, np.int64)
    new, current = truth.copy(), truth.copy()
    current[:only_new] = 1
    new[only_new : only_new + only_current] = 1
    tosses = only_new + only_current
    least = min(only_new, only_current)
    tail = sum(math.comb(tosses, k) for k in range(least + 1)) / 2**tosses
    assert paired(truth, new, current).p_value == pytest.approx(min(1.0, 2 * tail))


@settings(deadline=None)
@given(
    rows=st.integers(LEAST_ROWS, 1000),
    new=st.integers(0, 1000),
    current=st.integers(0, 1000),
    margin=st.integers(0, 200).map(lambda thousandths: thousandths / 1000),
)
def test_the_rule_is_that_of_whole_numbers(rows: int, new: int, current: int, margin: float):
    new, current = new % (rows + 1), current % (rows + 1)
    allowed = 1000 * (current - new) <= round(1000 * margin) * rows
    assert decide({"dev": pair(rows, new, current)}, margin)[0] == allowed


@settings(deadline=None)
@given(data=st.data(), margin=st.floats(0, 0.2))
def test_a_better_model_is_never_refused_where_a_worse_one_is_not(
    data: st.DataObject, margin: float
):
    rows = data.draw(st.integers(1, 200))
    current = data.draw(st.integers(0, rows))
    worse = data.draw(st.integers(0, rows))
    better = data.draw(st.integers(worse, rows))
    if decide({"dev": pair(rows, worse, current)}, margin)[0]:
        assert decide({"dev": pair(rows, better, current)}, margin)[0]


@pytest.mark.parametrize(
    ("dev", "test", "promoted"),
    [
        ((199, 200), (200, 200), True),  # half a point less is allowed
        ((198, 200), (200, 200), False),
        ((200, 200), (198, 200), False),
        ((210, 200), (198, 200), False),  # what is won on dev does not pay for test
        ((200, 200), (200, 200), True),
    ],
)
def test_a_model_must_not_be_worse_on_dev_nor_on_test(
    dev: tuple[int, int], test: tuple[int, int], promoted: bool
):
    splits = {"dev": pair(200 + 20, *dev), "test": pair(200 + 20, *test)}
    found, why = decide(splits, 0.005)
    assert found == promoted
    assert ("worse on" in why) != promoted


def earlier_of(package: Artifact, train: Artifact) -> Earlier:
    one = package.as_input()
    return Earlier(one, one, one, train.as_input(), (), 8, origin=None)


def relabelled(workshop: Workshop, package: Artifact, labels: tuple[str, ...]) -> Artifact:
    """The same model with other labels: those it has, in another order, or another name."""
    model = Classifier.load(package.directory()).folded
    order = [model.labels.index(label) if label in model.labels else -1 for label in labels]
    (left,) = set(range(len(labels))) - set(order) or {-1}
    order = [left if row == -1 else row for row in order]
    other = replace(
        model, labels=labels, head_weight=model.head_weight[order], head_bias=model.head_bias[order]
    )
    with workshop.store.create(Recipe("package", 2, {"labels": list(labels)})) as writer:
        save_model(writer.directory, other, None)
    return writer.artifact


def compare(
    workshop: Workshop, new: Artifact, current: Artifact, **settings: float
) -> dict[str, Any]:
    train, dev, test = workshop.make("dataset")["dataset"]
    (job,) = promotion.jobs(
        RedistillConfig(**settings),
        earlier_of(current, train),
        package=new,
        splits={"train": train, "dev": dev, "test": test},
        threads=1,
    )
    outcome = promotion.STAGE.run(job, workshop.store)
    return read_promotion(workshop.store.get(outcome.kind, outcome.key))


def test_a_model_is_as_good_as_itself(stocked: Workshop):
    package = stocked.make("package")["package"][0]
    found = compare(stocked, package, package)
    assert found["promote"] is True
    assert set(found["splits"]) == {"dev", "test"}
    for one in found["splits"].values():
        assert one["new_right"] == one["current_right"] == one["new_accuracy"] * one["rows"]
        assert one["agreement"] == 1
    assert found["ngrams"]["added"] == found["ngrams"]["gone"] == 0


def test_a_worse_model_is_kept_from_the_place_of_a_better_one(stocked: Workshop):
    good = stocked.make("package")["package"][0]
    bad = stocked.make("package", student={"epochs": 1, "learning_rate": 1e-9},
                       finetune={"enabled": False})["package"][0]  # fmt: skip
    found = compare(stocked, bad, good)
    assert found["promote"] is False
    assert found["why"].startswith("worse on dev")
    assert compare(stocked, good, bad)["promote"] is True
    assert compare(stocked, bad, good, margin=0.99)["promote"] is True


def test_labels_in_another_order_are_compared_by_name(stocked: Workshop):
    package = stocked.make("package")["package"][0]
    turned = relabelled(stocked, package, ("railway", "garden", "kitchen"))
    found = compare(stocked, package, turned)
    assert found["labels"] == {
        "new": ["garden", "kitchen", "railway"],
        "current": ["railway", "garden", "kitchen"],
    }
    assert found["splits"]["test"]["agreement"] == 1
    assert found["splits"]["test"]["current_accuracy"] > 0.8


def test_models_with_other_labels_are_not_compared(stocked: Workshop):
    package = stocked.make("package")["package"][0]
    found = compare(stocked, package, relabelled(stocked, package, ("garden", "kitchen", "tram")))
    assert found["promote"] is False
    assert found["comparable"] is False
    assert "new railway; gone tram" in found["why"]
    assert "sparsedistill promote" in found["why"]


def test_a_dev_that_is_test_too_is_asked_once(stocked: Workshop):
    package = stocked.make("package")["package"][0]
    train, dev, test = stocked.make("dataset")["dataset"]
    for other, asked in ((test, 1), (dev, 0)):
        (job,) = promotion.jobs(
            RedistillConfig(), earlier_of(package, dev), package=package,
            splits={"train": train, "dev": dev, "test": other}, threads=1,
        )  # fmt: skip
        assert len(job.recipe.inputs["test"]) == asked


@pytest.mark.parametrize(
    ("new", "current", "left_out"),
    [("train", "train", 0), ("train", "dev", 40), ("dev", "train", 40), ("dev", "dev", 0)],
)
def test_texts_whose_labels_only_one_model_has_learned_are_left_out(
    stocked: Workshop, new: str, current: str, left_out: int
):
    """Where a part of a grown train is put aside for dev, most of it had been in train before."""
    package = stocked.make("package")["package"][0].as_input()
    splits = dict(zip(("train", "dev", "test"), stocked.make("dataset")["dataset"], strict=True))
    inputs = {name: (one.as_input(),) for name, one in splits.items()}
    recipe = Recipe(
        promotion.KIND, promotion.VERSION, {"margin": 0.0},
        {**inputs, "train": inputs[new], "package": (package,), ROLE: (package, *inputs[current])},
    )  # fmt: skip
    outcome = promotion.STAGE.run(Job(recipe, {"threads": 1}), stocked.store)
    found = read_promotion(stocked.store.get(outcome.kind, outcome.key))
    assert found["promote"] == ("dev" in found["splits"]) == (left_out == 0)  # all forty of them
    assert found["splits"]["test"]["left_out"] == 0


@pytest.mark.parametrize("rows", [0, 1, LEAST_ROWS - 1])
def test_a_handful_of_texts_of_dev_promotes_nothing(rows: int):
    few = {"dev": pair(rows, rows, 0)} if rows else {}
    promoted, why = decide({**few, "test": pair(500, 500, 0)}, 0.5)
    assert not promoted
    assert why.startswith(f"dev has {rows} texts to compare the models on")
    assert f"fewer than {LEAST_ROWS}" in why
    assert "sparsedistill promote" in why
    assert decide({"dev": pair(LEAST_ROWS, 1, 1)}, 0.0)[0]


def test_why_says_how_many_texts_it_rests_on():
    _, why = decide({"dev": pair(40, 30, 30), "test": pair(500, 400, 300)}, 0.005)
    assert "dev 75.00 % against 75.00 % of 40 texts" in why
    assert "test 80.00 % against 60.00 % of 500 texts" in why


def test_models_without_a_fair_text_are_not_compared():
    promoted, why = decide({}, 0.5)
    assert not promoted
    assert "sparsedistill promote" in why


def test_the_margin_is_part_of_the_key(stocked: Workshop):
    package = stocked.make("package")["package"][0]
    train, dev, test = stocked.make("dataset")["dataset"]

    def key(margin: float) -> str:
        (job,) = promotion.jobs(
            RedistillConfig(margin=margin), earlier_of(package, dev), package=package,
            splits={"train": train, "dev": dev, "test": test}, threads=1,
        )  # fmt: skip
        return job.recipe.key

    assert key(0.1) != key(0.2)
    assert key(0.1) == key(0.1)
