"""Garbage collection: what no kept artifact reaches is removed, beside any number of runs.

A collection writes a claim down, then reads what runs rely on, then lists and removes
(`storage.leases`). Killed at any point, it leaves a store in which nothing is half there; the next
one does the rest. It removes whoever was made later first, so nothing stays whose origin is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from storage.errors import StorageError, StoreFullError
from storage.inventory import Entry, reach, take_inventory
from storage.leases import DIRECTORY, Lease, claims_at, read_names
from storage.scratch import is_of_dead_process
from storage.strays import find_dead, find_strays, remove_stray

if TYPE_CHECKING:
    from collections.abc import Collection as Names
    from collections.abc import Iterable, Iterator, Sequence

    from storage.backend import Backend
    from storage.leases import Claim
    from storage.lineage import Name
    from storage.manifest import Manifest

DAY = 86_400.0
# Between the making of a run's lease and the times of its first files, whoever tells them.
_SLACK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What a store does not know of its artifacts.

    Attributes:
        roots: From all manifests to the artifacts that are kept for themselves, with the reason.
        owns: Artifacts that belong to another although they are not its inputs.
        unfollowed: Roles of inputs that are kept, but not what those were made from.
        root_kinds: Kinds among which roots are chosen: a collection refuses to guess what a damaged
            one of them keeps.
        parts: By kind: the kind of the parts that the making of one looks for among those there.
    """

    roots: Callable[[Sequence[Manifest]], Mapping[Name, str]]
    owns: Callable[[Manifest], Iterable[Name]]
    unfollowed: frozenset[str] = frozenset()
    root_kinds: frozenset[str] = frozenset()
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Freed:
    """Something that was removed, or would be.

    Attributes:
        what: `artifact`, `damaged artifact`, `files without artifact`, `temporary files`,
            `workspace`, `lease` or `lock`.
        kind: Of an artifact; empty for the rest.
        name: Key, path or id.
        bytes: That it takes.
    """

    what: str
    kind: str
    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    """An artifact that stays, and why."""

    kind: str
    key: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Collection:
    """Outcome of a garbage collection.

    Attributes:
        freed: What was removed; what would be, after a dry run.
        kept: The artifacts that stay.
    """

    freed: tuple[Freed, ...]
    kept: tuple[Kept, ...]


def collect(
    backend: Backend,
    rules: Rules,
    *,
    delete: bool,
    older_than: float = DAY,
    unfinished: float = 14 * DAY,
) -> Collection:
    """Find what nobody needs, and remove it where asked.

    Args:
        backend: Of the store.
        rules: What is kept.
        delete: Remove; else nothing at all is changed.
        older_than: What was written within that many seconds stays.
        unfinished: What a run that did not end well relies on stays for that many seconds.

    Raises:
        StoreVersionError: a newer version wrote a manifest or a lease.
        StorageError: an artifact or a lease is damaged that says what is to be kept; or this
            process was suspended for so long that others took it for dead.
    """
    with _claimed(backend, delete=delete) as claim:
        now, claims = claims_at(backend, claim.id if claim else None)
        holding = [each for each in claims if each.of == "run" and _holds(each, now - unfinished)]
        names = read_names(backend, holding)
        begun = [each.started - _SLACK_SECONDS for each in holding if each.live]
        young = min([now - older_than, *begun])
        entries = {entry.name: entry for entry in take_inventory(backend)}
        reasons = _reasons(entries, rules, names, young)
        unneeded = [entry for name, entry in entries.items() if name not in reasons]
        used = set().union(*names.values())
        freed = []
        for item, remove in chain(
            _artifacts(backend, unneeded),
            _left_over(backend, entries.values(), reasons, young),
            _leases(backend, claims, holding, claim),
            _strays(backend, used, young + time.time() - now),
        ):
            if claim is not None:
                _check_held(claim)
                remove()
            freed.append(item)
    kept = [Kept(*name, entries[name].bytes, why) for name, why in reasons.items()]
    return Collection(tuple(freed), tuple(sorted(kept, key=lambda one: (one.kind, one.key))))


@contextmanager
def _claimed(backend: Backend, *, delete: bool) -> Iterator[Lease | None]:
    if not delete:
        yield None
        return
    claim = _make_claim(backend)
    try:
        with claim.beating():
            yield claim
    finally:
        claim.end()
        backend.reserve()


def _make_claim(backend: Backend) -> Lease:
    """A claim, also on a disk without a free page: for that, some room is always set aside."""
    for make_room in (partial(_remove_temporary, backend), backend.release):
        with suppress(StoreFullError):
            return Lease(backend, "gc", of="gc")
        make_room()
    return Lease(backend, "gc", of="gc")


