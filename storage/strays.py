"""What killed processes leave on a machine's disk: temporary directories, workspaces, locks."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.scratch import is_of_dead_process, is_of_this_host, size_of, temporary_path
from storage.turns import is_free, turn_if_free

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from storage.backend import Backend
    from storage.lineage import Name

_WORKSPACE = re.compile(r"(?P<kind>[a-z_]+)-(?P<key>[0-9a-f]{32})")
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Stray:
    """Something that nobody needs.

    Attributes:
        what: `temporary files`, `workspace` or `lock`.
        path: Where it is.
        bytes: In it.
    """

    what: str
    path: Path
    bytes: int


def find_strays(backend: Backend, *, used: Collection[Name], young: float) -> Iterator[Stray]:
    """Find what may be removed.

    Args:
        backend: Of the store.
        used: Artifacts whose workspaces stay.
        young: What was written to after that time stays, in seconds of this machine's clock; but
            not what processes of this machine have left that are dead.
    """
    yield from _temporary_files(backend.temporary, young)
    yield from _workspaces(backend.workspaces, used, young)


def find_dead(backend: Backend) -> Iterator[Stray]:
    """Find the temporary files of dead processes of this machine, which no run can want."""
    for path in _entries(backend.temporary):
        if is_of_dead_process(path.name):
            yield Stray("temporary files", path, size_of(path))


def _temporary_files(directory: Path, young: float) -> Iterator[Stray]:
    for path in _entries(directory):
        if path.name.endswith(_LOCK):
            yield from _lock(path)
            continue
        forgotten = not is_of_this_host(path.name) and _newest(path) <= young
        if is_of_dead_process(path.name) or forgotten:
            yield Stray("temporary files", path, size_of(path))


def _workspaces(directory: Path, used: Collection[Name], young: float) -> Iterator[Stray]:
    for path in _entries(directory):
        match = _WORKSPACE.fullmatch(path.name.removesuffix(_LOCK))
        if not match:
            continue  # not ours
        if path.name.endswith(_LOCK):
            yield from _lock(path)
            continue
        needed = (match["kind"], match["key"]) in used or _newest(path) > young
        if not needed and is_free(lock_of(path)):
            yield Stray("workspace", path, size_of(path))


def _lock(path: Path) -> Iterator[Stray]:
    if is_free(path):
        yield Stray("lock", path, 0)


def remove_stray(backend: Backend, stray: Stray) -> None:
    """Remove what was found, unless somebody has begun to use it; half-done is as good as done."""
    if stray.what == "lock":
        with turn_if_free(stray.path):
            return  # whoever takes a turn removes the file at its end
    if stray.what == "workspace":
        with turn_if_free(lock_of(stray.path)) as free:
            if not free:
                return
            # What is left of a checkpoint must not be taken for one.
            aside = temporary_path(backend.temporary, *stray.path.name.rsplit("-", 1))
            aside.parent.mkdir(parents=True, exist_ok=True)
            try:
                stray.path.rename(aside)
            except FileNotFoundError:
                return
        _remove(aside)
    else:
        _remove(stray.path)


def lock_of(workspace: Path) -> Path:
    """The file whose lock is the turn at what a workspace is for."""
    return workspace.with_name(f"{workspace.name}{_LOCK}")


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _newest(path: Path) -> float:
    times = [0.0]
    for each in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):
            times.append(each.lstat().st_mtime)
    return max(times)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
