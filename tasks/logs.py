"""The log of a run: every record knows its run, stage and shard, wherever it was written.

Where a piece of work belongs is a context variable: threads that work side by side do not mix, and
a worker in another process sets it anew from what its chunk of jobs says. A file gets one JSON
object a line. What the environment keeps secret is crossed out of it.
"""

from __future__ import annotations

import json
import logging
import traceback
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from storage.urls import shown
from tasks.redaction import crossed_out

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

OURS = ("dashboards", "flows", "sparsedistill", "storage", "tasks")
"""The packages whose records are the run's."""

FIELDS = ("run", "stage", "shard")
_WHERE: ContextVar[Mapping[str, str] | None] = ContextVar("where", default=None)
_LOG = logging.getLogger(__name__)


@contextmanager
def within(**where: str) -> Iterator[None]:
    """Have the records of the block say where they belong: ``run``, ``stage``, ``shard``."""
    token = _WHERE.set({**(_WHERE.get() or {}), **where})
    try:
        yield
    finally:
        _WHERE.reset(token)


class Where(logging.Filter):
    """Puts run, stage and shard on a record, empty where it belongs to none.

    Args:
        run: Lets pass only what belongs to this run, or to none; None lets everything pass.
    """

    def __init__(self, run: str | None = None) -> None:
        super().__init__()
        self._run = run

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields."""
        where = _WHERE.get() or {}
        for name in FIELDS:
            setattr(record, name, where.get(name, ""))
        return self._run is None or where.get("run") in (None, self._run)


class JsonLines(logging.Formatter):
    """A record as one line of JSON; ``extra={"fields": {...}}`` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            **{name: getattr(record, name, "") for name in FIELDS},
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = "".join(traceback.format_exception(record.exc_info[1]))
        return json.dumps(_plain(line), ensure_ascii=False)


class Told(logging.Formatter):
    """A record as people read it: what it is about, then the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        about = f"{getattr(record, 'stage', '')} {getattr(record, 'shard', '')}".strip()
        told = f"{about}: {record.getMessage()}" if about else record.getMessage()
        return without_secrets(told)


def without_secrets(text: str) -> str:
    """Return a text without what the environment keeps secret (``***``) and without URLs' secrets.

    URLs lose ``user:password@`` and their queries, wherever they come from.
    """
    return shown(crossed_out(text))


def _plain(value: Any) -> Any:  # noqa: ANN401 (whatever a record has)
    """Return a value as plain JSON without secrets; before it is written, since JSON escapes."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, int | float):
        return value
    return without_secrets(str(value))


@contextmanager
def log_file(path: str | None, *, run: str) -> Iterator[None]:
    """Append the log of a run to a file while the block runs; all its processes may do so.

    A line is written at once, and by one call, so that lines of several processes do not mix. A
    worker on a machine where the directory does not exist says so and goes on without.

    Args:
        path: Of the file; None writes nothing.
        run: Name of the run: a worker may have jobs of several.
    """
    if path is None:
        yield
        return

    def make() -> logging.Handler:
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(JsonLines())
        handler.addFilter(Where(run))
        return handler

    try:
        _attach((path, run), make)
    except OSError as error:
        _LOG.warning("the log %s cannot be written here: %s", path, error.strerror)
        yield
        return
    try:
        yield
    finally:
        _detach((path, run))


@contextmanager
def handled_by(key: Hashable, make: Callable[[], logging.Handler]) -> Iterator[None]:
    """Have our packages' records, from INFO up, go to a handler while the block runs.

    Blocks of one key may overlap in several threads; they share the handler of the first.

    Args:
        key: Names the handler.
        make: Makes it where there is none of that key.
    """
    _attach(key, make)
    try:
        yield
    finally:
        _detach(key)


_handlers: dict[Hashable, tuple[logging.Handler, int]] = {}
_levels: dict[str, int] = {}
_lock = Lock()


def _attach(key: Hashable, make: Callable[[], logging.Handler]) -> None:
    with _lock:
        handler, users = _handlers[key] if key in _handlers else (make(), 0)
        if not _handlers:
            for name in OURS:
                logger = logging.getLogger(name)
                _levels[name] = logger.level
                if logger.getEffectiveLevel() > logging.INFO:
                    logger.setLevel(logging.INFO)
        _handlers[key] = handler, users + 1
        if users == 0:
            for name in OURS:
                logging.getLogger(name).addHandler(handler)


def _detach(key: Hashable) -> None:
    with _lock:
        handler, users = _handlers.pop(key)
        if users > 1:
            _handlers[key] = handler, users - 1
            return
        for name in OURS:
            logging.getLogger(name).removeHandler(handler)
        handler.close()
        if not _handlers:
            for name, level in _levels.items():
                logging.getLogger(name).setLevel(level)
