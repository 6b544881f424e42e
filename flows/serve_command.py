"""``serve``: a packaged model over HTTP, until told to stop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedistill.classifier import Classifier
from sparsedistill.memory import parse_size
from sparsedistill.remote import fetch_model
from sparsedistill.remote_sources import shown_name

if TYPE_CHECKING:
    import argparse


def serve(options: argparse.Namespace) -> int:
    """Serve a model; ends with status 0 when stopped by SIGTERM or Ctrl-C."""
    if options.workers == 1:
        # One process keeps its numbers to itself, also where the environment is that of another
        # service's workers. prometheus_client reads this once, when it is imported.
        os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    # First, so that a missing extra is said before a model is fetched.
    from sparsedistill.serving.settings import ServerSettings, Settings
    from sparsedistill.serving.worker import run

    directory = fetch_model(options.model)
    # Here, where what is wrong with it is one line, and not in each worker.
    Classifier.load(directory)
    settings = Settings(
        name=options.name or _name(options.model),
        max_bytes=parse_size(options.max_bytes),
        max_texts=options.max_texts,
        max_concurrency=options.max_concurrency,
        threads=options.threads,
    )
    server = ServerSettings(
        host=options.host,
        port=options.port,
        workers=options.workers,
        grace_seconds=options.grace,
        drain_seconds=options.drain,
    )
    return run(directory, settings, server, access_log=not options.no_access_log)


def _name(model: str) -> str:
    """What a model is called that was given none: as its directory, or as where it comes from."""
    directory = Path(model)
    return directory.resolve().name if directory.is_dir() else shown_name(model)
