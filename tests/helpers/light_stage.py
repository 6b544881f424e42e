"""A stage that writes down what its process has imported; it needs nothing itself."""

from __future__ import annotations

import sys
from typing import Any

from storage import ArtifactStore, ArtifactWriter
from tasks.stage import Job


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Any) -> None:
    writer.path("modules.txt").write_text("\n".join(sorted(sys.modules)))
