"""What deployments are given: configurations by their file, with paths that hold anywhere."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.tiny_task import run_config

from flows.config import parse_config
from flows.corpus_watch import corpus_resource
from flows.deployed import absolute
from flows.redistillation import look
from flows.verdict_page import verdict_markdown

ROOT = Path(__file__).resolve().parents[2]
FILE = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("data/tickets", "{here}/data/tickets"),
        ("/srv/tickets", "/srv/tickets"),
        ("~/tickets", "{home}/tickets"),
        ("s3://bucket/tickets", "s3://bucket/tickets"),
        (None, "{here}"),
    ],
)
def test_paths_are_made_absolute_and_urls_stay(
    given: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    config = run_config(Path("x"), Path("store"))
    config = absolute(parse_config({**config, "data": given}))
    assert config.data == expected.format(here=tmp_path, home="/home/somebody")
    assert config.run.store == str(tmp_path / "store")


def test_a_run_finds_the_same_data_however_they_are_named(
    own_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Else a served run would make again what the command line has made."""
    monkeypatch.chdir(own_data)
    relative = {**run_config(own_data, tmp_path / "store"), "data": None}
    config = parse_config(relative)
    assert look(absolute(config)).fingerprint == look(config).fingerprint


@pytest.mark.parametrize("deployment", FILE["deployments"], ids=lambda one: one["entrypoint"])
def test_the_deployments_of_a_work_pool_name_flows_and_parameters_that_exist(
    deployment: dict[str, Any],
):
    file, _, name = deployment["entrypoint"].partition(":")
    flow = getattr(import_module(file.removesuffix(".py").replace("/", ".")), name)
    known = set(inspect.signature(flow.fn).parameters)
    sets = [deployment, *deployment.get("schedules", []), *deployment.get("triggers", [])]
    assert {key for one in sets for key in one.get("parameters", {})} <= known
    assert (ROOT / deployment["parameters"]["config"]).is_file()
    for trigger in deployment.get("triggers", []):
        assert trigger["match"]["prefect.resource.id"] == corpus_resource(deployment["name"])


def test_the_page_of_a_verdict_shows_no_markup_of_others(own_data: Path, tmp_path: Path):
    from flows.redistillation import Redistilled

    seen = look(parse_config(run_config(own_data, tmp_path / "store")))
    why = "new labels <b>, | and ![x](http://y)\n# more"
    page = verdict_markdown("tickets", Redistilled("kept", why, seen))
    assert page.startswith("# tickets: the current model stays\n")
    assert "<b>" not in page.replace("\\<b\\>", "")
    assert "\n# more" not in page
    assert "![x]" not in page
