"""A re-distillation that is killed, and the same command again: one decision, one model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_task import run_config, texts, write_toml

from flows import current as decisions
from flows.config import load_config
from flows.delivery import is_delivered
from flows.redistill_commands import redistill_inline
from sparsedistill.classifier import Classifier
from storage import ArtifactStore
from tasks.earlier import ROLE

ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"
PLACES = [
    pytest.param("before the decision", marks=pytest.mark.slow),
    "after the decision",
    pytest.param("before the delivery", marks=pytest.mark.slow),
    pytest.param("in the delivery", marks=pytest.mark.slow),
]


def start(*program: str, config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["redistill", str(config), "--no-prefect", "--out", str(out)]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True, text=True, check=False, timeout=300,
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def manifests(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes() for path in store.glob("*/*/manifest.json")
    }


@pytest.fixture(scope="module")
def grown(
    tiny_data: Path, tmp_path_factory: pytest.TempPathFactory, small: Mapping[str, Any]
) -> tuple[Path, Path]:
    """A directory with a store, its current model in ``out``, and a corpus that has grown since."""
    root = tmp_path_factory.mktemp("grown")
    data = Path(shutil.copytree(tiny_data, root / "data"))
    tables = {**small, "redistill": {"margin": 0.99}}
    config = write_toml(root / "tiny.toml", run_config(data, Path("store"), **tables))
    return root, config


@pytest.fixture
def house(grown: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration whose model is promoted and whose corpus has grown since."""
    root, config = grown
    monkeypatch.chdir(root)
    if not (root / "store").exists():
        redistill_inline(load_config(config), "out")
        with (root / "data" / "corpus.txt").open("a") as file:
            file.writelines(f"{text}\n" for text, _ in texts(900, seed=3)[-150:])
    for name in ("store", "out"):
        shutil.copytree(root / name, tmp_path / name)
    given = config.read_text().replace('"store"', json.dumps(str(tmp_path / "store")))
    own = tmp_path / "tiny.toml"
    own.write_text(given)
    return own


def check_after(config: Path, out: Path) -> None:
    """One promotion since the first, its model delivered, and nothing left to do."""
    store = ArtifactStore(load_config(config).run.store)
    made = decisions.history(store, "tiny")
    assert [one.verdict for one in made] == ["promoted", "promoted"]
    package = made[-1].model.package
    assert is_delivered(store.get(package.kind, package.key), out)
    assert Classifier.load(out / "model", verify=True).classes_
    new = made[-1].model.references["student"]
    student = store.get(new.kind, new.key).manifest
    assert student.inputs[ROLE][0] == made[0].model.references["student"]
    assert redistill_inline(load_config(config), str(out)).outcome == "unchanged"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("place", PLACES)
def test_killed_around_its_decision_it_goes_on_to_one_promotion(house: Path, place: str):
    out = house.parent / "out"
    killed = start(str(HELPERS / "killed_redistillation.py"), place, config=house, out=out)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = manifests(house.parent / "store")
    again = start("-m", "flows.cli", config=house, out=out)
    assert again.returncode == 0, again.stderr
    decided = place != "before the decision"
    assert ("unchanged" if decided else "promoted") in again.stdout
    assert manifests(house.parent / "store") == before
    check_after(house, out)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["features", "student"])
def test_killed_in_a_stage_it_goes_on_with_the_same_artifacts(house: Path, stage: str):
    out = house.parent / "out"
    model = (out / "model" / "config.json").read_bytes()
    killed = start(str(HELPERS / "killed_run.py"), stage, config=house, out=out)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (out / "model" / "config.json").read_bytes() == model
    finished = manifests(house.parent / "store")
    again = start("-m", "flows.cli", config=house, out=out)
    assert again.returncode == 0, again.stderr
    after = manifests(house.parent / "store")
    assert {name: after[name] for name in finished} == finished
    students = {name for name in after if name.startswith("student/")}
    assert len(students) == 2
    check_after(house, out)
