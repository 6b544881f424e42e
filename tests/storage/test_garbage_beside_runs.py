"""A collection beside a run, interleaved at every step: the run always has what it relies on.

The steps are those of the real code: every call that reads or changes the store is one. Two threads
take them in an order that the test decides.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path

import pytest
from helpers.collecting import RULES, recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import ArtifactStore, Recipe, garbage, leases

REPOSITORY = Path(__file__).parents[2]
_STORES = count()


class Actor:
    """Some work on a store that goes one step at a time."""

    def __init__(self, url: str, work: Callable[[ArtifactStore], None]) -> None:
        self.ended = False
        self.steps = 0
        self.error: BaseException | None = None
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        store = ArtifactStore(url)
        store._backend = _Gated(store._backend, self._gate)
        self._thread = threading.Thread(target=self._run, args=(work, store), daemon=True)
        self._thread.start()
        self._stopped.acquire()

    def step(self) -> None:
        """Let it take its next step; nothing happens after the last one."""
        if not self.ended:
            self.steps += 1
            self._go.release()
            self._stopped.acquire()

    def _run(self, work, store) -> None:
        self._gate()
        try:
            work(store)
        except BaseException as error:
            self.error = error
        self.ended = True
        self._stopped.release()

    def _gate(self) -> None:
        self._stopped.release()
        self._go.acquire()


class _Gated:
    """A backend each of whose calls waits until it may."""

    def __init__(self, backend, gate) -> None:
        self._backend, self._gate = backend, gate

    def __getattr__(self, name: str):
        found = getattr(self._backend, name)
        if not callable(found):
            return found

        def call(*arguments, **options):
            self._gate()
            return found(*arguments, **options)

        return call


def make(store: ArtifactStore, one: Recipe):
    """As a stage: find it, or make it."""
    found = store.find(one)
    if found is None:
        with store.create(one) as writer:
            writer.path("data.txt").write_text(f"{one.kind} of any run")
        found = writer.artifact
    return found


def run(store: ArtifactStore) -> None:
    """As a pipeline: claim, look, make what is missing, read what was made before."""
    with store.lease("weekly") as lease:
        data = recipe("data")
        lease.use([(data.kind, data.key)])
        made = [make(store, data)]
        for kind in ("student", "model"):
            following = recipe(kind, 0, before=made[-1])
            lease.use([(following.kind, following.key), (made[-1].kind, made[-1].key)])
            before = store.get(made[-1].kind, made[-1].key)
            assert before.path("data.txt").read_text() == f"{before.kind} of any run"
            made.append(make(store, following))
        for one in made:
            assert one.path("data.txt").exists()


def unclaimed(url: str) -> None:
    """A store in which an earlier run left what this one needs, and nothing keeps it."""
    store = ArtifactStore(url)
    data = make(store, recipe("data"))
    make(store, recipe("student", 0, before=data))
    make(store, recipe("data", 1))


def interleave(url: str, order: Iterable[bool]) -> tuple[Actor, Actor]:
    """Run both, the next step being the run's where the order says so; then by turns."""
    unclaimed(url)
    runner = Actor(url, run)
    collector = Actor(url, lambda store: store.collect(RULES, delete=True, older_than=0) and None)
    for is_run in order:
        (runner if is_run else collector).step()
    while not (runner.ended and collector.ended):
        runner.step()
        collector.step()
    for actor in (runner, collector):
        if actor.error is not None:
            raise actor.error
    store = ArtifactStore(url)
    assert {"data", "student", "model"} <= {m.kind for m in store.artifacts()}
    assert all(found.ok for found in store.verify())
    store.collect(RULES, delete=True, older_than=0)
    assert [m.kind for m in store.artifacts()] == ["data", "model", "student"]
    assert leases.read_claims(store._backend) == []
    return runner, collector


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(leases, "_WAIT_SECONDS", 0)
    # Else all that is in these stores is young enough to be kept.
    monkeypatch.setattr(garbage, "_SLACK_SECONDS", 0)
    monkeypatch.setattr("storage.local.sync", lambda path: None)


@settings(deadline=None, max_examples=150)
@given(first=st.booleans(), lengths=st.lists(st.integers(1, 40), max_size=6))
def test_in_any_order_of_steps_the_run_has_what_it_relies_on(first, lengths):
    order = [first ^ bool(number % 2) for number, n in enumerate(lengths) for _ in range(n)]
    interleave(f"memory://beside-{os.getpid()}-{next(_STORES)}/runs", order)


@pytest.mark.parametrize("first", [True, False], ids=["run", "collection"])
def test_wherever_one_stops_for_the_whole_of_the_other(tmp_path, first):
    for steps in range(200):
        both = [first] * steps + [not first] * 300
        started = interleave(str(tmp_path / str(steps)), both)[0 if first else 1]
        if started.steps < steps:
            return
    raise AssertionError("there are more steps than were tried")


def test_a_run_that_does_not_claim_would_lose_what_it_found(tmp_path):
    # That the tests above can fail: without claims there is an order that harms.
    def careless(store):
        data = make(store, recipe("data"))
        assert store.get(data.kind, data.key).path("data.txt").exists()

    harmed = 0
    for steps in range(12):
        url = str(tmp_path / str(steps))
        unclaimed(url)
        actor = Actor(url, careless)
        for _ in range(steps):
            actor.step()
        ArtifactStore(url).collect(RULES, delete=True, older_than=0)
        while not actor.ended:
            actor.step()
        harmed += actor.error is not None
    assert harmed


RUNS = """
import sys
sys.path.insert(0, "tests/storage")
from test_garbage_beside_runs import run
from storage import ArtifactStore
for _ in range(int(sys.argv[2])):
    run(ArtifactStore(sys.argv[1]))
"""

COLLECTIONS = """
import sys
from pathlib import Path
from helpers.collecting import RULES
from storage import ArtifactStore, Rules, garbage
garbage._SLACK_SECONDS = 0
# Not even finished runs are kept: all that a run has it has by its claim.
rules = Rules(roots=lambda manifests: {}, owns=RULES.owns)
while not Path(sys.argv[2]).exists():
    ArtifactStore(sys.argv[1]).collect(rules, delete=True, older_than=0, unfinished=0)
"""


def test_processes_that_run_and_collect_at_the_same_time(tmp_path):
    root, end = tmp_path / "store", tmp_path / "end"
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"}

    def start(script, *arguments):
        command = [sys.executable, "-c", script, str(root), *map(str, arguments)]
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
        )

    ArtifactStore(root)
    collector, runners = start(COLLECTIONS, end), [start(RUNS, 4) for _ in range(2)]
    said = [runner.communicate()[1] for runner in runners]
    end.touch()
    said.append(collector.communicate()[1])
    assert [process.returncode for process in (*runners, collector)] == [0, 0, 0], said
