"""Variables that a command sets for what it starts, and takes back when it is done."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FOR_SERVERS = {
    # No word to anybody outside.
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # In memory, as by default, a killed server's slots would be taken for ever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
}
"""What every Prefect server that we start is set to, unless somebody has set it otherwise."""


@contextmanager
def environment_by_default(**defaults: str) -> Iterator[None]:
    """Set variables that are not set while the block runs, for it and the processes it starts."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
