"""The commands as a user types them: what they print, and what they say when they cannot."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_task import LABELS, run_config, write_toml

from flows import cli
from flows.cli import main
from flows.delivery import RunResult, deliver
from sparsedistill.classifier import Classifier
from tasks.evaluation import TITLES


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def config(own_data: Path, own_store: Path, tmp_path: Path) -> Path:
    """A configuration whose store holds a whole run."""
    return write_toml(tmp_path / "tiny.toml", run_config(own_data, own_store))


@pytest.fixture(scope="session")
def model(tiny_run: RunResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deliver(tiny_run, tmp_path_factory.mktemp("delivered")).model


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch):
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give


Captured = pytest.CaptureFixture[str]


def test_distill_prints_the_table_and_where_the_report_is(
    config: Path, tmp_path: Path, capsys: Captured
):
    out = tmp_path / "out"
    assert main(["distill", str(config), "--no-prefect", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    rivals = {"bilstm_kd", "cnn_kd"}  # are not asked for
    assert all((title in said) == (model not in rivals) for model, title in TITLES.items())
    assert str(out / "report.html") in said.replace("\n", "")
    assert "every stage was Cached" in said
    assert (out / "model" / "config.json").is_file()


def test_distill_says_of_every_stage_what_became_of_it(
    config: Path, tmp_path: Path, capsys: Captured
):
    arguments = ["distill", str(config), "--no-prefect", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--set", "finetune.enabled=false"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "student: Cached (3)" in lines
    assert "logits: Cached (6)" in lines
    assert "finetune: 1 of 1" in lines
    assert not any("every stage was Cached" in line for line in lines)


def test_results_go_under_runs_and_the_name_by_default(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    monkeypatch.chdir(tmp_path)
    assert main(["distill", str(config), "--no-prefect"]) == 0
    assert (tmp_path / "runs" / "tiny" / "summary.json").is_file()


def test_the_data_root_of_the_configuration_can_be_replaced(
    config: Path, own_data: Path, tmp_path: Path, capsys: Captured
):
    moved = shutil.move(own_data, tmp_path / "moved")
    assert main(["plan", str(config), "--data", str(moved), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {stage["state"] for stage in plan["stages"]} == {"cached"}


def test_plan_prints_a_line_a_stage(config: Path, capsys: Captured):
    assert main(["plan", str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        "dataset", "corpus", "ngrams", "vocabulary", "features", "teacher", "logits", "baseline",
        "student", "finetune", "package", "evaluation", "report",
    ]  # fmt: skip
    assert all("cached" in line for line in lines[1:])


def test_plan_as_json_tells_the_same(config: Path, capsys: Captured):
    assert main(["plan", str(config), "--json", "--set", "package.dtype=int8"]) == 0
    plan = json.loads(capsys.readouterr().out)
    states = {stage["stage"]: stage["state"] for stage in plan["stages"]}
    assert states["finetune"] == "cached"
    assert states["package"] == "to do"
    assert plan["notes"] == []


@pytest.mark.parametrize("command", ["distill", "plan"])
def test_a_mistake_in_the_configuration_is_one_message_and_status_1(
    config: Path, command: str, capsys: Captured
):
    flags = ["--no-prefect"] if command == "distill" else []
    assert main([command, str(config), *flags, "--set", "student.epoch=3"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "student.epoch: there is no such key; the nearest is epochs" in captured.err
    assert "Traceback" not in captured.err


def test_a_missing_configuration_names_the_nearest(config: Path, capsys: Captured):
    assert main(["plan", str(config.with_name("tinny.toml"))]) == 1
    assert f"did you mean {config}?" in capsys.readouterr().err


def test_bad_data_is_one_message_and_status_1(
    config: Path, own_data: Path, tmp_path: Path, capsys: Captured
):
    (own_data / "train.csv").write_text("text,label\nx,garden\ny,\n")
    out = tmp_path / "out"
    assert main(["distill", str(config), "--no-prefect", "--out", str(out)]) == 1
    assert "error: train.csv, row 3: missing label" in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_command_is_status_2(capsys: Captured):
    with pytest.raises(SystemExit, match="2"):
        main(["destill"])
    assert "invalid choice" in capsys.readouterr().err


def test_without_the_pipeline_installed_a_command_says_what_to_install(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
):
    def missing(name: str):
        raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow.parquet")

    monkeypatch.setattr(cli, "import_module", missing)
    assert main(["plan", str(config)]) == 1
    message = capsys.readouterr().err
    assert message == "error: this command needs pyarrow: pip install 'sparsedistill[pipeline]'\n"


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: Captured):
    def interrupted(name: str):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", interrupted)
    assert main(["distill", "some.toml"]) == 130
    assert "run the same command again" in capsys.readouterr().err
    # What keeps nothing cannot go on.
    assert main(["predict", "model"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_message_cannot_take_over_the_terminal(capsys: Captured):
    assert main(["predict", "no\x1b[2J\x9bwhere"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert not set(said) & {"\x1b", "\x9b"}


def test_an_error_of_our_own_making_is_not_hidden(config: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(name: str):
        raise RuntimeError("a mistake in the program")

    monkeypatch.setattr(cli, "import_module", broken)
    with pytest.raises(RuntimeError, match="a mistake in the program"):
        main(["plan", str(config)])


def test_predict_labels_the_lines_of_a_file(model: Path, tmp_path: Path, capsys: Captured):
    lines = ["rose tulip soil spade", "oven butter flour", "", "train station signal"]
    (tmp_path / "lines.txt").write_text("".join(f"{line}\n" for line in lines))
    assert main(["predict", str(model), str(tmp_path / "lines.txt")]) == 0
    assert capsys.readouterr().out.splitlines() == Classifier.load(model).predict(lines)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_predict_reads_standard_input_whatever_its_line_ends(
    model: Path, stdin, capsys: Captured, ends: str
):
    lines = ["rose tulip soil spade", "a last line without an end"]
    stdin(ends.join(lines).encode())
    assert main(["predict", str(model)]) == 0
    assert capsys.readouterr().out.splitlines() == Classifier.load(model).predict(lines)


def test_predict_of_nothing_prints_nothing(model: Path, stdin, capsys: Captured):
    stdin(b"")
    assert main(["predict", str(model)]) == 0
    assert capsys.readouterr().out == ""


def test_predict_more_lines_than_one_batch_keeps_their_order(model: Path, stdin, capsys: Captured):
    lines = ["rose tulip soil", "oven butter flour", "train station signal"] * 3000
    stdin("\n".join(lines).encode())
    assert main(["predict", str(model)]) == 0
    assert capsys.readouterr().out.splitlines() == Classifier.load(model).predict(lines[:3]) * 3000


def test_predict_prints_probabilities_under_a_heading(model: Path, stdin, capsys: Captured):
    stdin(b"rose tulip soil spade\n\n")
    assert main(["predict", str(model), "--proba"]) == 0
    heading, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert heading == ["label", *LABELS]
    assert len(rows) == 2
    for label, *shares in rows:
        assert sum(map(float, shares)) == pytest.approx(1, abs=1e-5)
        assert LABELS[max(range(3), key=lambda i: float(shares[i]))] == label


def test_predict_says_after_which_line_the_bytes_are_no_utf8(model: Path, stdin, capsys: Captured):
    stdin(b"fine\nfine too\n\xff\xfe\n")
    assert main(["predict", str(model)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: standard input: ")
    assert "not valid UTF-8" in message
    assert "line 3" in message


def test_predict_names_a_file_that_is_not_there(model: Path, capsys: Captured):
    assert main(["predict", str(model), "nowhere.txt"]) == 1
    assert "nowhere.txt cannot be read: No such file" in capsys.readouterr().err


def test_predict_names_a_model_that_is_not_there(tmp_path: Path, capsys: Captured):
    assert main(["predict", str(tmp_path / "nothing")]) == 1
    assert str(tmp_path / "nothing") in capsys.readouterr().err


def test_predict_refuses_a_truncated_model(model: Path, tmp_path: Path, stdin, capsys: Captured):
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    stdin(b"text\n")
    assert main(["predict", str(copy)]) == 1
    assert "model.safetensors" in capsys.readouterr().err


def test_predict_loads_nothing_of_the_pipeline(model: Path, tmp_path: Path):
    """The base install has no torch, Prefect or pyarrow: importing any of them would fail there."""
    (tmp_path / "lines.txt").write_text("rose tulip\n")
    program = (
        "import sys; from flows.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'prefect', 'pyarrow', 'transformers', 'fsspec', 'rich', 'pydantic'}; "
        "sys.exit(status or ', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "predict", str(model), str(tmp_path / "lines.txt")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in LABELS


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["store", "ls"], 0), (["store", "gc"], 0), (["current", "nobody"], 1)],
)
def test_what_only_looks_at_a_store_loads_nothing_that_computes(
    arguments: list[str], status: int, tiny_store: Path
):
    code = f"""
