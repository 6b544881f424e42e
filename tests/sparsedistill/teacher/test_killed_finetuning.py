"""Fine-tuning that is killed, and called again: the same bytes as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.killed_finetuning import UPDATES_A_TRIAL, tuned

from sparsedistill.teacher import finetune
from sparsedistill.teacher.resume import SEAL, Records, Trial, TrialFiles, opened, seal

ROOT = Path(__file__).parents[3]
LATE = UPDATES_A_TRIAL - 1
IN_THE_SECOND = UPDATES_A_TRIAL + 7

Undisturbed = tuple[dict[str, str], tuple[Trial, ...]]
Stopped = Callable[[str, int], Path]


def killed(encoder: Path, directory: Path, where: str, number: int) -> None:
    program = [sys.executable, str(ROOT / "tests" / "helpers" / "killed_finetuning.py")]
    ended = subprocess.run(
        [*program, str(encoder), str(directory), where, str(number)],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def digests(directory: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in directory.iterdir()}


def without_times(trials: tuple[Trial, ...]) -> list[tuple[object, ...]]:
    return [(t.learning_rate, t.seed, t.dev_accuracy, t.best_epoch) for t in trials]


@pytest.fixture(scope="module")
def undisturbed(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    directory = tmp_path_factory.mktemp("undisturbed")
    trials = tuned(tiny_encoder, directory)
    return digests(directory / "model"), trials


@pytest.fixture(scope="module")
def stopped(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """Gives what a kill left; the same place is struck once."""
    left: dict[tuple[str, int], Path] = {}

    def strike(where: str, number: int) -> Path:
        if (where, number) not in left:
            left[where, number] = tmp_path_factory.mktemp("killed")
            killed(tiny_encoder, left[where, number], where, number)
        return Path(shutil.copytree(left[where, number], tmp_path_factory.mktemp("copy") / "run"))

    return strike


@pytest.mark.parametrize(
    ("where", "number"),
    [
        pytest.param("update", LATE, marks=pytest.mark.slow),
        ("update", IN_THE_SECOND),
        pytest.param("update", 3, marks=pytest.mark.slow),
        pytest.param("update", UPDATES_A_TRIAL // 2, marks=pytest.mark.slow),
        ("saving", 6),
        pytest.param("look", 2, marks=pytest.mark.slow),
    ],
)
def test_a_killed_fine_tuning_goes_on_to_the_same_bytes(
    where: str, number: int, stopped: Stopped, undisturbed: Undisturbed, tiny_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = stopped(where, number)
    assert list((run / "model").iterdir()) == []
    torch.manual_seed(99)  # whatever state the new process begins with
    begun, fresh = [], finetune._fresh_model

    def counted(*arguments: Any, **settings: Any) -> Any:
        begun.append(settings)
        return fresh(*arguments, **settings)

    monkeypatch.setattr(finetune, "_fresh_model", counted)
    trials = tuned(tiny_encoder, run)
    assert digests(run / "model") == undisturbed[0]
    assert without_times(trials) == without_times(undisturbed[1])
    assert len(begun) == (1 if number > UPDATES_A_TRIAL else 2)  # a finished trial stays finished


@pytest.mark.slow
def test_after_two_kills_it_is_still_the_same_bytes(
    stopped: Stopped, undisturbed: Undisturbed, tiny_encoder: Path
) -> None:
    run = stopped("update", 3)
    killed(tiny_encoder, run, "update", LATE)
    tuned(tiny_encoder, run)
    assert digests(run / "model") == undisturbed[0]


@pytest.mark.parametrize("spoiled", ["model.safetensors", "optimizer.pt", "rng_state.pth", SEAL])
def test_a_spoiled_resume_point_is_passed_over_for_the_one_before(
    spoiled: str, stopped: Stopped, undisturbed: Undisturbed, tiny_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = stopped("update", LATE)
    points = sorted((run / "scratch" / "trial-000").glob("checkpoint-*"))
    assert [point.name for point in points] == ["checkpoint-5", "checkpoint-6"]
    (points[-1] / spoiled).write_bytes(b"half of a file")
    taken, last = [], TrialFiles.last_checkpoint

    def last_checkpoint(self: TrialFiles, *, first_look: int) -> tuple[Path, float] | None:
        taken.append(last(self, first_look=first_look))
        return taken[-1]

    monkeypatch.setattr(TrialFiles, "last_checkpoint", last_checkpoint)
    tuned(tiny_encoder, run)
    assert taken[0] is not None
    assert taken[0][0].name == "checkpoint-5"
    assert digests(run / "model") == undisturbed[0]


def test_a_lost_best_model_begins_its_trial_anew(
    stopped: Stopped, undisturbed: Undisturbed, tiny_encoder: Path
) -> None:
    run = stopped("update", LATE)
    (best,) = (run / "scratch" / "trial-000").glob("best-*")
    (best / "model.safetensors").write_bytes(b"")
    tuned(tiny_encoder, run)
    assert digests(run / "model") == undisturbed[0]


def test_where_the_model_of_the_best_trial_is_lost_the_grid_is_run_again(
    stopped: Stopped, undisturbed: Undisturbed, tiny_encoder: Path
) -> None:
    run = stopped("update", IN_THE_SECOND)
    shutil.rmtree(next((run / "scratch" / "trial-000").glob("best-*")))
    trials = tuned(tiny_encoder, run)
    assert without_times(trials) == without_times(undisturbed[1])
    assert digests(run / "model") == undisturbed[0]


def test_loading_a_resume_point_runs_nothing_of_it(
    stopped: Stopped, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer saves its state with pickles inside; it must load tensors and numbers only."""
    loaded, load = [], torch.load

    def watched(path: Any, *arguments: Any, **settings: Any) -> Any:
        loaded.append((Path(path).name, settings.get("weights_only")))
        return load(path, *arguments, **settings)

    monkeypatch.setattr(torch, "load", watched)
    tuned(tiny_encoder, stopped("update", LATE))
    assert {name for name, _ in loaded} >= {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert all(weights_only is True for _, weights_only in loaded)


def test_what_is_left_on_disk_is_bounded(stopped: Stopped, tiny_encoder: Path) -> None:
    run = stopped("update", IN_THE_SECOND)
    scratch = run / "scratch"
    (best,) = (scratch / "trial-000").iterdir()
    assert best.name in ("best-4", "best-8")
    kinds = sorted(path.name.partition("-")[0] for path in (scratch / "trial-001").iterdir())
    assert kinds == ["best", "checkpoint", "checkpoint"]
    tuned(tiny_encoder, run)
    assert len(list(scratch.glob("trial-*/*"))) == 1  # the best model of the best trial


def test_a_seal_holds_as_long_as_nothing_changes(tmp_path: Path) -> None:
    directory = tmp_path / "point"
    (directory / "deep").mkdir(parents=True)
    (directory / "deep" / "file").write_bytes(b"content")
    assert opened(directory) is None
    seal(directory, seconds=2.5)
    facts = opened(directory)
    assert facts is not None
    assert facts["seconds"] == 2.5
    (directory / "more").write_bytes(b"")
    assert opened(directory) is None
    (directory / "more").unlink()
    (directory / "deep" / "file").write_bytes(b"contenT")
    assert opened(directory) is None


def test_a_record_that_cannot_be_read_is_a_trial_not_done(tmp_path: Path) -> None:
    (tmp_path / "trial-000.json").write_text("{")
    (tmp_path / "trial-001.json").write_text('{"other": 1}')
    assert Records(tmp_path).done() == {}
    assert list(tmp_path.glob("*.json")) == []
