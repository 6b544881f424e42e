"""Keeping transformers quiet: its bars and reports would break up the pipeline's own display.

The switches are global to the process, so they are counted: the last one out turns them back on.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0
_before = (0, False)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Turn off the progress bars of transformers and the hub, and all its messages but errors."""
    from transformers.utils import logging

    global _inside, _before
    with _lock:
        if _inside == 0:
            _before = logging.get_verbosity(), logging.is_progress_bar_enabled()
            logging.set_verbosity_error()  # type: ignore[no-untyped-call]
            logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                verbosity, bars = _before
                logging.set_verbosity(verbosity)
                if bars:
                    logging.enable_progress_bar()  # type: ignore[no-untyped-call]
