"""Which model is current: decisions, their order, going back, and several people at once."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_task import run_config, write_toml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import current as decisions
from flows import garbage
from flows.cli import main
from flows.config import parse_config
from flows.current import Decision, DecisionError, Model
from flows.delivery import RunResult, is_delivered
from flows.inline import run_inline
from sparsedistill.classifier import Classifier
from storage import Artifact, ArtifactStore, Input, StorageError


def model(name: int) -> Model:
    reference = Input("package", f"{name:032x}", f"{name:064x}")
    roles = ("package", "report", "evaluation", "student", "vocabulary", "train")
    return Model(dict.fromkeys(roles, reference), ("a", "b"), 8, 0.9)


def log(*verdicts: str) -> list[Decision]:
    """Decisions written as ``+`` (promoted), ``-`` (kept) or the number that is gone back to."""
    found = []
    for number, verdict in enumerate(verdicts, start=1):
        to = int(verdict) if verdict.isdigit() else None
        name = "promoted" if verdict == "+" else "kept" if verdict == "-" else "rolled_back"
        one = model(to or number)
        found.append(Decision(number, "", name, one, "", to=to))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("verdicts", "current", "before"),
    [
        ("", None, None),
        ("-", None, None),
        ("+", 1, None),
        ("+-", 1, None),
        ("++", 2, 1),
        ("++1", 1, None),
        ("+++2", 2, 1),
        ("+++21", 1, None),
        ("+++2+", 5, 2),
        ("++12", 2, 1),  # back, and forth again
        ("+-+-1", 1, None),
        ("+++1-3", 3, 1),
    ],
)
def test_the_current_model_is_the_last_one_promoted_or_gone_back_to(
    verdicts: str, current: int | None, before: int | None
):
    found = log(*verdicts)
    number = decisions.current(found)
    assert (number.number if number else None) == current
    earlier = decisions.before_current(found)
    assert (earlier.number if earlier else None) == before


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_going_back_ends_at_the_first_model_and_never_at_one_twice(data: st.DataObject):
    verdicts: list[str] = []
    for number in range(data.draw(st.integers(1, 12))):
        promoted = [str(i + 1) for i, verdict in enumerate(verdicts) if verdict == "+"]
        verdicts.append(data.draw(st.sampled_from(["+", "-", *promoted])) if number else "+")
    seen = []
    while (there := decisions.current(log(*verdicts))) is not None:
        seen.append(there.number)
        before = decisions.before_current(log(*verdicts))
        if before is None:
            break
        verdicts.append(str(before.number))
    assert len(set(seen)) == len(seen)
    assert all(verdicts[number - 1] == "+" for number in seen)


def decide(store: ArtifactStore, *, after: int, **changes: Any) -> Decision | None:
    return decisions.decide(
        store, "x", "promoted", model(after + 1), after=after, why="", **changes
    )


def test_a_decision_comes_back_as_it_was_made(tmp_path: Path):
    store = ArtifactStore(tmp_path)
    compared = {"margin": 0.005, "splits": {"dev": {"new_accuracy": 0.75}}}
    made = decide(store, after=0, fingerprint={"corpus": "f"}, compared=compared, by_hand=True)
    assert decisions.history(store, "x") == [made]
    assert decisions.history(store, "y") == []


def test_of_several_deciders_at_once_one_decides(tmp_path: Path):
    store = ArtifactStore(tmp_path)
    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(lambda _: decide(store, after=0), range(6)))
    assert sum(one is not None for one in made) == 1
    assert len(decisions.history(store, "x")) == 1


def test_what_is_no_decision_is_named(tmp_path: Path):
    store = ArtifactStore(tmp_path)
    store.add_record("current-x", {"verdict": "promoted"}, after=0)
    with pytest.raises(DecisionError, match="record 1 of current-x is no decision"):
        decisions.history(store, "x")


@dataclass(frozen=True)
class Two:
    """A store with two finished runs of one name; the second one is newer."""

    store: ArtifactStore
    reports: tuple[str, str]
    packages: tuple[str, str]

    def package(self, which: int) -> Artifact:
        return self.store.get("package", self.packages[which])


@pytest.fixture(scope="module")
def made(
    tiny_data: Path, tiny_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunResult, RunResult]:
    """Read only."""
    store = Path(shutil.copytree(tiny_store, tmp_path_factory.mktemp("two") / "store"))
    first = run_inline(parse_config(run_config(tiny_data, store)))
    other = run_config(tiny_data, store, package={"dtype": "int8"})
    return store, first, run_inline(parse_config(other))


@pytest.fixture
def two(made: tuple[Path, RunResult, RunResult], tmp_path: Path) -> Two:
    store, *results = made
    copy = ArtifactStore(shutil.copytree(store, tmp_path / "store"))
    reports, packages = (
        tuple(result.artifacts[kind][0].key for result in results) for kind in ("report", "package")
    )
    return Two(copy, reports, packages)  # type: ignore[arg-type]


def test_models_are_promoted_by_hand_and_taken_back(two: Two):
    store = two.store
    with pytest.raises(DecisionError, match="no current model"):
        decisions.rollback(store, "tiny")
    made = decisions.promote(store, "tiny", report=two.reports[0][:10])
    assert made.by_hand
    assert made.model.package.key == two.packages[0]
    assert made.model.references["student"].kind == "student"
    assert made.model.labels == ("garden", "kitchen", "railway")
    with pytest.raises(DecisionError, match="no model of tiny before"):
        decisions.rollback(store, "tiny")
    with pytest.raises(DecisionError, match="current model of tiny already"):
        decisions.promote(store, "tiny", report=two.reports[0])
    decisions.promote(store, "tiny", report=two.reports[1])
    back = decisions.rollback(store, "tiny")
    assert back.model.package.key == two.packages[0]
    forth = decisions.rollback(store, "tiny", to=2)
    assert forth.model.package.key == two.packages[1]
    with pytest.raises(DecisionError, match="decision 2 is the current one already"):
        decisions.rollback(store, "tiny", to=2)
    with pytest.raises(DecisionError, match=r"these did: \[1, 2\]"):
        decisions.rollback(store, "tiny", to=3)
    with pytest.raises(DecisionError, match="no finished run of other"):
        decisions.promote(store, "other")
    with pytest.raises(DecisionError, match="is of tiny, not of other"):
        decisions.promote(store, "other", report=two.reports[0])


def test_a_model_that_is_gone_is_not_gone_back_to(two: Two):
    for report in two.reports:
        decisions.promote(two.store, "tiny", report=report)
    two.store.remove("package", two.packages[0])
    with pytest.raises(StorageError, match=two.packages[0]):
        decisions.rollback(two.store, "tiny")
    assert len(decisions.history(two.store, "tiny")) == 2


def test_a_model_that_is_being_collected_does_not_become_the_current_one(
    two: Two, monkeypatch: pytest.MonkeyPatch
):
    """The collection knows the decisions already when somebody promotes what it removes."""
    store, leases = two.store, Path(two.store.url, ".leases")
    decided: list[Decision] = []

    def promote() -> None:
        with suppress(StorageError):
            decided.append(decisions.promote(store, "tiny", report=two.reports[0]))

    person, last_runs = threading.Thread(target=promote), garbage.finished_runs

    def meanwhile(*given: Any) -> Any:
        person.start()
        while person.is_alive() and not list(leases.glob("run-*/names-*.json")):
            time.sleep(0.01)
        return last_runs(*given)

    monkeypatch.setattr(garbage, "finished_runs", meanwhile)
    store.collect(garbage.rules(store, keep_runs=1), delete=True, older_than=0.0)
    person.join()
    assert two.packages[0] not in {one.key for one in store.artifacts("package")}
    assert decided == decisions.history(store, "tiny") == []


def test_the_commands_show_move_and_deliver_the_current_model(
    two: Two, own_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    url = two.store.url
    config = write_toml(tmp_path / "tiny.toml", run_config(own_data, Path(url)))
    out = tmp_path / "out"
    assert main(["current", str(config)]) == 1
    assert "no current model" in (said := capsys.readouterr().out)
    assert "`sparsedistill redistill` makes one" in said
    assert main(["promote", str(config), "--report", two.reports[0], "--out", str(out)]) == 0
    assert is_delivered(two.package(0), out)
    assert main(["promote", "tiny", "--store", url, "--report", two.reports[1]]) == 0
    assert is_delivered(two.package(0), out)
    assert main(["rollback", "tiny", "--to", "1", "--store", url]) == 0
    assert main(["rollback", "tiny", "--to", "2", "--store", url, "--out", str(out)]) == 0
    assert is_delivered(two.package(1), out)
    assert Classifier.load(out / "model", verify=True).classes_ == ("garden", "kitchen", "railway")
    capsys.readouterr()
    assert main(["current", "tiny", "--store", url]) == 0
    shown = capsys.readouterr().out
    assert f"current  package/{two.packages[1]}" in shown
    assert "rolled back" in shown
    (marked,) = [line for line in shown.splitlines() if line.startswith("→")]
    assert "rolled back" in marked
    assert marked.startswith("→ 4")
    assert main(["rollback", "tiny", "--store", str(tmp_path / "none")]) == 1
    assert "there is no store" in capsys.readouterr().err
