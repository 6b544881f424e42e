from __future__ import annotations

import itertools
import re
import struct
import xml.etree.ElementTree as ElementTree
import zlib

import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st
from summary_example import make_summary

from dashboards import charts, compression, teacher, theme
from dashboards.layout import apart
from dashboards.lineage import lineage_svg
from dashboards.png import packed
from dashboards.summary import rows
from dashboards.svg import to_png, to_svg


def first_split(summary):
    return next(iter(rows(summary, "teacher", "calibration", "splits")), {})


PICTURES = {
    "speed": charts.accuracy_against_speed,
    "speed-narrow": lambda s: charts.accuracy_against_speed(s, width=400, height=300),
    "dev": lambda s: charts.training_curves(s, "dev_accuracy"),
    "loss": lambda s: charts.training_curves(s, "loss"),
    "before": lambda s: charts.reliability(s, "before"),
    "after": lambda s: charts.reliability(s, "after"),
    "teacher": lambda s: charts.reliability_of(first_split(s), "before"),
    "doubts": teacher.confidence,
    "balance": teacher.class_balance,
    "confusion": lambda s: charts.confusion(s, "dan_kd_ft"),
    "orders": charts.ngrams_per_order,
    "coverage": charts.coverage,
    "pruning": compression.pruning_curve,
    "seconds": charts.stage_seconds,
    "bytes": charts.stage_bytes,
}


def svg(chart, name="x"):
    return ElementTree.fromstring(to_svg(chart, name=name))


def texts(element):
    return [node.text for node in element.iter("text")]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_valid_vega_lite_and_well_formed_svg_with_finite_geometry(name):
    chart = PICTURES[name](make_summary())
    # Altair validates against the schema of Vega-Lite here.
    vega = vl_convert.vegalite_to_vega(chart.to_dict(), vl_version="6.4")
    assert vega["marks"]
    written = to_svg(chart, name=name)
    assert ElementTree.fromstring(written).tag == "svg"
    assert not re.search(r"NaN|undefined|Infinity|null", written)


@pytest.mark.parametrize("name", PICTURES)
def test_without_its_part_there_is_no_picture(name):
    assert PICTURES[name]({"format": 1}) is None


def test_a_picture_is_the_same_however_many_were_drawn_before_it():
    chart = charts.accuracy_against_speed(make_summary())
    assert to_svg(chart, name="a") == to_svg(chart, name="a")


def test_pointing_at_a_mark_says_what_it_is_without_a_script():
    drawn = svg(charts.accuracy_against_speed(make_summary()))
    shown = [node.text for node in drawn.iter("title")]
    assert "DAN (KD+FT): 77.6\u00a0%, 133,233 texts per second" in shown


def test_every_model_has_its_label_and_no_two_labels_overlap(summary):
    for i, row in enumerate(summary["results"][1:5]):
        row["accuracy"] = 0.77 + 0.0001 * i
    drawn = svg(charts.accuracy_against_speed(summary))
    titles = {row["title"] for row in summary["results"]}
    places = {
        node.text: [float(v) for v in re.findall(r"-?[\d.]+", node.get("transform"))]
        for node in drawn.iter("text")
        if node.text in titles
    }
    assert set(places) == titles
    for (x, y), (other_x, other_y) in itertools.combinations(places.values(), 2):
        assert abs(y - other_y) >= 17.9 or abs(x - other_x) > 150


def test_the_label_of_a_slow_model_at_the_top_is_not_on_the_title_of_the_axis(summary):
    slow = next(row for row in summary["results"] if row["model"] == "teacher")
    slow["accuracy"] = 1.0
    drawn = svg(charts.accuracy_against_speed(summary))
    height = {
        node.text: float(re.findall(r"-?[\d.]+", node.get("transform"))[1])
        for node in drawn.iter("text")
        if node.text in (slow["title"], "accuracy")
    }
    assert height["accuracy"] <= height[slow["title"]] - 12


