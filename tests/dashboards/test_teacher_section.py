"""The section on the teacher: what it says, what it warns of, and what it leaves out."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from summary_example import make_summary

from dashboards.markdown import render_markdown
from dashboards.svg import to_svg
from dashboards.teacher import class_balance, confidence, remarks, teacher


def words(html: str) -> str:
    """What a reader sees, the pictures' texts among it."""
    return re.sub(r"<[^>]*>", " ", re.sub(r"<title>.*?</title>", "", html)).replace("\u00a0", " ")


@pytest.fixture
def section(summary) -> str:
    return re.sub(r"\s+", " ", words(str(teacher(summary))))


def test_calibration_is_told_for_each_split_with_what_chance_would_do(section):
    assert "dev 2,000 80.2 % 8.3 % 1.2 % 0.9 %" in section
    assert "test 3,990 of 4,000 79.7 % 8.3 % 1.2 % 0.9 %" in section
    assert "most likely is 1.62" in section


def test_a_teacher_that_learned_from_dev_has_no_temperature_and_one_picture(summary):
    found = summary["teacher"]["calibration"]
    found["temperature"] = None
    for split in found["splits"]:
        split["after"] = None
    html = str(teacher(summary))
    shown = words(html)
    assert "right on every text of dev" in shown
    assert "As it is, on test" in shown
    assert "With the temperature, on" not in shown
    assert "The teacher's confidence on test is off by 8.3\u00a0%." in remarks(summary)


def test_doubts_classes_choice_and_quarantine_are_told(section):
    assert "less than 70 % sure of 18,300 of 159,990 corpus texts (11.4 %)" in section
    assert "negative 1,980 49.5 % 154,788 96.7 % 75,795" in section
    assert "Students learn from 80,597 of 159,990" in section
    assert "8,400 were left out for their margin below 0.2, 70,993 because" in section
    assert (
        "10 texts have no logits and are in quarantine: logits are not finite (7), "
        "longer than the teacher reads (3)" in section
    )


@pytest.mark.parametrize(
    ("predicted", "said"),
    [
        ([9000, 9000], None),
        ([9490, 510], None),  # 5.10 %, the tenth of its share is 5.05 %
        ([9600, 400], "positive (4.00 % of the corpus, 50.5 % of train)"),
        ([10_000, 0], "positive (never)"),
    ],
)
def test_a_class_with_less_than_a_tenth_of_its_share_of_train_is_warned_of(
    summary, predicted, said
):
    summary["teacher"]["classes"][1]["train"] = 2020
    for row, count in zip(summary["teacher"]["classes"], predicted, strict=True):
        row["predicted"] = count
    shown = words(str(teacher(summary)))
    assert ("Look here" in shown) == (said is not None)
    if said:
        assert f"The teacher hardly sees {said}" in shown


def test_many_classes_that_are_hardly_seen_are_named_by_the_first(summary):
    summary["teacher"]["classes"] = [
        {"label": f"intent {i}", "train": 10, "predicted": 10_000 if i == 0 else 0}
        for i in range(40)
    ]
    shown = words(str(teacher(summary)))
    assert "intent 5 (never) and 34 more in the corpus" in shown
    assert class_balance(summary) is None
    assert "10 more are in summary.json" in shown


@pytest.mark.parametrize(
    ("part", "gone"),
    [
        ("calibration", "Below the diagonal"),
        ("confidence", "less than 70 %"),
        ("classes", "Look here"),
        ("quarantined", "in quarantine"),
        ("chosen", "Learned from"),
    ],
)
@pytest.mark.parametrize("absent", [None, "missing", "empty"])
def test_what_older_artifacts_do_not_say_is_left_out_and_the_rest_stays(
    summary, part, gone, absent
):
    before = words(str(teacher(summary)))
    if absent == "missing":
        del summary["teacher"][part]
    else:
        summary["teacher"][part] = absent and type(summary["teacher"][part])()
    after = words(str(teacher(summary)))
    assert gone in before
    assert gone not in after
    assert len(remarks(summary)) == 4 or part == "classes"
    assert "nan" not in after.lower()


def test_no_row_in_quarantine_is_no_sentence(summary):
    summary["teacher"]["quarantined"] = {}
    assert not any("quarantine" in one for one in remarks(summary))


def test_bars_of_doubtful_texts_stand_out(summary):
    drawn = ElementTree.fromstring(to_svg(confidence(summary), name="x"))
    told = [node.text for node in drawn.iter("title")]
    assert "4,100 texts (2.6\u00a0%) from 50% to 55% sure" in told
    assert len(told) == 10
    colours = [node.get("fill") for node in drawn.iter("path") if node.find("title") is not None]
    assert len(set(colours[:4])) == len(set(colours[4:])) == 1
    assert colours[0] != colours[-1]


def test_names_from_outside_stay_text(summary):
    hostile = "<script>alert(1)</script>"
    summary["teacher"]["quarantined"] = {hostile: 3}
    summary["teacher"]["classes"][1]["label"] = hostile
    summary["teacher"]["calibration"]["splits"][0]["split"] = hostile
    assert "<script" not in str(teacher(summary))
    assert "<script" not in render_markdown(summary)


def test_the_page_of_the_run_says_the_same_in_plain_sentences():
    page = render_markdown(make_summary()).replace("\u00a0", " ")
    assert "* The teacher hardly sees positive (3.25 % of the corpus, 50.5 % of train)" in page
    assert "* The teacher's confidence on test is off by 8.3 %, with the temperature 1.62" in page
    assert "* The teacher is less than 70 % sure of 18,300" in page