def _remove_temporary(backend: Backend) -> None:
    """What dead processes of this machine left is nobody's, claim or not."""
    for stray in find_dead(backend):
        remove_stray(backend, stray)


def _holds(claim: Claim, since: float) -> bool:
    return claim.live or (claim.beat >= since and claim.started > 0)


def _check_held(claim: Lease) -> None:
    if not claim.held:
        raise StorageError(
            "this collection gave no sign of life for minutes, so runs may have gone on without "
            "it: nothing more was removed. Run it again."
        )


def _reasons(
    entries: Mapping[Name, Entry],
    rules: Rules,
    names: Mapping[str, set[Name]],
    young: float,
) -> dict[Name, str]:
    """Why each artifact that stays does; the strongest reason first."""
    for kind, key in entries:
        if kind in rules.root_kinds and entries[kind, key].manifest is None:
            raise StorageError(
                f"{kind}/{key}: its manifest is damaged, so it is not known what it keeps. Run its "
                f"pipeline again, or remove the directory {kind}/{key} from the store."
            )
    # Of damaged ones too: what they were made from is what it takes to mend them.
    manifests = [entry.manifest for entry in entries.values() if entry.manifest is not None]
    chosen = dict(rules.roots(manifests))
    for name in sorted(set().union(*names.values())):
        chosen.setdefault(name, "used by a run")
    for name in _parts_being_looked_for(entries, rules, names):
        chosen.setdefault(name, "a part of what a run is making")
    for name, entry in entries.items():
        if entry.modified > young:
            chosen.setdefault(name, "young")
    reasons = {name: why for name, why in chosen.items() if name in entries}
    for why in dict.fromkeys(chosen.values()):
        start = [name for name, own in chosen.items() if own == why]
        for name in reach(start, entries, owns=rules.owns, unfollowed=rules.unfollowed):
            reasons.setdefault(name, why)
    return reasons


def _parts_being_looked_for(
    entries: Mapping[Name, Entry], rules: Rules, names: Mapping[str, set[Name]]
) -> list[Name]:
    """All parts of a kind, while a run makes something of which they may become parts."""
    kinds = set()
    for kind, key in set().union(*names.values()):
        entry = entries.get((kind, key))
        if kind in rules.parts and (entry is None or entry.manifest is None or entry.damaged):
            kinds.add(rules.parts[kind])
    return [name for name in entries if name[0] in kinds]


_Work: TypeAlias = tuple[Freed, Callable[[], None]]


def _artifacts(backend: Backend, unneeded: list[Entry]) -> Iterator[_Work]:
    for entry in sorted(unneeded, key=lambda entry: (-entry.modified, entry.name)):
        what = "damaged artifact" if entry.damaged else "artifact"
        if entry.manifest is None and not entry.damaged:
            what = "files without artifact"
        freed = Freed(what, entry.kind, entry.key, entry.bytes)
        yield freed, partial(backend.remove, entry.kind, entry.key, tuple(entry.files))


def _left_over(
    backend: Backend, entries: Iterable[Entry], kept: Names[Name], young: float
) -> Iterator[_Work]:
    for entry in entries:
        for path, stat in entry.left_over.items():
            if entry.name in kept and stat.modified <= young:
                name = f"{entry.kind}/{entry.key}/{path}"
                freed = Freed("files without artifact", entry.kind, name, stat.bytes)
                yield freed, partial(backend.discard, name, listed=True)


def _leases(
    backend: Backend, claims: Names[Claim], holding: Names[Claim], own: Lease | None
) -> Iterator[_Work]:
    for claim in claims:
        over = claim not in holding if claim.of == "run" else not claim.live
        if over and claim.id != (own.id if own else None):
            freed = Freed("lease", "", claim.id, 0)
            yield freed, partial(backend.discard, f"{DIRECTORY}/{claim.id}")
    # A process that was killed before it had written its first file.
    for name in sorted(set(backend.names(DIRECTORY)) - {claim.id for claim in claims}):
        if is_of_dead_process(name):
            yield Freed("lease", "", name, 0), partial(backend.discard, f"{DIRECTORY}/{name}")


def _strays(backend: Backend, used: Names[Name], young: float) -> Iterator[_Work]:
    for stray in find_strays(backend, used=used, young=young):
        freed = Freed(stray.what, "", str(stray.path), stray.bytes)
        yield freed, partial(remove_stray, backend, stray)
