"""Worker processes that end with the process they work for.

Those of a pool wait for work for ever where it is killed: each has the queue's other end, too, so
that it never sees it close.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Have this worker process end when the one that started it has; called as it starts."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        # What it worked on is lost, as if it had been killed too; the next run makes it again.
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
