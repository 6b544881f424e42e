"""What is delivered is whole, for whoever loads it meanwhile and whoever delivers at once."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from helpers.tiny_task import run_config

from flows.config import parse_config
from flows.delivery import RunResult, deliver, is_delivered
from flows.inline import run_inline
from sparsedistill.classifier import Classifier
from sparsedistill.errors import ModelFileError
from storage import Artifact, DamagedArtifactError


@pytest.fixture(scope="module")
def runs(
    tiny_data: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunResult, RunResult]:
    """Two runs whose models have tables of other types. Read only."""
    store = Path(shutil.copytree(tiny_store, tmp_path_factory.mktemp("two") / "store"))
    first = run_inline(parse_config(run_config(tiny_data, store)))
    other = run_config(tiny_data, store, package={"dtype": "int8"})
    return first, run_inline(parse_config(other))


def test_what_is_delivered_can_be_told(runs: tuple[RunResult, RunResult], tmp_path: Path):
    packages = [one.artifacts["package"][0] for one in runs]
    assert not is_delivered(packages[0], tmp_path)
    for result, package in zip(runs, packages, strict=True):
        deliver(result, tmp_path)
        assert [is_delivered(one, tmp_path) for one in packages] == [
            one is package for one in packages
        ]


def test_a_delivery_that_lacks_a_file_or_a_part_of_one_is_told_and_made_good(
    runs: tuple[RunResult, RunResult], tmp_path: Path
):
    package = runs[0].artifacts["package"][0]
    deliver(runs[0], tmp_path)
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name for path in whole} > set(package.names)
    for path, content in whole.items():
        path.unlink()
        assert not is_delivered(package, tmp_path), path
        deliver(runs[0], tmp_path)
        assert path.read_bytes() == content
        assert is_delivered(package, tmp_path)
    for name in package.names:
        with (tmp_path / "model" / name).open("r+b") as file:
            file.truncate(file.seek(0, 2) - 1)
        assert not is_delivered(package, tmp_path), name
        deliver(runs[0], tmp_path)
    assert {path: path.read_bytes() for path in whole} == whole


def test_a_reader_gets_one_model_or_an_error_while_they_change(
    runs: tuple[RunResult, RunResult], tmp_path: Path
):
    """A mixture would load with the sizes of the one and answer with the rows of the other."""
    deliver(runs[0], tmp_path)
    texts = ["rose soil seed", "oven butter", "train station", ""]
    answers = [
        Classifier.load(one.artifacts["package"][0].directory()).predict_proba(texts).tobytes()
        for one in runs
    ]
    stop, failures = threading.Event(), []

    def deliver_both() -> None:
        try:
            for turn in range(30):
                deliver(runs[turn % 2], tmp_path)
        finally:
            stop.set()

    writer = threading.Thread(target=deliver_both)
    writer.start()
    loaded = 0
    try:
        while not stop.is_set():
            try:
                found = Classifier.load(tmp_path / "model")
            except (ModelFileError, FileNotFoundError):
                continue
            if found.predict_proba(texts).tobytes() not in answers:
                failures.append(found)
            loaded += 1
    finally:
        writer.join()
    assert failures == []
    assert loaded > 0


def test_deliveries_at_once_leave_one_whole_model(
    runs: tuple[RunResult, RunResult], tmp_path: Path
):
    threads = [threading.Thread(target=deliver, args=(runs[n % 2], tmp_path)) for n in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert Classifier.load(tmp_path / "model", verify=True).classes_
    left = [path.name for path in tmp_path.rglob(".*")]
    assert left == []


def test_a_delivery_that_was_killed_is_made_good_by_the_next(
    runs: tuple[RunResult, RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    deliver(runs[0], tmp_path)
    replace, calls = Path.replace, []

    def dies(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        deliver(runs[1], tmp_path)
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match="there is no such file"):
        Classifier.load(tmp_path / "model")
    deliver(runs[1], tmp_path)
    assert Classifier.load(tmp_path / "model", verify=True).classes_
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_a_damaged_model_is_not_delivered_over_a_good_one(
    runs: tuple[RunResult, RunResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    deliver(runs[0], tmp_path)
    path = Artifact.path

    def damaged(self: Artifact, name: str) -> Path:
        if name == "vocabulary.safetensors":
            raise DamagedArtifactError(f"{self.kind}/{self.key}", name, "altered")
        return path(self, name)

    monkeypatch.setattr(Artifact, "path", damaged)
    with pytest.raises(DamagedArtifactError):
        deliver(runs[1], tmp_path)
    monkeypatch.undo()
    assert is_delivered(runs[0].artifacts["package"][0], tmp_path)
    assert Classifier.load(tmp_path / "model", verify=True).classes_