def test_models_without_speed_or_accuracy_are_left_out_and_zero_speed_cannot_break_the_logarithm(
    summary,
):
    summary["results"][0]["texts_per_second"] = 0
    summary["results"][1]["texts_per_second"] = None
    summary["results"][2]["accuracy"] = float("nan")
    shown = texts(svg(charts.accuracy_against_speed(summary)))
    assert "TF-IDF + LR" not in shown
    assert "DAN (labels)" not in shown
    assert "DAN (KD, private)" not in shown
    assert "DAN (KD)" in shown


def test_one_model_alone_can_be_drawn(summary):
    summary["results"] = summary["results"][-1:]
    assert "MiniLM-L6 (teacher)" in texts(svg(charts.accuracy_against_speed(summary)))


def test_a_model_has_one_colour_in_every_picture():
    summary = make_summary()
    for chart in (
        charts.accuracy_against_speed(summary),
        charts.training_curves(summary, "dev_accuracy"),
    ):
        assert theme.MODEL_COLOURS["dan_kd"] in to_svg(chart, name="x")
    matrix = to_svg(charts.confusion(summary, "dan_kd_ft"), name="x")
    assert theme.MODEL_COLOURS["dan_kd_ft"] in matrix


def test_unknown_models_get_colours_of_their_own():
    found = theme.colours(["teacher", "gru_kd", "mamba_kd"])
    assert len(set(found.values())) == len(theme.MODEL_COLOURS) + 2


def test_every_known_model_has_a_mark_that_can_be_drawn():
    marks = {(theme.MODEL_COLOURS[name], theme.shape(name)) for name in theme.MODEL_COLOURS}
    assert len(marks) == len(theme.MODEL_COLOURS)
    assert {shape for _, shape in marks} <= set(theme.SHAPE_PATHS)


def test_long_training_is_thinned_but_keeps_first_best_and_last(summary):
    points = [
        {"update": i, "dev_accuracy": 0.5 + i / 1e5, "loss": 1.0, "seconds": i}
        for i in range(1, 5001)
    ]
    summary["training"] = [{"model": "dan_kd", "seed": 0, "best_update": 4321, "points": points}]
    spec = charts.training_curves(summary, "dev_accuracy").to_dict()
    updates = {row["update"] for values in spec["datasets"].values() for row in values}
    assert {1, 4321, 5000} <= updates
    assert len(updates) < 320


def test_labels_that_look_alike_or_like_code_keep_their_own_row(summary):
    labels = ["same long label that is cut off here", "same long label that is cut off there"]
    labels += ["'] + alert(1) + ['", "\\u0041", "naïve 😀"]
    summary["confusion"] = {
        "labels": labels,
        "models": {"dan_kd_ft": [[i + j for j in range(5)] for i in range(5)]},
    }
    shown = texts(svg(charts.confusion(summary, "dan_kd_ft")))
    assert shown.count("same long label that is…") == 4
    for label in labels[2:]:
        assert shown.count(label) == 2


def test_a_true_label_without_texts_is_an_empty_row(summary):
    summary["confusion"]["models"]["dan_kd_ft"] = [[0, 0], [3, 5]]
    assert {"3", "5"} <= set(texts(svg(charts.confusion(summary, "dan_kd_ft"))))


def test_bins_without_texts_are_not_points(summary):
    summary["calibration"]["before"]["bins"][0] = {
        "low": 0.0,
        "high": 0.5,
        "confidence": None,
        "accuracy": None,
        "count": 0,
    }
    shown = texts(svg(charts.reliability(summary, "before")))
    assert "0%" not in shown


def test_the_pruning_curve_has_a_line_for_every_rule_that_was_measured(summary):
    names = {"contribution", "count in train", "count in everything", "single words first"}
    assert names <= set(texts(svg(compression.pruning_curve(summary))))
    curve = summary["package"]["curve"]
    summary["package"]["curve"] = [point for point in curve if point["rule"] != "train_count"]
    shown = set(texts(svg(compression.pruning_curve(summary))))
    assert shown & names == names - {"count in train"}


