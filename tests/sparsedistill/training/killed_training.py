"""A run of the toy task whose process is gone after a number of calls that change files.

python killed_training.py DIRECTORY CALLS
"""

import os
import sys
from pathlib import Path

import pytest
from toy_runs import DyingDisk, trained

from sparsedistill.training.loop import Checkpointing

if __name__ == "__main__":
    disk = DyingDisk(int(sys.argv[2]), die=lambda: os._exit(9))
    disk.patch(pytest.MonkeyPatch())
    trained(Checkpointing(Path(sys.argv[1]), every_seconds=0))
