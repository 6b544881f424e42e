"""Fine-tunes the tiny BERT, and kills itself on the way.

    python tests/helpers/killed_finetuning.py ENCODER DIRECTORY WHERE UPDATE

WHERE is ``update``: as soon as so many updates of the whole grid are done; ``saving``: when the
resume point of the trial's update is written but not sealed; ``look``: after so many looks at dev.
The result is in DIRECTORY/model, what survives a kill in DIRECTORY/scratch.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from helpers.tiny_task import LABELS, texts

from sparsedistill.teacher import trial
from sparsedistill.teacher.checkpoint import resolve_checkpoint
from sparsedistill.teacher.finetune import FineTuning, LabelledTexts, fine_tune
from sparsedistill.teacher.resume import Trial

ROWS = texts(90, seed=4)
OPTIONS = FineTuning(
    epochs=2, batch_sizes=(16,), learning_rates=(5e-3, 1e-3), seeds=(3,), max_length=32,
    warmup=0.1, dropout=0.2,
)  # fmt: skip
UPDATES_A_TRIAL = 8


def tuned(encoder: Path, directory: Path, *, where: str = "", number: int = 0) -> tuple[Trial, ...]:
    """Fine-tune, or be killed on the way."""
    for name in ("scratch", "model"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    looks = []

    def progress(done: int, total: int) -> None:
        assert total == UPDATES_A_TRIAL * 2
        if (where, number) == ("update", done):
            die()

    def measured(label: str, figures: object) -> None:
        looks.append((label, figures))
        if (where, number) == ("look", len(looks)):
            die()

    return fine_tune(
        resolve_checkpoint(str(encoder)),
        train=labelled(ROWS[:60]), dev=labelled(ROWS[60:]), label_names=LABELS, options=OPTIONS,
        output=directory / "model", scratch=directory / "scratch", every_seconds=0.0, threads=1,
        progress=progress, measured=measured,
    )  # fmt: skip


def labelled(rows: list[tuple[str, str]]) -> LabelledTexts:
    """Texts and label indices."""
    return LabelledTexts([text for text, _ in rows], [LABELS.index(label) for _, label in rows])


def die() -> NoReturn:
    """As if the machine had gone."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process does not go on")


if __name__ == "__main__":
    encoder, directory, where, number = sys.argv[1:]
    if where == "saving":
        seal = trial.seal

        def seal_or_die(path: Path, **facts: object) -> None:
            if path.name == f"checkpoint-{number}":
                die()
            seal(path, **facts)

        trial.seal = seal_or_die
    tuned(Path(encoder), Path(directory), where=where, number=int(number))
