"""What a finished run puts under its output directory: report, numbers, model and card."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsedistill.model_card import CARD_FILE, model_card
from sparsedistill.model_format import CONFIG_FILE, read_config
from tasks.report_file import REPORT_FILE, SUMMARY_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from storage import Artifact, ArtifactStore
    from tasks.stage import Outcome

MODEL_DIRECTORY = "model"
_UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the results of a run are."""

    report: Path
    summary: Path
    model: Path

    @classmethod
    def below(cls, directory: str | Path) -> Delivery:
        """Return where a run that delivers to ``directory`` puts its results."""
        root = Path(directory)
        return cls(root / REPORT_FILE, root / SUMMARY_FILE, root / MODEL_DIRECTORY)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run made, and what it found made.

    Attributes:
        artifacts: By stage.
        outcomes: By stage, in the same order.
    """

    artifacts: Mapping[str, Sequence[Artifact]]
    outcomes: Mapping[str, Sequence[Outcome]]

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the report."""
        summary: dict[str, Any] = self.artifacts["report"][0].read_json(SUMMARY_FILE)
        return summary

    def computed(self) -> int:
        """Return how many artifacts were not there before."""
        return sum(not outcome.cached for some in self.outcomes.values() for outcome in some)


def deliver(result: RunResult, directory: str | Path) -> Delivery:
    """Copy a run's report, numbers and model to ``directory``, and write the model's card."""
    return deliver_model(result.artifacts["report"][0], result.artifacts["package"][0], directory)


def deliver_model(report: Artifact, package: Artifact, directory: str | Path) -> Delivery:
    """Copy a report, its numbers and a model to ``directory``, and write the model's card.

    A model without its ``config.json`` does not load, so it goes first and comes last: whoever
    loads the model meanwhile, or after a kill, gets all of one model or an error. All is copied
    before that, so that it takes no longer than a few renames. What has the model loaded keeps it.
    """
    delivery = Delivery.below(directory)
    delivery.model.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = report.read_json(SUMMARY_FILE)
    config = read_config(package.path(CONFIG_FILE).parent)
    card = model_card(config, summary=summary, name=summary["name"])
    with _alone(Path(directory)):
        _tidy(delivery)
        for name in (REPORT_FILE, SUMMARY_FILE):
            shutil.copyfile(report.path(name), _beside(Path(directory) / name))
        for name in package.names:
            shutil.copyfile(package.path(name), _beside(delivery.model / name))
        _beside(delivery.model / CARD_FILE).write_text(card, "utf-8")
        for path in (delivery.report, delivery.summary):
            _beside(path).replace(path)
        (delivery.model / CONFIG_FILE).unlink(missing_ok=True)
        for old in delivery.model.iterdir():
            if old.is_file() and not old.name.endswith(_UNFINISHED):
                old.unlink()
        for name in (CARD_FILE, *sorted(package.names, key=CONFIG_FILE.__eq__)):
            _beside(delivery.model / name).replace(delivery.model / name)
    return delivery


def is_delivered(package: Artifact, directory: str | Path) -> bool:
    """Return whether ``directory`` has this model, whole, with its card, report and numbers.

    Files are told by their sizes, and the configuration, which has the checksums of the others, by
    its bytes: to look costs the same whatever the size of the model.
    """
    delivery = Delivery.below(directory)
    if not all(
        p.is_file() for p in (delivery.report, delivery.summary, delivery.model / CARD_FILE)
    ):
        return False
    for file in package.manifest.files:
        there = delivery.model / file.name
        if not there.is_file() or there.stat().st_size != file.bytes:
            return False
    config = delivery.model / CONFIG_FILE
    return config.read_bytes() == package.path(CONFIG_FILE).read_bytes()


def artifacts_of(store: ArtifactStore, outcomes: Sequence[Outcome]) -> list[Artifact]:
    """Return the artifacts that a stage's outcomes speak of."""
    return store.get_all([(outcome.kind, outcome.key) for outcome in outcomes])


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Wait until nobody else delivers there; the system ends the claim of who is killed."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}{_UNFINISHED}")


def _tidy(delivery: Delivery) -> None:
    """Remove what a killed delivery left."""
    for directory in (delivery.report.parent, delivery.model):
        for left in directory.glob(f".*{_UNFINISHED}"):
            left.unlink()
