"""What a finished run puts under its output directory: report, numbers, model and card."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsedistill.model_card import CARD_FILE, model_card
from sparsedistill.model_format import CONFIG_FILE, read_config
from tasks.report import REPORT_FILE, SUMMARY_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from storage import Artifact, ArtifactStore
    from tasks.stage import Outcome

MODEL_DIRECTORY = "model"


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
    """Copy report, numbers and model to ``directory``, and write the model's card.

    A model without its ``config.json`` does not load, so it goes first and comes last: whoever
    loads the model meanwhile, or after a kill, gets all of one model or an error.
    """
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    report = result.artifacts["report"][0]
    delivery = Delivery.below(root)
    _copy(report.path(REPORT_FILE), delivery.report)
    _copy(report.path(SUMMARY_FILE), delivery.summary)
    model = result.artifacts["package"][0]
    delivery.model.mkdir(exist_ok=True)
    config = delivery.model / CONFIG_FILE
    config.unlink(missing_ok=True)
    for old in delivery.model.iterdir():
        if old.is_file() and old.name not in model.names:
            old.unlink()
    summary = result.summary()
    card = model_card(
        read_config(model.path(CONFIG_FILE).parent), summary=summary, name=summary["name"]
    )
    _replace(delivery.model / CARD_FILE, lambda file: file.write_text(card, "utf-8"))
    for name in sorted(model.names, key=CONFIG_FILE.__eq__):
        _copy(model.path(name), delivery.model / name)
    return delivery


def artifacts_of(store: ArtifactStore, outcomes: Sequence[Outcome]) -> list[Artifact]:
    """Return the artifacts that a stage's outcomes speak of."""
    return [store.get(outcome.kind, outcome.key) for outcome in outcomes]


def _copy(source: Path, target: Path) -> None:
    _replace(target, lambda file: shutil.copyfile(source, file))


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    write(temporary)
    temporary.replace(target)
