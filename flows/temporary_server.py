"""The Prefect server of one run alone, which Prefect starts where none is set.

It ends with the process of the run, however that ends, and not before: what the run tells while it
ends would be tried again and again, for minutes.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect.settings import get_current_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

_END_AFTER_READING = """
import os, signal, sys, time
sys.stdin.read()
try:
    os.kill(int(sys.argv[1]), signal.SIGTERM)
    time.sleep(10)
    os.kill(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
"""


def start_temporary() -> None:
    """Have Prefect start the server that ends with this process, as its first flow would.

    A signal to the whole group, which is what Ctrl-C in a terminal and ``timeout`` send, does not
    reach it. Does nothing where Prefect is set to start none: the first flow then says so.
    """
    from prefect.server.api.server import SubprocessASGIServer

    if get_current_settings().server.ephemeral.enabled:
        with _apart():
            SubprocessASGIServer().start()


@contextmanager
def _apart() -> Iterator[None]:
    """Start processes that are of no group but their own, and end with us, whoever starts them."""
    real = subprocess.Popen

    class Apart(real):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 (as its base)
            super().__init__(*args, **{**options, "start_new_session": True})
            # At once: we may be killed while the server is not even up.
            reader = real(
                [sys.executable, "-I", "-S", "-c", _END_AFTER_READING, str(self.pid)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            # Called when Prefect has ended the server, which it registers later.
            atexit.register(_dismiss, reader)

    subprocess.Popen = Apart  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = real  # type: ignore[misc]


def _dismiss(reader: subprocess.Popen[bytes]) -> None:
    # It reads from this process, which never writes: reading ends when this process has.
    reader.kill()
    reader.communicate()
