"""What a run has in hand, by its temporary directories, and what it has built, by its log."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

STAGES = (
    "dataset", "corpus", "ngrams", "vocabulary", "features", "teacher", "logits", "baseline",
    "student", "finetune", "package", "evaluation", "report",
)  # fmt: skip
_TEMPORARY = re.compile(r"(?P<stage>[a-z_]+)-(?P<key>[0-9a-f]{32})-.+-(?P<process>\d+)-[0-9a-f]{8}")


class InHand(NamedTuple):
    """An artifact that is being made, or was when its process was killed.

    From an object store it may also be an input that is being fetched.
    """

    path: Path
    stage: str
    key: str
    process: int


def in_hand(directories: Iterable[Path]) -> set[InHand]:
    """What there is in directories of temporary files; those need not exist."""
    found = set()
    for parent in directories:
        for path in parent.iterdir() if parent.is_dir() else ():
            match = _TEMPORARY.fullmatch(path.name)
            if match and match["stage"] in STAGES:
                process = int(match["process"])
                found.add(InHand(path, match["stage"], match["key"], process))
    return found


def built(*logs: Path) -> Counter[str]:
    """How often the logs of runs tell that an artifact, ``kind/key``, was built."""
    found: Counter[str] = Counter()
    for log in logs:
        for line in log.read_bytes().splitlines() if log.exists() else ():
            with suppress(json.JSONDecodeError):  # a kill may leave half a line
                record = json.loads(line)
                found.update([record["artifact"]] if "artifact" in record else [])
    return found


def stop_at_work(
    pid: int,
    directories: Callable[[], Iterable[Path]],
    *,
    ended: Callable[[], bool],
    wanted: Callable[[InHand], bool],
) -> set[InHand]:
    """Stop the group of a process while that has such work in hand; returns the work.

    Args:
        pid: The process, which leads its group.
        directories: Where its temporary files are.
        ended: Whether one waits in vain.
        wanted: Which work.
    """

    def its() -> set[InHand]:
        return {one for one in in_hand(directories()) if one.process == pid and wanted(one)}

    while True:
        assert not ended(), "it ended before it was stopped"
        if its():
            os.killpg(pid, signal.SIGSTOP)
            while "(stopped)" not in Path(f"/proc/{pid}/status").read_text("ascii"):
                time.sleep(0.001)
            if found := its():
                return found
            os.killpg(pid, signal.SIGCONT)
        time.sleep(0.001)
