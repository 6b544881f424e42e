"""Several configurations side by side: what is run for it, and what is told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.tiny_task import run_config, write_toml

from flows.cli import main
from flows.comparing import compare, differences
from flows.config import DistillConfig, parse_config
from flows.delivery import RunResult
from flows.inline import run_inline
from sparsedistill.errors import ConfigError


@pytest.fixture
def configs(own_data: Path, own_store: Path) -> list[DistillConfig]:
    small = run_config(own_data, own_store, package={"dtype": "int8"})
    return [parse_config(one) for one in (run_config(own_data, own_store), small)]


def test_only_what_differs_is_computed(configs: list[DistillConfig]):
    runs: list[RunResult] = []
    names: list[str] = []

    def run(config: DistillConfig, name: str) -> RunResult:
        names.append(name)
        runs.append(run_inline(config))
        return runs[-1]

    made = compare(configs, run=run)
    assert [result.computed() for result in runs] == [0, 3]
    assert list(made.results) == names == ["tiny 1", "tiny 2"]
    assert made.document["settings"] == [{"key": "package.dtype", "values": [None, "int8"]}]
    texts = {run["texts"] for run in made.document["runs"]}
    assert texts == {runs[0].artifacts["dataset"][2].digest}


def test_settings_that_change_no_figure_do_not_differ(own_data: Path, tmp_path: Path):
    one = parse_config(run_config(own_data, tmp_path / "a", run={"workers": 1, "threads": 1}))
    other = parse_config(run_config(own_data, tmp_path / "b", run={"workers": 2, "threads": 2}))
    assert differences([one, other]) == [{"key": "run.threads", "values": [1, 2]}]
    assert differences([one, one]) == []


def test_a_teacher_that_only_one_of_them_has_is_told_key_by_key(own_data: Path, tmp_path: Path):
    taught = run_config(own_data, tmp_path)
    given = {**taught, "logits": {"path": "given.parquet"}}
    del given["teacher"]
    keys = {
        one["key"]: one["values"]
        for one in differences([parse_config(taught), parse_config(given)])
    }
    assert keys["teacher.checkpoint"] == ["encoder", None]
    assert keys["logits.path"] == [None, "given.parquet"]


def test_settings_are_told_without_the_secrets_of_urls(own_data: Path, tmp_path: Path):
    def config(secret: str) -> DistillConfig:
        url = f"https://host/c.txt?X-Amz-Signature={secret}"
        tables = {"corpus": {"sources": [url]}, "dataset": {"train": url}}
        return parse_config(run_config(own_data, tmp_path, **tables))

    found = differences([config("5ecret1"), config("5ecret2")])
    assert {one["key"]: one["values"] for one in found} == {
        "dataset.train": ["https://host/c.txt"] * 2,
        "corpus.sources": [["https://host/c.txt"]] * 2,
    }


def test_one_configuration_is_not_compared(configs: list[DistillConfig]):
    with pytest.raises(ConfigError, match="at least two"):
        compare(configs[:1], run=lambda config, _: run_inline(config))


def test_the_command_prints_a_table_and_writes_page_and_numbers(
    own_data: Path,
    own_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    plain = write_toml(tmp_path / "plain.toml", run_config(own_data, own_store))
    small = {**run_config(own_data, own_store, package={"dtype": "int8"}), "name": "small"}
    other = write_toml(tmp_path / "small.toml", small)
    assert main(["compare", str(plain), str(other), "--no-prefect", "--out", "side"]) == 0
    shown = capsys.readouterr().out
    assert "package.dtype" in shown
    document = json.loads((tmp_path / "side" / "comparison.json").read_text("utf-8"))
    assert [run["name"] for run in document["runs"]] == ["tiny", "small"]
    assert "small" in (tmp_path / "side" / "comparison.html").read_text("utf-8")
    assert (tmp_path / "side" / "small" / "report.html").exists()
    assert not (tmp_path / "runs").exists()
    assert main(["compare", str(plain), "--no-prefect", "--out", "side"]) == 1
    assert "at least two" in capsys.readouterr().err


def test_only_a_promotion_changes_the_model_that_is_in_use(
    own_data: Path,
    own_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    toml = str(write_toml(tmp_path / "tiny.toml", run_config(own_data, own_store)))
    assert main(["promote", toml, "--out", "runs/tiny"]) == 0
    in_use = model_in(tmp_path / "runs" / "tiny")
    other = ["--set", "package.dtype=int8", "--no-prefect"]

    assert main(["compare", toml, toml, *other]) == 0
    assert main(["distill", toml, *other]) == 0
    assert "`sparsedistill promote" in capsys.readouterr().out
    assert model_in(tmp_path / "runs" / "tiny") == in_use
    candidate = model_in(tmp_path / "runs" / "tiny" / "candidate")
    assert candidate != in_use

    # The current model itself goes to its place, and what is promoted does.
    assert main(["distill", toml, "--no-prefect"]) == 0
    assert "promote" not in capsys.readouterr().out
    assert main(["distill", toml, *other]) == 0
    assert main(["promote", toml, "--out", "runs/tiny"]) == 0
    assert model_in(tmp_path / "runs" / "tiny")["config.json"] == candidate["config.json"]


def model_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "model").iterdir()}
