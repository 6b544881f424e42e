"""``sparsedistill redistill``, which kills itself at a place around its decision.

python tests/helpers/killed_redistillation.py PLACE ARGUMENT...
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from flows import places, redistillation
from flows.cli import main


def die(*_args: Any, **_options: Any) -> NoReturn:
    """As if the machine had gone."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process does not go on")


def decide_and_die(*args: Any, **options: Any) -> NoReturn:
    decide(*args, **options)
    die()


def die_at_the_model(self: Path, target: Path) -> Path:
    """In the middle of a delivery: of the new model one file is there."""
    parts = Path(target).parts
    if parts[-2:] == ("model", "vocabulary.safetensors") and "candidate" not in parts:
        die()
    return replace(self, target)


decide, replace = redistillation.decide, Path.replace

if __name__ == "__main__":
    place = sys.argv[1]
    if place == "before the decision":
        redistillation.decide = die
    elif place == "after the decision":
        redistillation.decide = decide_and_die
    elif place == "before the delivery":
        places.deliver_model = die
    else:
        Path.replace = die_at_the_model  # type: ignore[method-assign,assignment]
    sys.exit(main(sys.argv[2:]))
