"""Leases: what a run relies on, written down in the store where garbage collection looks.

    <root>/.leases/run-<digest of the run's name>-<host>-<process>-<random>/
        claim.json      format, run, host, process, start: written once
        beat.json       rewritten every half minute while the process lives
        names-*.json    kind and key of what the run relies on, as it becomes known
        ended.json      only after a run that failed, or made a part of its work

A garbage collection makes a claim of the same form (`gc-...`). A run writes names down and then
looks for collections; a collection writes its claim down and then reads the names: one of the two
always sees the other. Ages are told by the times that the store itself gives its files, so clocks
of several machines need not agree.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from storage.errors import StorageError, StoreVersionError
from storage.names import check_key, check_kind
from storage.repeating import repeating
from storage.scratch import is_of_dead_process, own_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from storage.backend import Backend, FileStat
    from storage.lineage import Name

FORMAT = 1
"""Newest format of a lease this version reads and the one it writes."""

DIRECTORY = ".leases"
BEAT_SECONDS = 30.0
EXPIRY_SECONDS = 300.0
"""Without a beat for that long a process of another machine counts as dead."""

_LOG = logging.getLogger(__name__)
_CLAIM, _BEAT, _ENDED = "claim.json", "beat.json", "ended.json"
_ID = re.compile(r"(?P<of>run|gc)-(?P<group>[0-9a-f]{32})-.+-\d+-[0-9a-f]{8}")
_NAMES = re.compile(r"names-\d{6}\.json")
_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Claim:
    """What a listing tells of a lease, or of a garbage collection under way.

    Attributes:
        id: Name of its directory.
        of: `run` or `gc`.
        group: Of a run: digest of the run's name.
        started: When it was made, in seconds of the store's clock; 0 where it is incomplete.
        beat: Its last sign of life, by the same clock.
        names: Its files that name artifacts.
        live: Whether its process may be running.
    """

    id: str
    of: str
    group: str
    started: float
    beat: float
    names: tuple[str, ...]
    live: bool


class Lease:
    """A run's claim on artifacts; `ArtifactStore.lease` makes one. Threads may share it."""

    def __init__(self, backend: Backend, run: str, *, of: str = "run") -> None:
        self.run = run
        self.group = group_of(run)
        self.id = f"{of}-{own_name(self.group)}"
        self._backend = backend
        self._lock = threading.Lock()
        self._used: set[Name] = set()
        self._files = 0
        self._last_beat = _clock()
        self._lost = False
        self._look_again = False
        self._write_claim()

    @property
    def held(self) -> bool:
        """Whether no other machine can have taken this process for dead."""
        return not self._lost and _clock() - self._last_beat < EXPIRY_SECONDS / 2

    def use(self, names: Iterable[Name]) -> bool:
        """Write down artifacts that the run relies on, made or to be made.

        Waits while a garbage collection is under way that may not know of them.

        Returns:
            Whether it waited, or was taken for dead before: then look again what is there.
        """
        with self._lock:
            new = [name for name in dict.fromkeys(names) if name not in self._used]
            if not new:
                return False
            self._write_names(new)
            self._used.update(new)
            again, self._look_again = self._look_again, False
        return self._wait_for_collections() or again

    def beat(self) -> None:
        """Give a sign of life, and write the claim anew if it was taken for that of a dead process.

        A collection does not: what it has not removed by then is for another one.
        """
        now = _clock()
        # A process that slept too long (a suspended machine) does not know what went on meanwhile.
        self._lost = self._lost or now - self._last_beat > EXPIRY_SECONDS / 2
        self._restore()
        self._write(_BEAT)
        self._last_beat = now

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life from a thread of its own during the block."""

        def beat() -> None:
            try:
                self.beat()
            except Exception as error:  # the network may be back at the next beat
                _LOG.warning("the lease of %s could not be renewed: %s", self.run, error)

        with repeating(beat, seconds=BEAT_SECONDS, name=f"lease of {self.run}"):
            yield

    def claims(self) -> list[Claim]:
        """All leases and collections there are."""
        return read_claims(self._backend, clock=self.id)

    def end(self) -> None:
        """Remove the lease, and those that ended runs of the same name have left.

        Only those that began no later and used nothing else: what another one has made is not yet
        part of any finished run. An error is a warning: the work is done.
        """
        try:
            claims = self.claims()
            self._backend.discard(f"{DIRECTORY}/{self.id}")
            for claim in self._outlived(claims):
                self._backend.discard(f"{DIRECTORY}/{claim.id}")
        except Exception as error:
            _LOG.warning("the lease of %s could not be removed: %s", self.run, error)

    def abandon(self) -> None:
        """Say that the run has ended without having made everything; its names stay."""
        try:
            self._restore()
            self._write(_ENDED)
        except Exception as error:  # the error that ended the run is the one to tell
            _LOG.warning("the end of the lease of %s could not be noted: %s", self.run, error)

    def _outlived(self, claims: Iterable[Claim]) -> list[Claim]:
        began = [claim.started for claim in claims if claim.id == self.id]
        left = [
            claim
            for claim in claims
            if claim.of == "run" and claim.group == self.group and not claim.live
            if claim.id != self.id and claim.started <= max(began, default=-math.inf)
        ]
        names = read_names(self._backend, left)
        return [claim for claim in left if names.get(claim.id, set()) <= self._used]

    def _restore(self) -> None:
        """Write everything again if somebody has removed the claim."""
        if self._backend.read([f"{DIRECTORY}/{self.id}/{_CLAIM}"]) != [None]:
            return
        self._lost = True
        if self.id.startswith("gc-"):
            return
        _LOG.warning("the lease of %s was taken for that of a dead run: writing it anew", self.run)
        with self._lock:
            self._write_claim()
            if self._used:
                self._write_names(sorted(self._used))
            self._look_again = True

    def _wait_for_collections(self) -> bool:
        waited = False
        while any(claim.of == "gc" and claim.live for claim in self.claims()):
            if not waited:
                _LOG.info("waiting for a garbage collection of the store to end")
            waited = True
            time.sleep(_WAIT_SECONDS)
        return waited

    def _write_claim(self) -> None:
        self._write(_CLAIM, run=self.run, host=socket.gethostname(), process=os.getpid())

    def _write_names(self, names: Iterable[Name]) -> None:
        self._files += 1
        self._write(f"names-{self._files:06d}.json", names=[list(name) for name in names])

    def _write(self, name: str, **fields: object) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps({"format": FORMAT, "time": now, **fields}) + "\n"
        self._backend.write(f"{DIRECTORY}/{self.id}/{name}", text.encode())


@contextmanager
def hold(backend: Backend, run: str, *, keep: bool = False) -> Iterator[Lease]:
    """A lease during the block. It stays when the block raises, so that its work is kept.

    Args:
        backend: Of the store.
        run: Name of the run.
        keep: Whether it stays in any case.
    """
    backend.reserve()
    lease = Lease(backend, run)
    try:
        with lease.beating():
            yield lease
    except BaseException:
        lease.abandon()
        raise
    if keep:
        lease.abandon()
    else:
        lease.end()


def group_of(run: str) -> str:
    """What the leases of one run name have in common in their names."""
    return sha256(run.encode()).hexdigest()[:32]


def read_claims(backend: Backend, *, clock: str | None = None) -> list[Claim]:
    """All leases and collections; see `claims_at`."""
    return claims_at(backend, clock)[1]


def claims_at(backend: Backend, clock: str | None) -> tuple[float, list[Claim]]:
    """The time, in seconds of the store's clock, and all leases and collections: one listing.

    Args:
        backend: Of the store.
        clock: Id of an own lease, whose newest file tells the store's time; None for this
            machine's.
    """
    files: dict[str, dict[str, FileStat]] = {}
    for path, stat in backend.files(DIRECTORY).items():
        top, _, name = path.partition("/")
        if name and _ID.fullmatch(top):
            files.setdefault(top, {})[name] = stat
    own = [stat.modified for stat in files.get(clock or "", {}).values()]
    # Some file systems tell no times: infinite ones.
    now = max(filter(math.isfinite, own), default=time.time())
    return now, [_claim(top, found, now) for top, found in sorted(files.items())]


def read_names(backend: Backend, claims: Iterable[Claim]) -> dict[str, set[Name]]:
    """The artifacts that leases name, by the id of the lease.

    Raises:
        StorageError: a file of a lease is damaged; the message names it.
        StoreVersionError: a newer version wrote it.
    """
    paths = [(each.id, f"{DIRECTORY}/{each.id}/{name}") for each in claims for name in each.names]
    found: dict[str, set[Name]] = {}
    for (top, path), text in zip(paths, backend.read([p for _, p in paths]), strict=True):
        if text is not None:  # a run that ended meanwhile
            found.setdefault(top, set()).update(_parse(path, text))
    return found


def _claim(top: str, files: dict[str, FileStat], now: float) -> Claim:
    match = _ID.fullmatch(top)
    assert match is not None  # noqa: S101 - only such are asked for
    beat = max(stat.modified for stat in files.values())
    # An unknown time (infinite) never is too long ago.
    silent = now - beat > EXPIRY_SECONDS or is_of_dead_process(top)
    live = not silent and _ENDED not in files
    started = files[_CLAIM].modified if _CLAIM in files else 0.0
    names = tuple(sorted(name for name in files if _NAMES.fullmatch(name)))
    return Claim(top, match["of"], match["group"], started, beat, names, live)


def _parse(path: str, text: bytes) -> list[Name]:
    try:
        fields: Any = json.loads(text)
        if fields["format"] > FORMAT:
            raise StoreVersionError(f"the lease {path}", fields["format"], FORMAT)
        return [(check_kind(kind), check_key(key)) for kind, key in fields["names"]]
    except StoreVersionError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, StorageError) as error:
        raise StorageError(
            f"{path} is damaged ({error}): what that run relies on is not known. "
            "Remove the file if the run has ended."
        ) from error


def _clock() -> float:
    """Seconds that go on while the machine is suspended, and that nobody sets."""
    # Not everywhere: without it, the time of day.
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if boot is None else time.clock_gettime(boot)
