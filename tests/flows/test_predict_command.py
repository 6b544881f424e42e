"""``predict``: every format in and out, in order; what it says of bad rows; how careful it is."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from helpers.small_classifier import LABELS, save, small_classifier
from helpers.text_files import TEXTS, read_rows, write_texts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.cli import main
from sparsedistill.classifier import Classifier

ROOT = Path(__file__).parents[2]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    thresholds = dict.fromkeys(LABELS, 0.7)
    return save(tmp_path_factory.mktemp("model") / "m", small_classifier(thresholds=thresholds))


@pytest.fixture(scope="module")
def classifier(model: Path) -> Classifier:
    return Classifier.load(model)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch):
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


FILES = [
    f"x.{kind}{packed}" for kind in ("txt", "jsonl", "csv", "tsv") for packed in ("", ".gz", ".zst")
]


@pytest.mark.parametrize("name", [*FILES, "x.parquet"])
def test_labels_of_any_file_come_in_order(
    model: Path, classifier: Classifier, tmp_path: Path, capsys: Captured, name: str
):
    path = write_texts(tmp_path / name)
    assert main(["predict", str(model), str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == classifier.predict(TEXTS)


def test_several_files_and_standard_input_come_one_after_another(
    model: Path, classifier: Classifier, tmp_path: Path, stdin, capsys: Captured
):
    stdin(b"bad\nbad film")
    files = [str(write_texts(tmp_path / "a.csv")), "-", str(write_texts(tmp_path / "b.jsonl.gz"))]
    assert main(["predict", str(model), *files]) == 0
    expected = classifier.predict([*TEXTS, "bad", "bad film", *TEXTS])
    assert capsys.readouterr().out.splitlines() == expected


def test_files_may_come_after_options(
    model: Path, classifier: Classifier, tmp_path: Path, capsys: Captured
):
    files = [str(write_texts(tmp_path / "a.txt")), str(write_texts(tmp_path / "b.txt"))]
    assert main(["predict", str(model), files[0], "--threads", "2", files[1]]) == 0
    assert capsys.readouterr().out.splitlines() == classifier.predict(TEXTS) * 2


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_compressed_standard_input_is_told_by_its_bytes(
    model: Path, classifier: Classifier, stdin, capsys: Captured, pack
):
    stdin(pack(b"bad film\ngood\n"))
    assert main(["predict", str(model)]) == 0
    assert capsys.readouterr().out.splitlines() == classifier.predict(["bad film", "good"])


@given(
    lines=st.lists(
        st.text(
            st.one_of(
                st.sampled_from("goodbadfilmΣσΟİ \t"),
                st.characters(exclude_characters="\n", exclude_categories=["Cs"]),
            )
        ),
        max_size=8,
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_line_ends_are_no_part_of_a_text(lines: list[str], end: str, last: bool):
    """Lines are not cut out one by one; whatever their texts, their ends must change nothing."""
    from flows.input_files import InputFile, Meter
    from flows.input_rows import _text

    shared = small_classifier()
    content = end.join(lines) + (end if last else "")
    file = InputFile("x", io.BytesIO(content.encode()), Meter([]))
    batches = list(_text(file))
    expected = content.removeprefix("\ufeff").split("\n")
    expected = [line.removesuffix("\r") for line in (expected if expected[-1] else expected[:-1])]
    found = [row[0] for batch in batches for row in batch.rows()]
    assert found == expected
    for batch in batches:
        inside = [row[0] for row in batch.rows()]
        np.testing.assert_array_equal(
            shared.predict_proba(batch.texts), shared.predict_proba(inside)
        )
        np.testing.assert_array_equal(shared.coverage(batch.texts), shared.coverage(inside))


@pytest.mark.parametrize("column", ["text", "review"])
def test_json_lines_keep_the_rows_byte_for_byte(
    model: Path, classifier: Classifier, tmp_path: Path, capsys: Captured, column: str
):
    """Numbers beyond float64, the order of keys and escapes survive: rows are not written anew."""
    rows = [
        f'{{"n": 1234567890123456789012, "{column}": "a good \\u0066ilm", "x": 1e999}}',
        f'  {{"{column}":"bad","deep":{{"a":[1,2]}} }}  ',
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("\ufeff" + rows[0] + "\r\n\n" + rows[1], "utf-8")
    arguments = ["--column", column, "--output-format", "jsonl"]
    assert main(["predict", str(model), str(path), *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    answers = list(classifier.stream(["a good film", "bad"]))
    for line, row, answer in zip(lines, rows, answers, strict=True):
        assert line.startswith(row.strip()[:-1].rstrip() + ', "label": ')
        found = json.loads(line)
        assert found["label"] == answer.label
        assert found["probability"] == pytest.approx(answer.probability, abs=1e-6)


@pytest.mark.parametrize("source", ["x.txt", "x.jsonl", "x.csv", "x.parquet"])
@pytest.mark.parametrize("target", ["y.jsonl", "y.csv.gz", "y.tsv", "y.parquet", "y.jsonl.zst"])
def test_what_the_input_had_is_kept_in_every_format(
    model: Path, classifier: Classifier, tmp_path: Path, source: str, target: str
):
    path, out = write_texts(tmp_path / source), tmp_path / target
    extras = ["--proba", "--top", "2", "--coverage"]
    assert main(["predict", str(model), str(path), "--output", str(out), *extras]) == 0
    rows = read_rows(out)
    assert [row["text"] for row in rows] == TEXTS
    if source != "x.txt":
        assert [int(row["id"]) for row in rows] == list(range(len(TEXTS)))
    answers = classifier.answers(TEXTS)
    top = classifier.predict_topk(TEXTS, 2)
    assert [row["label"] for row in rows] == answers.labels
    for row, shares, coverage, best in zip(
        rows, answers.probabilities, answers.coverage, top, strict=True
    ):
        assert float(row["probability"]) == pytest.approx(shares.max(), abs=1e-6)
        assert float(row["coverage"]) == pytest.approx(coverage, abs=1e-6)
        if "jsonl" in target:
            given = [row["probabilities"][label] for label in LABELS]
            ranked = [(one["label"], one["probability"]) for one in row["top"]]
        else:
            given = [float(row[f"probability_{label}"]) for label in LABELS]
            ranked = [(row[f"top_{i}"], float(row[f"top_{i}_probability"])) for i in (1, 2)]
        np.testing.assert_allclose(given, shares, atol=1e-6)
        assert [label for label, _ in ranked] == [label for label, _ in best]
        np.testing.assert_allclose([p for _, p in ranked], [p for _, p in best], atol=1e-6)


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_columns_of_the_same_name_are_not_overwritten(model: Path, tmp_path: Path, name: str):
    """A labelled set is what people predict most often: its labels must survive."""
    rows = [{"label": "truth", "text": "a good film"}, {"label": "other", "text": "bad"}]
    path, out = tmp_path / name, tmp_path / f"out.{name[2:]}"
    if name == "x.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name == "x.csv":
        path.write_text("label,text\ntruth,a good film\nother,bad\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["predict", str(model), str(path), "--output", str(out)]) == 0
    found = read_rows(out)
    assert [row["label"] for row in found] == ["truth", "other"]
    assert all(row["predicted_label"] in LABELS for row in found)
    assert all(0 < float(row["predicted_probability"]) <= 1 for row in found)


def test_a_field_that_comes_up_later_and_is_ours_is_an_error(
    model: Path, tmp_path: Path, capsys: Captured
):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "label": 1}\n')
    assert main(["predict", str(model), str(path), "--output-format", "jsonl"]) == 1
    assert "'label', which is also the name of one that is added" in capsys.readouterr().err


def test_parquet_keeps_the_types_of_its_columns(model: Path, tmp_path: Path):
    schema = pa.schema(
        [
            pa.field("when", pa.timestamp("us", "UTC")),
            pa.field("text", pa.dictionary(pa.int32(), pa.string())),
            pa.field("tags", pa.list_(pa.string())),
        ],
        metadata={"owner": "somebody"},
    )
    columns = [[0, 1, None], ["good", "bad", "good"], [["a"], None, []]]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
    path, out = tmp_path / "x.parquet", tmp_path / "y.parquet"
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)
    assert main(["predict", str(model), str(path), "--proba", "--output", str(out)]) == 0
    found = pq.read_table(out)
    assert found.select(["when", "text", "tags"]).schema.equals(schema)
    assert found.schema.metadata[b"owner"] == b"somebody"
    assert found["when"].to_pylist() == pq.read_table(path)["when"].to_pylist()
    assert found["probability"].type == pa.float32()


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_columns_without_rows_give_columns_without_rows(
    model: Path, tmp_path: Path, capsys: Captured, name: str
):
    path, out = write_texts(tmp_path / name, []), tmp_path / name.replace("x.", "y.")
    assert main(["predict", str(model), str(path), "--output", str(out)]) == 0
    names = pq.read_schema(out).names if "parquet" in name else out.read_text().strip().split(",")
    assert names == ["id", "text", "label", "probability"]
    assert main(["predict", str(model), str(path), "--proba"]) == 0
    assert capsys.readouterr().out == ""


def test_where_the_model_abstains_there_is_no_label(
    model: Path, classifier: Classifier, tmp_path: Path, capsys: Captured
):
    path = write_texts(tmp_path / "x.jsonl")
    expected = classifier.predict(TEXTS, abstain_below=0.7)
    assert None in expected
    assert any(expected)
    for limit in ("0.7", "model"):
        arguments = ["predict", str(model), str(path), "--abstain-below", limit]
        assert main(arguments) == 0
        assert capsys.readouterr().out.split("\n")[:-1] == [label or "" for label in expected]
        assert main([*arguments, "--output-format", "jsonl"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["label"] for line in lines] == expected


def test_an_output_may_be_its_own_input(model: Path, tmp_path: Path):
    path = write_texts(tmp_path / "x.csv")
    assert main(["predict", str(model), str(path), "--output", str(path)]) == 0
    assert [row["text"] for row in read_rows(path)] == TEXTS


def test_a_link_stays_a_link_and_a_device_stays_a_device(model: Path, tmp_path: Path):
    path = write_texts(tmp_path / "x.txt")
    link = tmp_path / "link.csv"
    link.symlink_to(tmp_path / "real.csv")
    assert main(["predict", str(model), str(path), "--output", str(link)]) == 0
    assert link.is_symlink()
    assert len(read_rows(tmp_path / "real.csv")) == len(TEXTS)
    assert main(["predict", str(model), str(path), "--output", "/dev/null"]) == 0
    assert Path("/dev/null").is_char_device()


WATCHED = """
import sys
from flows.cli import main
status = main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1], file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("kind", ["text", "jsonl", "csv"])
def test_memory_does_not_grow_with_the_input(model: Path, kind: str):
    # No tokens, so that reading is what takes time.
    line = "x , " * 500
    row = {
        "text": f"{line}\n",
        "jsonl": json.dumps({"text": line}) + "\n",
        "csv": f'1,"{line}"\n',
    }[kind].encode()
    head = b"id,text\n" if kind == "csv" else b""

    def peak(copies: int) -> int:
        command = [sys.executable, "-c", WATCHED, "predict", str(model), "--format", kind]
        with subprocess.Popen(
            [*command, "--output-format", kind],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT,
        ) as process:  # fmt: skip
            assert process.stdin
            assert process.stderr
            process.stdin.write(head)
            for _ in range(copies):
                process.stdin.write(row * 500)
            process.stdin.close()
            said = process.stderr.read()
        assert process.returncode == 0, said
        return int(said) << 10

    small, large = peak(4), peak(128)
    assert 128 * 500 * len(row) > 120e6
    assert large - small < 24e6


