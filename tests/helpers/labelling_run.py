"""The stages up to the logits, every batch that the teacher is asked for noted in a file.

    python tests/helpers/labelling_run.py CONFIG.json NOTES

A line is written before a batch is worked on, by one system call, so that a kill loses none.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from flows.config import parse_config
from flows.inline import run_until
from sparsedistill.teacher.session import CpuSession


def note_batches(notes: Path) -> None:
    """Have the size of every batch written down as it begins."""
    file = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    answer = CpuSession.__call__

    def noted(session, inputs, mask):
        os.write(file, f"{len(inputs['input_ids'])}\n".encode())
        return answer(session, inputs, mask)

    CpuSession.__call__ = noted


if __name__ == "__main__":
    config, notes = map(Path, sys.argv[1:])
    note_batches(notes)
    with run_until(parse_config(json.loads(config.read_text("utf-8"))), "baseline"):
        pass