import sys
from flows.cli import main
assert main({[*arguments, "--store", str(tiny_store)]}) == {status}
assert not {{"torch", "altair", "prefect", "sklearn"}} & set(sys.modules)
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=root)


def test_a_reader_that_stops_early_is_no_error(model: Path):
    lines = b"rose tulip soil\n" * 200_000
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "predict", str(model)],
        stdin=subprocess.PIPE, stdout=write_end, stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    os.close(write_end)
    os.close(read_end)
    _, errors = process.communicate(lines)
    assert b"Traceback" not in errors
    assert process.returncode == 0


def test_explain_shows_the_ngrams_that_decide(model: Path, capsys: Captured):
    assert main(["explain", str(model), "rose tulip soil rose", "--top", "3"]) == 0
    said = capsys.readouterr().out
    label, share, *_ = said.split()
    assert label in LABELS
    assert share.endswith("%")
    assert len([line for line in said.splitlines() if line[:2] in ("+ ", "- ")]) == 3
    assert "rose tulip soil rose" in said
    assert "\033" not in said


def test_a_report_can_be_drawn_again_from_its_numbers(
    tiny_run: RunResult, tmp_path: Path, capsys: Captured
):
    delivery = deliver(tiny_run, tmp_path)
    page = tmp_path / "again.html"
    assert main(["report", str(delivery.summary), "--out", str(page)]) == 0
    assert page.read_text("utf-8") == delivery.report.read_text("utf-8")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 99}'])
def test_a_summary_that_is_none_is_refused_by_name(
    tmp_path: Path, capsys: Captured, content: str | None
):
    path = tmp_path / "summary.json"
    if content is not None:
        path.write_text(content)
    assert main(["report", str(path), "--out", str(tmp_path / "page.html")]) == 1
    assert f"error: {path}: " in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
