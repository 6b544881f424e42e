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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.in_hand import STAGES, InHand, built, in_hand

ROOT = Path(__file__).parents[2]
_SHORTEST, _LONGEST = 0.0005, 0.8
_PATIENCE = 120.0
_AIMED = 0.4
AHEAD = (0, 0, 1, 1, 2)
REACH = 4


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
        remade: Finished artifacts that did not stay as they were, or that the log of a run tells to
            have been built though they were there, or twice.
        untold: Artifacts of runs that nothing struck of whose building their log has no word.
        seconds: All tries together.
    """

    kills: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    tries: int = 0
    remade: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def note(
        self,
        before: Mapping[str, object],
        after: Mapping[str, object],
        told: Counter[str],
        lost: set[InHand] | None,
    ) -> None:
        """Learn from the manifests before and after a try, its log, and what a kill found in hand.

        Args:
            before: Content of the manifests by path.
            after: Likewise.
            told: How often the log tells that an artifact was built.
            lost: None where nothing was killed.
        """
        new = Counter(_names(after) - _names(before))
        self.remade += [name for name in before if after.get(name) != before[name]]
        self.remade += [f"{name} in try {self.tries}" for name in told - new]
        if lost is None:
            self.untold += [name for name in new - told if name.partition("/")[0] in STAGES]
            return
        self.kills.update(_stages(lost) or ["between stages"])
        self.killed += 1

    def add(self, other: Story) -> None:
        """Have another run's story in this one."""
        self.kills.update(other.kills)
        self.killed += other.killed
        self.tries += other.tries
        self.remade += other.remade
        self.untold += other.untold
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


Victim = Callable[[int, set[int], random.Random], int | None]
"""Kills something of the run that a process leads, of which some are at work.

Returns the process that was killed, the leader where it was all of the run, and None where there
was nothing to kill.
"""


def everything(pid: int, at_work: set[int], chance: random.Random) -> int | None:
    """Kill the run with all its workers."""
    with _gone_is_fine():
        os.killpg(pid, signal.SIGKILL)
        return pid
    return None


def one_worker(pid: int, at_work: set[int], chance: random.Random) -> int | None:
    """Kill one of the run's worker processes, of those at work where there are any."""
    found = workers(pid)
    with _gone_is_fine():
        if found:
            worker = chance.choice([one for one in found if one in at_work] or found)
            os.kill(worker, signal.SIGKILL)
            return worker
    return None


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
    logs: Path,
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
        logs: A directory of its own; each try writes a log there.
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
    logs.mkdir(parents=True)
    while True:
        story.tries += 1
        log, old, lost = logs / f"{story.tries}.jsonl", in_hand(place.temporary()), None
        pid = forks.start([*arguments, "--log", str(log)])
        if story.killed < most:
            longest = stretch * _LONGEST
            aim = None
            if chance.random() < _AIMED:
                aim = _rarest(story.kills + others, before, reach)
            if aim is not None:
                _wait(forks, lambda aim=aim, old=old: aim in _stages(_new(place, old)))
                longest /= 10
            else:
                wanted = place.count() + chance.choice(ahead)
                _wait(forks, lambda wanted=wanted: place.count() >= wanted)
            _sleep(forks, math.exp(chance.uniform(math.log(_SHORTEST), math.log(longest))))
            if not forks.ended():
                killed = victim(pid, {one.process for one in _new(place, old)}, chance)
                if killed is not None:
                    # What earlier kills have left, and other workers go on with, is not this one's.
                    lost = {one for one in _new(place, old) if killed in (pid, one.process)}
                    # What is there was not being made; it may have been on its way from a bucket.
                    there = _names(place.manifests())
                    lost = {one for one in lost if f"{one.stage}/{one.key}" not in there}
        status = forks.wait()
        with _gone_is_fine():
            os.killpg(pid, signal.SIGKILL)  # what a worker's death has left of its run
        told = built(log)  # before the manifests: nothing is told before it is there
        after = place.manifests()
        story.note(before, after, told, lost)
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


def _new(place: Place, old: set[InHand]) -> set[InHand]:
    return in_hand(place.temporary()) - old


def _stages(found: Iterable[InHand]) -> set[str]:
    return {one.stage for one in found}


def _names(manifests: Iterable[str]) -> set[str]:
    """Kind and key of the artifacts that paths of manifests stand for."""
    return {"/".join(path.split("/")[-3:-1]) for path in manifests}


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