def test_labels_come_while_the_pipe_is_open(model: Path):
    with subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "predict", str(model)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        for _ in range(3):
            process.stdin.write(b"a good film\n")
            process.stdin.flush()
            # Would wait for ever if the answer waited for more texts.
            assert process.stdout.readline().decode().strip() in LABELS
        process.stdin.close()
        assert process.stdout.read() == b""


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "MODEL", "x.csv", "--output-format", "jsonl", "--top", "2"],
        ["predict", "MODEL", "x.jsonl.zst", "--output-format", "csv", "--proba", "--coverage"],
        ["explain", "MODEL", "a good film", "--html", "why.html"],
        ["inspect", "MODEL", "--verify"],
    ],
    ids=lambda arguments: " ".join(arguments[::2]),
)
def test_the_base_install_is_enough(model: Path, tmp_path: Path, arguments: list[str]):
    for name in ("x.csv", "x.jsonl.zst"):
        write_texts(tmp_path / name)
    program = (
        "import sys; from flows.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'prefect', 'pyarrow', 'transformers', 'fsspec', 'rich', 'pydantic', "
        "'altair', 'huggingface_hub', 'polars'}; "
        "sys.exit(status or ', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *(one.replace("MODEL", str(model)) for one in arguments)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["x.csv", "x.parquet"])
def test_columns_of_classes_that_are_numbers_have_names_of_their_own(tmp_path: Path, target: str):
    """Stars, 1 to 5, are a common set of labels: a column must not be there twice."""
    labels = ("1", "2", "3")
    model = save(tmp_path / "m", small_classifier(labels))
    path, out = write_texts(tmp_path / "in.csv"), tmp_path / target
    arguments = ["predict", str(model), str(path), "--output", str(out), "--proba", "--top", "3"]
    assert main(arguments) == 0
    answers = Classifier.load(model).answers(TEXTS)
    if target == "x.csv":
        names = out.read_text("utf-8").splitlines()[0].split(",")
    else:
        names = pq.read_schema(out).names
    assert len(set(names)) == len(names)
    for row, shares in zip(read_rows(out), answers.probabilities, strict=True):
        given = [float(row[f"probability_{label}"]) for label in labels]
        np.testing.assert_allclose(given, shares, atol=1e-6)
        ranked = {row[f"top_{i}"]: float(row[f"top_{i}_probability"]) for i in (1, 2, 3)}
        assert ranked == pytest.approx(dict(zip(labels, given, strict=True)), abs=1e-6)
