"""What a Prometheus server may know of a service.

Where `PROMETHEUS_MULTIPROC_DIR` is set, the worker processes of one service keep their numbers in
files in that directory, and each of them answers for all: counts are sums over all workers, those
that have ended included. What belongs to a process (memory, processor time) has the label `worker`,
which is its process id. No label comes from a client, so the number of series is bounded.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sparsedistill import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric

    from sparsedistill.answers import Answers
    from sparsedistill.classifier import Classifier

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SHARES = tuple(share / 10 for share in range(11))
_WORKER_FILE = re.compile(r"counter_(\d+)\.db")


class Metrics:
    """The numbers of one service."""

    def __init__(self, classifier: Classifier, name: str) -> None:
        directory = os.environ.get(DIRECTORY_VARIABLE)
        self._scraped = CollectorRegistry()
        # With files, what is scraped is read from them, not from the objects here.
        registry = None if directory else self._scraped
        if directory:
            MultiProcessCollector(self._scraped, directory)  # type: ignore[no-untyped-call]
        self._scraped.register(_Workers(Path(directory) if directory else None))
        self._requests = Counter(
            "sparsedistill_requests", "Requests.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "sparsedistill_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._bytes = Counter(
            "sparsedistill_request_bytes", "Bytes in bodies of requests.", registry=registry
        )
        self._texts = Counter("sparsedistill_texts", "Texts answered.", registry=registry)
        self._abstentions = Counter(
            "sparsedistill_abstentions", "Texts that got no label.", registry=registry
        )
        labels = Counter(
            "sparsedistill_labels", "Texts that got a label.", ["label"], registry=registry
        )
        self._labels = [labels.labels(label) for label in classifier.classes_]
        self._coverage = Histogram(
            "sparsedistill_coverage",
            "Share of a text's n-grams that the model knows.",
            buckets=_SHARES,
            registry=registry,
        )
        self._in_flight = Gauge(
            "sparsedistill_requests_in_flight",
            "Requests being answered.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        folded = classifier.folded
        model = Gauge(
            "sparsedistill_model_info",
            "1, and which model answers.",
            ["model", "dtype", "classes", "rows", "version"],
            multiprocess_mode="max",
            registry=registry,
        )
        model.labels(
            name, folded.table_type, len(folded.labels), len(folded.index), __version__
        ).set(1)

    def begin_request(self) -> None:
        """A request has come."""
        self._in_flight.inc()

    def end_request(self, route: str, status: int, seconds: float, size: int) -> None:
        """A request has been answered.

        Args:
            route: One of the service's own.
            status: What was answered.
            seconds: What it took.
            size: Bytes of its body.
        """
        self._in_flight.dec()
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)
        if size:
            self._bytes.inc(size)

    def count_answers(self, answers: Answers) -> None:
        """Texts have been classified."""
        self._texts.inc(len(answers))
        given = np.bincount(answers.best[answers.kept], minlength=len(self._labels)).tolist()
        for label, count in zip(self._labels, given, strict=True):
            if count:
                label.inc(count)
        abstentions = len(answers) - sum(given)
        if abstentions:
            self._abstentions.inc(abstentions)
        for share in answers.coverage.tolist():
            self._coverage.observe(share)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """All numbers, and their content type.

        Args:
            accept: What the client says it reads.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._scraped), content_type


class _Workers(Collector):
    """Memory, processor time and files of each living worker."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for worker in self._alive():
            of_one = ProcessCollector(pid=lambda pid=worker: pid, registry=None)  # type: ignore[misc]
            for metric in of_one.collect():
                kept = found.setdefault(metric.name, metric)
                samples = [
                    sample._replace(labels={"worker": str(worker)}) for sample in metric.samples
                ]
                kept.samples = samples if kept is metric else [*kept.samples, *samples]
        return found.values()

    def _alive(self) -> list[int]:
        if self._directory is None:
            return [os.getpid()]
        files = (_WORKER_FILE.fullmatch(path.name) for path in self._directory.iterdir())
        workers = sorted(int(file[1]) for file in files if file)
        alive = [worker for worker in workers if _is_sibling(worker)]
        for worker in set(workers) - set(alive):
            # What it had counted stays; what only the living have (requests in flight) goes.
            mark_process_dead(worker, self._directory)  # type: ignore[no-untyped-call]
        return alive


def _is_sibling(process: int) -> bool:
    """Whether a process lives and has our parent; the system may give its number to another."""
    if process == os.getpid():
        return True
    try:
        status = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return False
    return int(status.rpartition(b")")[2].split()[1]) == os.getppid()
