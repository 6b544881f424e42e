"""``drift``: are these texts still such as the model was made for, and what is new in them?"""

from __future__ import annotations

import sys
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple

from dashboards.format import clean
from flows.input_files import Meter, called, check_inputs
from flows.input_rows import input_names, read_batches
from flows.output_files import open_json
from sparsedistill.classifier import Classifier
from sparsedistill.drift import DriftMonitor
from sparsedistill.drift_report import VERDICTS, DriftReport, render
from sparsedistill.errors import DataError
from sparsedistill.text_profile import Profile

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

DRIFTED = 3
"""Exit status where ``--fail-on`` is met; 1 is an error, 2 a wrong command line."""


class _Place(NamedTuple):
    """Where a text stands, for people: its file, and its row there from 1."""

    file: str
    row: int


class _Watched(NamedTuple):
    """Texts that went by, and which file each came from.

    Attributes:
        monitor: Saw them.
        files: Those that had any, in order.
        starts: How many texts came before each.
    """

    monitor: DriftMonitor
    files: list[str]
    starts: list[int]

    def place(self, row: int) -> _Place:
        """Of a text, counted from 0."""
        at = bisect_right(self.starts, row) - 1
        return _Place(self.files[at], row - self.starts[at] + 1)

    def shown(self, row: int) -> str:
        """The same in a word."""
        place = self.place(row)
        return f"{place.file}:{place.row}" if len(self.files) > 1 else f"{place.row:,}"


def drift(options: argparse.Namespace) -> int:
    """Print how texts differ from the model's reference, or from those of ``--against``."""
    names = input_names(options.files)
    against: list[str] = options.against or []
    fail_on: str | None = options.fail_on
    check_inputs([*names, *against])
    classifier = Classifier.from_pretrained(options.model, threads=options.threads)
    with open_json(options.json) as write:
        if against:
            reference = _watch(classifier, against, options).monitor.profile
        else:
            # Before the texts are read: if there is none, that is for nothing.
            reference = Profile.from_json(classifier.reference, classifier.classes_)
        watched = _watch(classifier, names, options)
        report = watched.monitor.report(reference)
        # Texts and labels must not get to command the terminal.
        sys.stdout.write(clean(render(report, place=watched.shown)))
        write(_document(report, watched))
    if fail_on and VERDICTS.index(report.verdict) >= VERDICTS.index(fail_on):
        return DRIFTED
    return 0


def _document(report: DriftReport, watched: _Watched) -> dict[str, Any]:
    """The report as JSON, its texts by file and row."""
    found = report.to_json()
    for example in found["examples"]:
        example |= watched.place(example["row"])._asdict()
    return found


def _watch(classifier: Classifier, names: Sequence[str], options: argparse.Namespace) -> _Watched:
    found = _Watched(DriftMonitor(classifier), [], [])
    for name in names:
        first = found.monitor.profile.rows
        for batch in read_batches(
            [name], file_format=options.format, column=options.column, meter=Meter([name])
        ):
            found.monitor.add(batch.texts)
        if found.monitor.profile.rows > first:
            found.files.append(called(name))
            found.starts.append(first)
    if not found.files:
        raise DataError(f"{', '.join(map(called, names))}: no text to compare")
    return found
