"""Whole runs in this process: what they leave, what they reuse, and that they can be repeated."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from helpers.tiny_task import run_config

from flows.config import parse_config
from flows.delivery import RunResult, artifacts_of, deliver
from flows.inline import run_inline
from sparsedistill.classifier import Classifier
from storage import ArtifactStore
from tasks.progress import listening

SMALL = {
    "student": {"baselines": []},
    "baseline": {"enabled": False},
    "evaluation": {"teacher_texts": 2},
}


def bytes_of(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_the_student_learns_what_its_teacher_knows(tiny_run: RunResult):
    """A pipeline whose rows were out of step anywhere would do no better than chance, a third."""
    scores = {row["model"]: row["accuracy"] for row in tiny_run.summary()["results"]}
    assert scores["teacher"] > 0.8
    assert scores["dan_kd_ft"] > 0.8
    assert scores["dan_kd_ft"] > scores["dan_scratch"]


def test_a_first_run_computes_everything(tiny_run: RunResult):
    assert tiny_run.computed() == sum(len(some) for some in tiny_run.artifacts.values())
    assert tiny_run.computed() == 30


def test_the_same_run_again_computes_nothing_and_touches_nothing(own_data: Path, own_store: Path):
    before = bytes_of(own_store)
    result = run_inline(parse_config(run_config(own_data, own_store)))
    assert result.computed() == 0
    assert bytes_of(own_store) == before


def test_every_byte_in_the_store_is_as_its_manifest_says(tiny_store: Path):
    found = list(ArtifactStore(tiny_store).verify())
    assert len(found) == 33
    assert [v.problems for v in found if not v.ok] == []


def test_nothing_temporary_is_left_behind(tiny_store: Path):
    left = [p for name in (".tmp", ".work") for p in (tiny_store / name).glob("*")]
    assert left == []


def test_another_store_and_other_settings_of_the_run_give_the_same_bytes(
    tiny_data: Path, tiny_classifier: Path, tmp_path: Path
):
    """Up to the model that is packaged; what is measured after it holds times.

    The teacher is taken as it is: fine-tuned with other threads, it has other last bits.
    """
    taken = {"checkpoint": str(tiny_classifier), "finetune": False}
    once, again = (
        run_inline(parse_config(run_config(tiny_data, tmp_path / name, teacher=taken, run=run)))
        for name, run in (("one", {}), ("other", {"threads": 2, "workers": 1}))
    )
    stages = ("dataset", "corpus", "ngrams", "vocabulary", "features", "logits", "package")
    for stage in stages:
        for one, other in zip(once.artifacts[stage], again.artifacts[stage], strict=True):
            assert one.key == other.key, stage
            assert one.manifest.files == other.manifest.files, stage


def test_a_damaged_artifact_is_made_again_and_nothing_else(
    own_data: Path, own_store: Path, caplog: pytest.LogCaptureFixture
):
    config = parse_config(run_config(own_data, own_store))
    store = ArtifactStore(own_store)
    shard = store.artifacts("features")[0]
    path = own_store / "features" / shard.key / "features.safetensors"
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-10])
    result = run_inline(config)
    assert path.read_bytes() == good
    made = [o for some in result.outcomes.values() for o in some if not o.cached]
    assert [(o.kind, o.key) for o in made] == [("features", shard.key)]
    assert shard.key in caplog.text


def test_an_error_in_one_stage_keeps_what_earlier_ones_made(own_data: Path, tmp_path: Path):
    store = tmp_path / "store"
    broken = run_config(own_data, store, vocabulary={"min_count": 10**6}, **SMALL)
    with pytest.raises(ValueError, match="the vocabulary is empty"):
        run_inline(parse_config(broken))
    result = run_inline(parse_config(run_config(own_data, store, **SMALL)))
    cached = {n for n, some in result.outcomes.items() if some and all(o.cached for o in some)}
    assert {"dataset", "corpus", "ngrams"} <= cached


def test_progress_is_told_for_every_job_and_ends_at_one(own_data: Path, own_store: Path):
    class Listener:
        def __init__(self) -> None:
            self.open: dict[str, float] = {}
            self.stages: list[str] = []
            self.cached = 0
            self.looks: dict[str, list[float]] = {}

        def expect(self, stage, keys):
            self.stages.append(stage)
            self.open.update(dict.fromkeys(keys, 0.0))

        def advance(self, stage, key, share):
            assert self.open[key] <= share + 1e-9
            assert share <= 1 + 1e-9
            self.open[key] = share

        def measured(self, stage, key, label, figures):
            assert stage == "student"
            assert key in self.open
            self.looks.setdefault(label, []).append(figures["dev_accuracy"])

        def finish(self, stage, key, *, cached):
            self.cached += cached
            del self.open[key]

    listener = Listener()
    with listening(listener):
        config = run_config(own_data, own_store, student={"epochs": 2}, teacher={"seeds": [1]})
        result = run_inline(parse_config(config))
    assert listener.open == {}
    assert listener.stages == list(result.outcomes)
    assert listener.cached == 30 - result.computed()
    # Every look at dev was told when it was taken, and is in the curve.
    assert set(listener.looks) == {"kd_private seed 0", "kd seed 0"}
    for student in result.artifacts["student"][1:]:
        label = f"{student.statistics['variant']} seed 0"
        curve = [point["dev_accuracy"] for point in student.statistics["curve"]]  # type: ignore[union-attr]
        assert listener.looks[label] == curve


def test_results_are_delivered_as_whole_files(tiny_run: RunResult, tmp_path: Path):
    out = tmp_path / "deep" / "out"
    delivery = deliver(tiny_run, out)
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == [
        "model/README.md", "model/config.json", "model/model.safetensors", "model/ngrams.txt.zst",
        "model/vocabulary.safetensors", "report.html", "summary.json",
    ]  # fmt: skip
    assert json.loads(delivery.summary.read_text("utf-8")) == tiny_run.summary()
    assert len(Classifier.load(delivery.model).predict(["rose soil", ""])) == 2


def test_the_delivered_model_has_a_card_with_the_numbers_of_its_run(
    tiny_run: RunResult, tmp_path: Path
):
    card = deliver(tiny_run, tmp_path).model / "README.md"
    written = card.read_text("utf-8")
    assert "# tiny" in written
    (student,) = [r for r in tiny_run.summary()["results"] if r["model"] == "dan_kd_ft"]
    assert f"{student['accuracy']:.4f}" in written
    card.write_text("# Of an older model")
    deliver(tiny_run, tmp_path)
    assert card.read_text("utf-8") == written


def test_a_delivery_over_an_older_one_replaces_it(tiny_run: RunResult, tmp_path: Path):
    deliver(tiny_run, tmp_path)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    deliver(tiny_run, tmp_path)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["format"] == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_artifacts_of_a_stage_come_in_the_order_of_its_outcomes(
    tiny_run: RunResult, tiny_store: Path
):
    outcomes = tiny_run.outcomes["logits"][::-1]
    found = artifacts_of(ArtifactStore(tiny_store), outcomes)
    assert [one.key for one in found] == [one.key for one in outcomes]


def test_a_corpus_shard_that_was_removed_is_made_again(own_data: Path, own_store: Path):
    store = ArtifactStore(own_store)
    gone = store.artifacts("corpus_shard")[0]
    store.remove(gone.kind, gone.key)
    result = run_inline(parse_config(run_config(own_data, own_store)))
    assert [outcome.cached for outcome in result.outcomes["corpus"]] == [False]
    assert store.get(gone.kind, gone.key).manifest.files == gone.files


def test_a_model_is_delivered_with_its_configuration_last(
    tiny_run: RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Until then it does not load: nobody gets the table of one model and the labels of another."""
    deliver(tiny_run, tmp_path)
    (tmp_path / "model" / "left-over.bin").write_bytes(b"of an older model")
    written = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        written.append((Path(target).name, (tmp_path / "model" / "config.json").exists()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    deliver(tiny_run, tmp_path)
    assert written[-1] == ("config.json", False)
    assert not (tmp_path / "model" / "left-over.bin").exists()
    assert Classifier.load(tmp_path / "model", verify=True).classes_
