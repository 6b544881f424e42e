"""Where models are put: the current one into ``out``, any other into ``out/candidate``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from flows.current import current, history
from flows.delivery import Delivery, deliver_model, is_delivered
from storage import ArtifactStore

if TYPE_CHECKING:
    from flows.config import DistillConfig
    from flows.delivery import RunResult

CANDIDATE_DIRECTORY = "candidate"


def candidate(out: str | Path) -> str:
    """Return where the results of a run go until they are promoted."""
    return str(Path(out) / CANDIDATE_DIRECTORY)


def place(result: RunResult, config: DistillConfig, out: str | Path) -> str:
    """Return where a run that decides nothing delivers to.

    That is ``out``; but where the run's name has a current model, and this is another one, it goes
    to ``candidate(out)``, so that only a promotion changes the model that is in use.
    """
    there = current(history(ArtifactStore(config.run.store), config.name))
    made = result.artifacts["package"][0]
    same = there is None or there.model.package.key == made.key
    return str(out) if same else candidate(out)


def deliver_current(store: ArtifactStore, name: str, out: str | Path) -> Delivery:
    """Put the current model of a name into its place, unless it is there.

    It is asked again afterwards which one that is: somebody may have decided meanwhile, and whoever
    delivers last must deliver what was decided last.
    """
    decided = None
    while (there := current(history(store, name))) is not None and there.number != decided:
        decided, references = there.number, there.model.references
        package = store.get(references["package"].kind, references["package"].key)
        if not is_delivered(package, out):
            report = store.get(references["report"].kind, references["report"].key)
            deliver_model(report, package, out)
    return Delivery.below(out)


def promotion_command(config: DistillConfig, out: str | Path) -> str:
    """Return what makes the model of the last run the current one, and puts it into ``out``."""
    command = ["sparsedistill", "promote", config.name]
    if config.run.store != type(config.run).model_fields["store"].default:
        command += ["--store", config.run.store]
    return shlex.join([*command, "--out", str(out)])
