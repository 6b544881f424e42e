"""A run whose disk is full in one stage after the other, each time until room is made.

    unshare -Urm python tests/helpers/full_disk.py CONFIG MOUNT REFERENCE STAGE...

MOUNT, an empty directory, becomes a small disk of this process's own, which holds the store of the
configuration. As a stage begins, a ballast file takes up all of it but a few pages: fewer than the
stage's artifacts of the REFERENCE store have. One JSON document a stage tells what happened.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.cli import _is_ours
from flows.config import load_config
from flows.inline import run_inline
from storage import ArtifactStore
from tasks.progress import listening

SIZE = 48 << 20
_PAGE = 4096


class Full(Exception):
    """The run ended in the stage in which the disk was full."""


class Filler:
    """Hears which stage begins, and fills the disk in the one that is wanted."""

    def __init__(self, disk: Path, stage: str, room: int) -> None:
        self.struck = False
        self._ballast = disk / "ballast"
        self._stage = stage
        self._room = room

    def expect(self, stage: str, keys: list[str]) -> None:
        """Fill the disk as the stage begins."""
        if stage == self._stage:
            self.struck = True
            free = os.statvfs(self._ballast.parent)
            size = free.f_bavail * free.f_frsize - self._room
            self._ballast.touch()
            with self._ballast.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))

    def make_room(self) -> None:
        """Have the disk as it was."""
        self._ballast.unlink(missing_ok=True)

    def advance(self, stage: str, key: str, share: float) -> None:
        """Nothing."""

    def measured(self, *_: Any) -> None:
        """Nothing."""

    def finish(self, stage: str, key: str, *, cached: bool) -> None:
        """Nothing."""


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[Path]:
    """Mount a disk of that many bytes, seen by this process alone."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True
    )  # fmt: skip
    yield directory


def pages_of(store: Path, stage: str) -> int:
    """Pages that the artifacts of a stage take up."""
    kinds = [stage, "corpus_shard"] if stage == "corpus" else [stage]
    files = [path for kind in kinds for path in (store / kind).rglob("*") if path.is_file()]
    return sum(-(-path.stat().st_size // _PAGE) for path in files)


def main(config_file: str, mount: str, reference: str, *stages: str) -> None:
    """Go through the stages."""
    chance = random.Random(0)
    config = load_config(config_file)
    with small_disk(Path(mount), SIZE) as disk:
        store = ArtifactStore(config.run.store)
        for stage in stages:
            most = pages_of(Path(reference), stage)
            for pages in (0, chance.randrange(1, max(most // 2, 2))):
                before = {(m.kind, m.key) for m in store.artifacts()}
                filler = Filler(disk, stage, pages * _PAGE)
                error: BaseException | None = None
                with listening(filler):
                    try:
                        run_inline(config)
                    except Exception as caught:
                        error = caught
                if error is not None:
                    sys.stderr.write(f"{stage} with {pages} pages:\n")
                    traceback.print_exception(error)
                made = {m.kind for m in store.artifacts() if (m.kind, m.key) not in before}
                answer = {
                    "stage": stage,
                    "pages": pages,
                    "needed": most,
                    "struck": filler.struck,
                    "error": None if error is None else f"{type(error).__name__}: {error}",
                    "ours": error is None or _is_ours(error),
                    "made": sorted(made),
                    "damaged": [one.problems for one in store.verify() if not one.ok],
                    "temporary": [p.name for p in (disk / "store" / ".tmp").glob("*")],
                }
                filler.make_room()
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
        result = run_inline(config)
        files = {
            f"{m.kind}/{m.key}/{file.name}": file.sha256
            for m in store.artifacts()
            for file in m.files
        }
        sound = all(one.ok for one in store.verify())
        kinds = {kind: len(some) for kind, some in result.artifacts.items()}
        sys.stdout.write(json.dumps({"files": files, "sound": sound, "kinds": kinds}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
