"""Which runs of a name have ended well, and in which order: for what garbage collection keeps.

A run that finds everything made makes no new report, so when a report was made does not tell when
its run ended last. A record ``runs-<name>`` does: it is added when a run ends well, unless the last
one points to the same report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tasks import report_file as reports

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage import JSON, Artifact, ArtifactStore, Manifest

PREFIX = "runs-"
_ROLE = "report"


def note_run(store: ArtifactStore, name: str, report: Artifact) -> None:
    """Write down that a whole run has ended well, while its lease still holds what it made.

    Raises:
        StorageError: A record is damaged, or a newer version wrote it; the message says which.
    """
    reference = report.as_input()
    content: dict[str, Any] = {
        "references": {
            _ROLE: {"kind": reference.kind, "key": reference.key, "digest": reference.digest}
        }
    }
    while True:
        there = store.records(f"{PREFIX}{name}")
        if there and there[-1].references()[_ROLE] == reference:
            return
        last = there[-1].number if there else 0
        added = store.add_record(f"{PREFIX}{name}", cast("dict[str, JSON]", content), after=last)
        # None: another run of the name ended at the same moment.
        if added is not None:
            return


def finished_runs(
    store: ArtifactStore, name: str, manifests: Iterable[Manifest]
) -> list[tuple[Manifest, str]]:
    """Return the reports of a name's finished runs, that of the run that ended last at the end.

    Args:
        store: That has the records.
        name: Of the runs.
        manifests: Of artifacts; those that are no reports of the name are left out.

    Returns:
        Each with the time, ISO 8601, when a run last ended with it; reports that no record points
        to, of earlier versions, come first and have the time when they were made.
    """
    ended = {
        record.references()[_ROLE].key: (record.number, record.created)
        for record in store.records(f"{PREFIX}{name}")
    }
    runs = [m for m in manifests if m.kind == reports.KIND and m.config.get("name") == name]
    dated = [(run, *ended.get(run.key, (0, run.created))) for run in runs]
    dated.sort(key=lambda one: (one[1], one[2], one[0].key))
    return [(run, when) for run, _, when in dated]
