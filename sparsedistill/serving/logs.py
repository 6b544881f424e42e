"""The log: one JSON object a line. Access goes to standard output, all else to standard error.

Nothing of a text, a query or a header but the request's id is ever logged; of an error, its type
and where it was raised, because its message may repeat what it was about. Of a record of
another library, for the same reason, its level and who wrote it.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any

ACCESS = "sparsedistill.serving.access"
EVENTS = "sparsedistill.serving"

# Whose messages are known to hold no text.
_KNOWN = frozenset({"sparsedistill", "uvicorn"})

_encode = json.JSONEncoder(ensure_ascii=False).encode


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; `extra={"fields": {...}}` adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        known = record.name.partition(".")[0] in _KNOWN
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": record.process,
            "event": record.getMessage() if known else record.name,
        }
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line |= error_fields(record.exc_info[1])
        return _encode(line)


def error_fields(error: BaseException) -> dict[str, Any]:
    """What may be logged of an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


def log_config(*, access: bool) -> dict[str, Any]:
    """For `logging.config.dictConfig`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": f"{__name__}.{JsonFormatter.__name__}"}},
        "handlers": {
            "out": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "stream": "ext://sys.stdout",
            },
            "err": {"class": "logging.StreamHandler", "formatter": "json"},
        },
        "root": {"handlers": ["err"], "level": "WARNING"},
        "loggers": {
            "uvicorn": {"handlers": ["err"], "level": "INFO", "propagate": False},
            EVENTS: {"handlers": ["err"], "level": "INFO", "propagate": False},
            ACCESS: {
                "handlers": ["out"],
                "level": "INFO" if access else "WARNING",
                "propagate": False,
            },
        },
    }
