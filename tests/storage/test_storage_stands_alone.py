"""The store knows no model and no Prefect: importing it must load none of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_importing_storage_loads_no_model_library_and_no_other_package_of_ours():
    code = (
        "import sys, storage\n"
        "print([m for m in ('prefect', 'torch', 'numba', 'transformers', 'sparsedistill', 'tasks',"
        " 'flows', 'dashboards') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
