"""Runs the command line over and over, each time in a fork of a process with all imports done.

    python tests/helpers/forked_runs.py

A start with all its imports takes seconds, a fork none: so a run can be killed a hundred times in a
minute. One JSON document a line on the input, ``{"arguments": [...], "log": path}``; two on the
output, ``{"pid": n}`` and, when it has ended, ``{"status": n}``, negative for a signal. Every run
leads a process group of its own. This process must start no thread, for forks do not take them on.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import NoReturn

HEAVY = (
    "altair", "flows.cli", "flows.inline", "flows.run_commands", "sklearn.linear_model",
    "sparsedistill.teacher.finetune", "sparsedistill.teacher.session", "torch",
    "transformers.models.bert.modeling_bert", "transformers.trainer", "vl_convert",
)  # fmt: skip


def main() -> None:
    """Serve until the input ends."""
    for name in (*HEAVY, *os.environ.get("ALSO_IMPORT", "").split()):
        import_module(name)
    import torch

    from tasks import comparison

    torch.set_num_threads(1)
    comparison.LEAST_SECONDS = 0.01  # as in all tests: a run is not there to be timed
    _answer(ready=os.getpid())
    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(wanted["arguments"], wanted["log"])
        _answer(pid=pid)
        _, status = os.waitpid(pid, 0)
        _answer(status=os.waitstatus_to_exitcode(status))


def _answer(**words: int) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _run(arguments: list[str], log: str) -> NoReturn:
    """Be the command line, as if just started."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    status = 70
    try:
        from flows.cli import main as command_line

        status = command_line(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
