"""Which runs have ended last, and that garbage collection goes by that and not by old reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_task import run_config, write_toml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import current as decisions
from flows import tune_command
from flows.cli import main
from flows.config import DistillConfig, parse_config
from flows.delivery import RunResult
from flows.finished import PREFIX, finished_runs, note_run
from flows.garbage import rules
from flows.inline import run_inline, run_until
from flows.prefect_runner import run_with_prefect
from storage import ArtifactStore, Manifest, Record, StorageError


def inline(config: DistillConfig, out: Path) -> RunResult:
    del out
    return run_inline(config)


def with_prefect(config: DistillConfig, out: Path) -> RunResult:
    return run_with_prefect(config, str(out))


def freed(store: ArtifactStore, *, keep_runs: int = 3) -> set[str | None]:
    """Kinds of the artifacts that a collection would remove."""
    found = store.collect(rules(store, keep_runs=keep_runs), delete=False, older_than=0.0).freed
    return {one.kind for one in found if one.what == "artifact"}


@pytest.mark.parametrize("run", [inline, with_prefect])
@pytest.mark.usefixtures("server")
def test_a_run_that_has_just_found_everything_made_is_the_last_one(
    own_data: Path, own_store: Path, tmp_path: Path, tiny_run: RunResult, run: Callable[..., Any]
):
    store = ArtifactStore(own_store)
    first = parse_config(run_config(own_data, own_store))
    other = parse_config(run_config(own_data, own_store, evaluation={"examples": 2}))
    run(other, tmp_path / "out")
    assert run(first, tmp_path / "out").computed() == 0
    store.collect(rules(store, keep_runs=1), delete=True, older_than=0.0)
    (left,) = store.artifacts("report")
    assert left.key == tiny_run.artifacts["report"][0].key
    assert run(first, tmp_path / "out").computed() == 0
    # Noted once for each time that another run was the last one.
    assert [one.number for one in store.records("runs-tiny")] == [1, 2, 3]


def test_without_a_report_named_the_run_that_ended_last_is_promoted(
    own_data: Path, own_store: Path, tiny_run: RunResult
):
    run_inline(parse_config(run_config(own_data, own_store, package={"dtype": "int8"})))
    run_inline(parse_config(run_config(own_data, own_store)))
    made = decisions.promote(ArtifactStore(own_store), "tiny")
    assert made.model.package == tiny_run.artifacts["package"][0].as_input()


def test_a_note_that_somebody_else_was_faster_with_is_written_after_theirs(
    own_store: Path, tiny_run: RunResult, monkeypatch: pytest.MonkeyPatch
):
    store, report = ArtifactStore(own_store), tiny_run.artifacts["report"][0]
    other: dict[str, Any] = {"kind": "report", "key": "0" * 32, "digest": "0" * 64}
    add = ArtifactStore.add_record

    def late(self: ArtifactStore, name: str, content: Any, *, after: int) -> Record | None:
        monkeypatch.setattr(ArtifactStore, "add_record", add)
        self.add_record(name, {"references": {"report": other}}, after=after)
        return self.add_record(name, content, after=after)

    store.add_record("runs-x", {"references": {"report": other}}, after=0)
    monkeypatch.setattr(ArtifactStore, "add_record", late)
    note_run(store, "x", report)
    note_run(store, "x", report)
    found = [one.references()["report"].key for one in store.records("runs-x")]
    assert found == ["0" * 32, "0" * 32, report.key]


@settings(max_examples=100, deadline=None)
@given(made=st.permutations(range(6)), ended=st.lists(st.integers(0, 7), max_size=12))
def test_runs_without_a_record_come_first_and_the_others_as_they_ended_last(
    made: Sequence[int], ended: Sequence[int], tiny_report: Manifest
):
    """Of 6 and 7 the reports are gone."""
    days = {key: day for day, key in enumerate(made)}
    manifests = [
        replace(tiny_report, key=f"{key:032x}", created=f"2026-01-{1 + day:02}T00:00:00+00:00")
        for key, day in days.items()
    ]

    class Store:
        def records(self, name: str) -> list[Record]:
            assert name == f"{PREFIX}tiny"
            return [
                Record(name, number, f"2025-01-{number:02}", {"references": {"report": {
                    "kind": "report", "key": f"{key:032x}", "digest": "0" * 64}}})
                for number, key in enumerate(ended, start=1)
            ]  # fmt: skip

    without = sorted(set(made) - set(ended), key=lambda key: days[key])
    latest = [key for number, key in enumerate(ended) if key not in ended[number + 1 :]]
    found = finished_runs(Store(), "tiny", [*manifests, replace(tiny_report, kind="x")])  # type: ignore[arg-type]
    assert [int(one.key, 16) for one, _ in found] == [*without, *(k for k in latest if k < 6)]


@pytest.fixture(scope="module")
def tiny_report(tiny_run: RunResult) -> Manifest:
    return tiny_run.artifacts["report"][0].manifest


@pytest.fixture
def partly(own_data: Path, own_store: Path) -> DistillConfig:
    """Of a run that no report speaks of, all is there up to the students."""
    store = ArtifactStore(own_store)
    for kind in ("report", "evaluation", "package", "finetune", "student"):
        for one in store.artifacts(kind):
            store.remove(one.kind, one.key)
    assert "teacher" in freed(store)
    return parse_config(run_config(own_data, own_store))


def test_a_part_of_a_run_is_kept_and_is_no_finished_run(partly: DistillConfig):
    store = ArtifactStore(partly.run.store)
    before = store.records("runs-tiny")
    with run_until(partly, "student") as jobs:
        assert {job.recipe.kind for job in jobs} == {"student"}
        assert not freed(store) & {"teacher", "logits", "features", "vocabulary", "dataset"}
    assert not freed(store) & {"teacher", "logits", "features", "vocabulary", "dataset"}
    assert store.records("runs-tiny") == before


def test_nothing_is_collected_that_tune_still_searches_with(
    partly: DistillConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    store, leases = ArtifactStore(partly.run.store), Path(partly.run.store, ".leases")
    searched: list[bool] = []

    def search(*_: object, **__: object) -> None:
        assert [path.parent for path in leases.glob("run-*/claim.json")]
        searched.append(not list(leases.glob("run-*/ended.json")))
        assert not freed(store) & {"teacher", "logits", "features", "vocabulary", "dataset"}
        raise StorageError("enough of it")

    monkeypatch.setattr(tune_command, "search_settings", search)
    toml = write_toml(tmp_path / "c.toml", run_config(Path(str(partly.data)), Path(store.url)))
    assert main(["tune", str(toml)]) == 1
    assert searched == [True]
