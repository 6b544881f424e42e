"""``drift``: are these texts still such as the model was made for, and what is new in them?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flows.input_files import Meter, check_inputs
from flows.input_rows import input_names, read_batches
from sparsedistill.classifier import Classifier
from sparsedistill.drift import DriftMonitor
from sparsedistill.drift_report import VERDICTS, render
from sparsedistill.errors import DataError
from sparsedistill.text_profile import Profile

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

DRIFTED = 3
"""Exit status where ``--fail-on`` is met; 1 is an error, 2 a wrong command line."""


def drift(options: argparse.Namespace) -> int:
    """Print how texts differ from the model's reference, or from those of ``--against``."""
    names = input_names(options.files)
    against: list[str] = options.against or []
    fail_on: str | None = options.fail_on
    check_inputs([*names, *against])
    classifier = Classifier.from_pretrained(options.model, threads=options.threads)
    if against:
        reference = _watched(classifier, against, options).profile
    else:
        # Before the texts are read: if there is none, that is for nothing.
        reference = Profile.from_json(classifier.reference, classifier.classes_)
    report = _watched(classifier, names, options).report(reference)
    sys.stdout.write(render(report))
    if options.json:
        document = json.dumps(report.to_json(), ensure_ascii=False, indent=1) + "\n"
        Path(options.json).write_text(document, "utf-8")
    if fail_on and VERDICTS.index(report.verdict) >= VERDICTS.index(fail_on):
        return DRIFTED
    return 0


def _watched(
    classifier: Classifier, names: Sequence[str], options: argparse.Namespace
) -> DriftMonitor:
    monitor = DriftMonitor(classifier)
    for batch in read_batches(
        names, file_format=options.format, column=options.column, meter=Meter(names)
    ):
        monitor.add(batch.texts)
    if not monitor.profile.rows:
        raise DataError(f"{', '.join(names)}: no text to compare")
    return monitor
