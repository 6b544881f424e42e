"""Where raw text comes from: paths, directories, globs and URLs become a list of files.

Nothing is read here but names, sizes and times, so a run can refuse bad patterns at once.
"""

from __future__ import annotations

import difflib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from storage.errors import SourceError
from storage.urls import holds_credentials, safe_cause, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMATS = ("txt", "jsonl", "csv", "tsv", "parquet")
Compression: TypeAlias = Literal["gzip", "zstd"]
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = frozenset("*?[")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """A file of raw text.

    Attributes:
        url: Absolute path, or URL.
        name: As people know it: relative to the base where it lies below it, and without the
            query of a URL, which may be a signature.
        bytes: Size as stored (compressed), or None where the server does not say.
        fingerprint: Of size and time, or of the server's tag. Decides only whether the file is
            read again, never what an artifact is.
    """

    url: str
    name: str
    bytes: int | None
    fingerprint: str


def format_of(name: str) -> tuple[str, Compression | None]:
    """Format and compression by the suffix of a path or URL: `a.jsonl.gz` is ("jsonl", "gzip").

    Raises:
        SourceError: an unknown suffix; the message lists the known ones.
    """
    path = urlsplit(name).path if name.startswith(("http://", "https://")) else name
    stem, suffix = os.path.splitext(path.lower())  # noqa: PTH122 (also for URLs)
    compression = _COMPRESSIONS.get(suffix)
    if compression:
        suffix = os.path.splitext(stem)[1]  # noqa: PTH122
    if suffix.removeprefix(".") not in FORMATS:
        known = ", ".join(f".{each}" for each in FORMATS)
        raise SourceError(
            name, f"unknown suffix {suffix!r}; known are {known}, each also with .gz or .zst"
        )
    return suffix[1:], compression


def expand_sources(
    patterns: Sequence[str],
    *,
    base: str | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> list[Source]:
    """The files that patterns stand for.

    Args:
        patterns: Files, directories (searched through), globs or URLs. A directory or glob gives
            the files with a known suffix, sorted by name, without hidden ones (`.x`, `_x`).
        base: Directory or URL that relative patterns start from; the current directory if None.
        storage_options: What fsspec needs for the URLs (keys, endpoint); not used for paths.

    Returns:
        Files in the order of the patterns, each once.

    Raises:
        SourceError: a pattern matches nothing (the message names what there is nearby), or a file
            given by name has an unknown suffix, or a file system is not installed.
    """
    found: dict[str, Source] = {}
    for pattern in patterns:
        url = _absolute(pattern, base)
        fs, path = open_file_system(url, storage_options)
        try:
            files = _files(fs, path, pattern)
        except (SourceError, MemoryError):
            raise
        except Exception as error:  # every kind of file system has errors of its own
            reason = f"cannot be reached ({type(error).__name__}: {error})"
            raise SourceError(pattern, reason) from safe_cause(error)
        for each, info in files.items():
            source = _describe(fs, each, info, base)
            found.setdefault(source.url, source)
    return list(found.values())


def open_file_system(url: str, storage_options: Mapping[str, object] | None) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path in it.

    Raises:
        SourceError: unknown protocol, the package for it is not installed, or the URL holds
            credentials.
    """
    if holds_credentials(url):
        raise SourceError(
            url.partition("://")[0] + "://...", "the URL holds a password or a token, which would "
            "get into logs: give credentials by the environment (docs/store.md)",
        )  # fmt: skip
    options = dict(storage_options or {}) if "://" in url else {}
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise SourceError(url, f"no file system for this URL: {error}") from error
    return fs, path


def _absolute(pattern: str, base: str | None) -> str:
    if "://" in pattern:
        return pattern
    path = Path(pattern).expanduser()
    if path.is_absolute() or base is None:
        return os.path.abspath(path)  # noqa: PTH100 (Path.absolute keeps "..")
    if "://" in base:
        return f"{base.rstrip('/')}/{pattern}"
    return os.path.abspath(Path(base).expanduser() / path)  # noqa: PTH100


def _files(fs: Any, path: str, pattern: str) -> dict[str, Any]:  # noqa: ANN401 (fsspec has no types)
    """Paths of the files, in order, with what the listing says of them."""
    if fs.isfile(path):
        format_of(path)
        return {path: fs.info(path)}
    if _MAGIC.intersection(path):
        top = path[: min(path.index(c) for c in _MAGIC if c in path)].rpartition("/")[0]
        found = fs.glob(path, detail=True)
    else:
        top = path.rstrip("/")
        found = fs.find(path, detail=True)
    files = sorted(p for p, i in found.items() if i["type"] == "file" and _is_visible(p, top))
    known = [each for each in files if _has_known_suffix(each)]
    if len(known) < len(files):
        others = sorted(set(files) - set(known))
        _LOG.info(
            "%s: passed over %d other files, %s first", shown(pattern), len(others), others[0]
        )
    if not known:
        raise SourceError(pattern, _explain_nothing(fs, path, bool(files)))
    return {each: found[each] for each in known}


def _is_visible(path: str, top: str) -> bool:
    below = path.removeprefix(top).strip("/")
    return not any(part.startswith((".", "_")) for part in below.split("/"))


def _has_known_suffix(path: str) -> bool:
    try:
        format_of(path)
    except SourceError:
        return False
    return True


def _describe(fs: Any, path: str, info: Any, base: str | None) -> Source:  # noqa: ANN401
    if isinstance(fs, LocalFileSystem):
        stat = Path(path).stat()
        return Source(path, _name(path, base), stat.st_size, f"{stat.st_size}-{stat.st_mtime_ns}")
    url = str(fs.unstrip_protocol(path))
    size = info.get("size")
    tag = str(info.get("ETag") or info.get("etag") or fs.ukey(path)).strip('"')
    return Source(url, _name(url, base), size, f"{size}-{tag}")


def _name(url: str, base: str | None) -> str:
    start = _absolute(".", base).removesuffix("/.").rstrip("/")
    return shown(url.removeprefix(f"{start}/"))


def _explain_nothing(fs: Any, path: str, has_others: bool) -> str:  # noqa: ANN401
    if has_others:
        return "no file with a known suffix (.txt .jsonl .csv .tsv .parquet, also .gz .zst)"
    parent, _, name = path.rstrip("/").rpartition("/")
    while parent and not _exists(fs, parent):
        parent, _, name = parent.rpartition("/")
    there = _names_in(fs, parent)
    if not there:
        return "no such file"
    near = difflib.get_close_matches(name, there, n=3, cutoff=0.5) or there[:3]
    return f"no such file; in {parent or '/'} there is: {', '.join(near)}"


def _exists(fs: Any, path: str) -> bool:  # noqa: ANN401
    return bool(fs.isdir(path))


def _names_in(fs: Any, path: str) -> list[str]:  # noqa: ANN401
    try:
        entries = fs.ls(path or "/", detail=False)
    except OSError:
        return []
    return sorted(str(entry).rstrip("/").rpartition("/")[2] for entry in entries)
