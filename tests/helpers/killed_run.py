"""The command line, which kills itself in the middle of a stage.

    python tests/helpers/killed_run.py STAGE ARGUMENT...

SIGKILL comes from inside so that it always strikes at the same place: in the second job of a stage
that has several, when the job is half done, or as it is about to write its file where a stage does
not tell how far it is. Students put down a checkpoint after every update.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import NoReturn

from flows.cli import main
from storage import ArtifactWriter
from tasks import stage as stages
from tasks import student
from tasks.progress import advance

SILENT = {"features"}
SEVERAL = {"features", "logits"}


def die() -> NoReturn:
    """As if the machine had gone."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process does not go on")


def kill_in(stage: str) -> None:
    """Have this process killed in the middle of a stage."""
    seen: list[str] = []
    last = 2 if stage in SEVERAL else 1

    def strikes(kind: str, key: str) -> bool:
        if kind == stage and key not in seen:
            seen.append(key)
        return kind == stage and len(seen) == last

    def advance_or_die(kind: str, key: str, share: float) -> None:
        advance(kind, key, share)
        if strikes(kind, key) and share >= 0.5:
            die()

    path = ArtifactWriter.path

    def path_or_die(writer: ArtifactWriter, name: str):
        target = path(writer, name)
        target.write_bytes(b"half of a file")
        if strikes(writer._recipe.kind, writer._recipe.key):
            die()
        target.unlink()
        return target

    student.Checkpointing = partial(student.Checkpointing, every_seconds=0.0)
    if stage in SILENT:
        ArtifactWriter.path = path_or_die
    else:
        stages.advance = advance_or_die


if __name__ == "__main__":
    kill_in(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
