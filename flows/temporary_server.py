"""The Prefect server of one run alone, which Prefect starts where none is set.

It ends with the process of the run, however that ends, and not before: what the run tells while it
ends would be tried again and again, for minutes.
"""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_END_AFTER_READING = """
import os, signal, sys
sys.stdin.read()
os.kill(int(sys.argv[1]), signal.SIGTERM)
"""


def start_temporary() -> None:
    """Have Prefect start the server that ends with this process, as its first flow would.

    A signal to the whole group, which is what Ctrl-C in a terminal, ``timeout`` and the stop of a
    service send, does not reach it. SIGTERM ends this process as Ctrl-C does.
    """
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    with _sessions_of_their_own():
        server.start()
    if server.server_process is not None:
        _end_with_us(server.server_process.pid)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def _sessions_of_their_own() -> Iterator[None]:
    """Start processes in sessions of their own while the block runs, whoever starts them."""
    real = subprocess.Popen

    class Apart(real):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 (as its base)
            super().__init__(*args, **{**options, "start_new_session": True})

    subprocess.Popen = Apart  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = real  # type: ignore[misc]


def _end_with_us(server: int) -> None:
    """Have a process end even where this one is in no state to end it, as after ``kill -9``."""
    # It reads from this process, which never writes: reading ends when this process has.
    reader = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-I", "-S", "-c", _END_AFTER_READING, str(server)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )

    def dismiss() -> None:
        reader.kill()
        reader.communicate()

    # Called before Prefect ends the server, which was registered earlier.
    atexit.register(dismiss)