def test_a_point_without_accuracy_or_of_no_share_is_left_out(summary):
    damage = [{"accuracy": None}, {"share": 0}, {"rule": "new"}]
    for point, change in zip(summary["package"]["curve"], damage, strict=False):
        point.update(change)
    values = compression.pruning_curve(summary).to_dict()["datasets"].values()
    assert {len(rows) for rows in values} == {25}


def test_png_is_a_png():
    chart = charts.stage_seconds(make_summary())
    picture = to_png(chart, scale=1.0)
    assert picture.startswith(b"\x89PNG")
    assert packed(picture) == picture


def test_packing_a_png_keeps_its_pixels():
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    pixels = b"".join(b"\x00" + bytes(range(64)) * 3 for _ in range(64))
    stored = zlib.compress(pixels, 0)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    split = chunk(b"IDAT", stored[:100]) + chunk(b"IDAT", stored[100:])
    small = packed(head + split + chunk(b"IEND", b""))
    data = chunk(b"IDAT", zlib.compress(pixels, 9))
    assert small == head + data + chunk(b"IEND", b"")


# --- lineage -----------------------------------------------------------------------------------


def boxes(drawn):
    found = {}
    for group in drawn.iter("g"):
        front = list(group.iter("rect"))[-1]
        found[group.find("title").text.split()[0]] = tuple(
            float(front.get(key)) for key in ("x", "y", "width", "height")
        )
    return found


@pytest.mark.parametrize("vertical", [False, True])
def test_lineage_boxes_do_not_overlap_and_arrows_run_one_way(vertical):
    drawn = ElementTree.fromstring(lineage_svg(make_summary(), vertical=vertical))
    found = boxes(drawn)
    assert len(found) == 12
    for (x, y, w, h), (other_x, other_y, _, _) in itertools.combinations(found.values(), 2):
        assert abs(x - other_x) >= w or abs(y - other_y) >= h
    axis = 1 if vertical else 0
    for source, target in make_summary()["lineage"]["edges"]:
        assert found[source.split("/")[0]][axis] < found[target.split("/")[0]][axis]
    width, height = float(drawn.get("width")), float(drawn.get("height"))
    assert all(
        x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in found.values()
    )


def test_no_wire_runs_through_a_box_it_does_not_belong_to():
    """The straight parts of long edges lie in lanes of their own."""
    drawn = ElementTree.fromstring(lineage_svg(make_summary()))
    straight = [
        [float(v) for v in re.findall(r"-?[\d.]+", path.get("d"))]
        for path in drawn.iter("path")
        if re.fullmatch(r"M\S+ \S+ L\S+ \S+", path.get("d"))
    ]
    assert straight
    for left, y, _, _ in straight:
        for x, top, w, h in boxes(drawn).values():
            assert not (x < left + 1 < x + w and top < y < top + h)


def test_strange_lineage_ends_and_is_drawn():
    summary = {
        "lineage": {
            "nodes": [{"id": name, "kind": name, "key": "0" * 32} for name in "abc"],
            "edges": [["a", "b"], ["b", "a"], ["c", "c"], ["c", "unknown"]],
        }
    }
    assert len(boxes(ElementTree.fromstring(lineage_svg(summary)))) == 3


def test_too_many_nodes_are_not_drawn():
    nodes = [{"id": str(i), "kind": "corpus", "key": "0"} for i in range(81)]
    assert lineage_svg({"lineage": {"nodes": nodes, "edges": []}}) is None


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(-500, 500), st.floats(0.5, 40)), min_size=1, max_size=12))
def test_things_on_a_line_do_not_overlap_and_stay_where_they_wish_if_they_can(things):
    things.sort()
    wanted, sizes = zip(*things, strict=True)
    placed = apart(wanted, sizes)
    gaps = [(a + b) / 2 for a, b in itertools.pairwise(sizes)]
    for (before, after), gap in zip(itertools.pairwise(placed), gaps, strict=True):
        assert after - before >= gap - 1e-6
    if all(b - a >= gap for (a, b), gap in zip(itertools.pairwise(wanted), gaps, strict=True)):
        assert placed == pytest.approx(list(wanted))
    assert sum(placed) == pytest.approx(sum(wanted), abs=1e-6)
