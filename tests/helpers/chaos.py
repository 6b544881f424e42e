"""Kills runs at random moments until they are done, and tells what that did to their store.

The moment is drawn from a seed: when some artifacts more are there than at the start of the try, or
when a stage is begun in which few kills have struck, and then a while, from well below a
millisecond to most of a second. Tries that get nowhere are given more time, so the run is done in
the end, whatever the machine.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_SHORTEST, _LONGEST = 0.0005, 0.8
_PATIENCE = 120.0
_AIMED = 0.4
AHEAD = (0, 0, 1, 1, 2)
REACH = 4

STAGES = (
    "dataset", "corpus", "ngrams", "vocabulary", "features", "teacher", "logits", "baseline",
    "student", "finetune", "package", "evaluation", "report",
)  # fmt: skip


class Forks:
    """Starts runs of the command line by forks of one process; see ``forked_runs``.

    Args:
        log: What the runs say is added to this file.
        environment: Of all of them, beside this process's.
        imports: Modules to have beside those of a run without Prefect.
    """

    def __init__(
        self, log: Path, environment: Mapping[str, str] | None = None, imports: Sequence[str] = ()
    ) -> None:
        self.log = log
        here = {
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
            "OMP_NUM_THREADS": "1",
            "ALSO_IMPORT": " ".join(imports),
        }
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "helpers" / "forked_runs.py")],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT,
                env={**os.environ, **here, **(environment or {})},
            )  # fmt: skip
        self._ready = False

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def start(self, arguments: Sequence[str]) -> int:
        """Start a run; returns its process, which is also its group."""
        if not self._ready:
            self._ready = bool(self._answer()["ready"])
        assert self._process.stdin is not None
        line = json.dumps({"arguments": list(arguments), "log": str(self.log)})
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return int(self._answer()["pid"])

    def wait(self) -> int:
        """Wait until the run has ended; returns its status, negative for a signal."""
        return int(self._answer()["status"])

    def ended(self) -> bool:
        """Whether the run has ended."""
        import select

        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def run(self, *arguments: str) -> int:
        """Start a run and wait for it."""
        self.start(arguments)
        return self.wait()

    def said(self) -> str:
        """The end of what was said."""
        return self.log.read_text("utf-8", errors="replace")[-4000:]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"no answer: {self.said()}"
        return json.loads(line)


@dataclass
class Story:
    """What happened to a run until it was done.

    Attributes:
        kills: How many struck each stage; several may have been in hand.
        killed: How many there were.
        tries: How many times it was started.
        remade: Finished artifacts that did not stay as they were.
        seconds: All tries together.
    """

    kills: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    tries: int = 0
    remade: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Story) -> None:
        """Have another run's story in this one."""
        self.kills.update(other.kills)
        self.killed += other.killed
        self.tries += other.tries
        self.remade += other.remade
        self.seconds += other.seconds


@dataclass(frozen=True)
class Place:
    """Where artifacts are, as the tests look at them behind the store's back.

    Attributes:
        manifests: Content, and time or tag, of every manifest by path.
        temporary: Directories of what is being written, on this machine.
    """

    manifests: Callable[[], Mapping[str, tuple[bytes, object]]]
    temporary: Callable[[], Sequence[Path]]
    count: Callable[[], int]


def local_place(store: Path) -> Place:
    """A store on this machine's disk."""

    def manifests() -> dict[str, tuple[bytes, object]]:
        return {
            str(path.relative_to(store)): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in store.glob("[a-z]*/*/manifest.json")
        }

    return Place(
        manifests,
        lambda: [store / ".tmp"],
        lambda: sum(1 for _ in store.glob("[a-z]*/*/manifest.json")),
    )


Victim = Callable[[int, random.Random], bool]
"""Kills something of the run that a process leads; False where there was nothing to kill."""


def everything(pid: int, chance: random.Random) -> bool:
    """Kill the run with all its workers."""
    with _gone_is_fine():
        os.killpg(pid, signal.SIGKILL)
    return True


def one_worker(pid: int, chance: random.Random) -> bool:
    """Kill one of the run's worker processes."""
    found = workers(pid)
    if not found:
        return False
    with _gone_is_fine():
        os.kill(chance.choice(found), signal.SIGKILL)
    return True


def workers(pid: int) -> list[int]:
    """Processes of a run that multiprocessing has made: a pool's workers, or a Dask cluster's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != pid:
            with _gone_is_fine():
                command = (entry / "cmdline").read_bytes()
                if os.getpgid(int(entry.name)) == pid and b"multiprocessing.spawn" in command:
                    found.append(int(entry.name))
    return sorted(found)


def kill_until_done(
    forks: Forks,
    arguments: Sequence[str],
    place: Place,
    *,
    chance: random.Random,
    most: int,
    victim: Victim = everything,
    ahead: Sequence[int] = AHEAD,
    reach: int = REACH,
    struck: Mapping[str, int] | None = None,
) -> Story:
    """Run, kill, and run again until it is done.

    Args:
        forks: Starts the runs.
        arguments: Of the command line.
        place: The run's store.
        chance: Draws the moments.
        most: Kills; then it is left alone.
        victim: What is killed.
        ahead: Artifacts to wait for before a kill are drawn from these.
        reach: So many of the next stages may be aimed at.
        struck: Kills of other runs, by stage: where there were few is where to aim.
    """
    story, stretch, began = Story(), 1.0, time.monotonic()
    others = Counter(struck)
    before = place.manifests()
    while True:
        story.tries += 1
        pid = forks.start(arguments)
        if story.killed < most:
            longest = stretch * _LONGEST
            aim = None
            if chance.random() < _AIMED:
                aim = _rarest(story.kills + others, before, reach)
            if aim is not None:
                _wait(forks, lambda aim=aim: aim in _in_hand(place))
                longest /= 10
            else:
                wanted = place.count() + chance.choice(ahead)
                _wait(forks, lambda wanted=wanted: place.count() >= wanted)
            _sleep(forks, math.exp(chance.uniform(math.log(_SHORTEST), math.log(longest))))
            if not forks.ended() and victim(pid, chance):
                story.kills.update(_in_hand(place) or ["between stages"])
                story.killed += 1
        status = forks.wait()
        with _gone_is_fine():
            os.killpg(pid, signal.SIGKILL)  # what a worker's death has left of its run
        after = place.manifests()
        story.remade += [name for name in before if after.get(name) != before[name]]
        stretch = 1.0 if len(after) > len(before) else stretch * 1.5
        before = after
        if status == 0:
            story.seconds = time.monotonic() - began
            return story
        assert status == -signal.SIGKILL or victim is not everything, (status, forks.said())
        assert story.tries < 20 * most + 20, forks.said()


def _wait(forks: Forks, until: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not until() and not forks.ended() and time.monotonic() < end:
        time.sleep(0.001)


def _sleep(forks: Forks, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not forks.ended():
        time.sleep(min(left, 0.02))


def _in_hand(place: Place) -> set[str]:
    """The stages that are being made, by their temporary directories."""
    return {
        path.name.partition("-")[0]
        for parent in place.temporary()
        if parent.is_dir()
        for path in parent.iterdir()
    }


def _rarest(kills: Counter[str], manifests: Mapping[str, object], reach: int) -> str | None:
    """Of the next stages that are not begun, the one in which a kill has struck least."""
    begun = {name.split("/")[-3] for name in manifests}
    coming = [stage for stage in STAGES if stage not in begun][:reach]
    return min(coming, key=lambda stage: kills[stage], default=None)


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return
