"""The whole pipeline on an object store with a Dask cluster, of which a worker is killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers.chaos import ROOT, Forks
from helpers.dask_cluster import dask_cluster
from helpers.in_hand import STAGES, built, stop_at_work
from helpers.prefect_server import prefect_server
from helpers.tiny_task import run_config, write_toml

from flows.delivery import RunResult
from storage import ArtifactStore

MEASURED = {"evaluation", "report"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_that_loses_a_worker_makes_the_bytes_of_local_threads(
    tiny_data: Path,
    tiny_run: RunResult,
    tiny_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("prefect_dask")
    pytest.importorskip("moto.server")
    from helpers.faulty_s3 import FaultyS3

    put: set[str] = set()
    log = tmp_path / "log.jsonl"

    def note(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/manifest.json"):
            put.add("/".join(path.split("/")[-3:-1]))

    with FaultyS3(rate=0.01, seed=6) as s3, prefect_server(tmp_path / "prefect") as prefect:
        url = s3.make_bucket("cluster")
        s3.on_request = note
        variables = {**s3.environment, **prefect, "SPARSEDISTILL_CACHE": str(tmp_path / "cache")}

        def own(number: int) -> dict[str, str]:
            """A cache each: workers on several machines share no disk."""
            return {
                **variables,
                "SPARSEDISTILL_CACHE": str(tmp_path / f"cache-of-{number}"),
                "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
                "OMP_NUM_THREADS": "1",
            }

        with (
            dask_cluster(tmp_path, workers=2, environment=own) as (address, workers),
            Forks(tmp_path / "log", variables, ["prefect", "flows.prefect_runner"]) as forks,
        ):
            run = {"store": url, "runner": "dask", "dask_address": address, "workers": 2}
            config = run_config(tiny_data, Path("unused"), run=run)
            toml = write_toml(tmp_path / "tiny.toml", config)
            forks.start(["distill", str(toml), "--out", str(tmp_path / "out"), "--log", str(log)])
            while len(put) < 12 and not forks.ended():
                time.sleep(0.01)
            worker, cache = workers[0], Path(own(1)["SPARSEDISTILL_CACHE"])
            lost = stop_at_work(
                worker, lambda: (cache / "tmp").glob("*"), ended=forks.ended,
                # Else it may be an input that is on its way.
                wanted=lambda one: f"{one.stage}/{one.key}" not in put,
            )  # fmt: skip
            os.kill(worker, signal.SIGKILL)
            assert forks.wait() == 0, forks.said()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        s3.rate = 0.0
        store = ArtifactStore(url)
        there = {(one.kind, one.key): one for one in store.artifacts()}
        assert all(found.ok for found in store.verify())
    told = built(log)
    names = Counter(f"{kind}/{key}" for kind, key in there if kind in STAGES)
    assert told - names == {}, "what was made was made again"
    assert set(names - told) <= {f"{one.stage}/{one.key}" for one in lost}
    for one in ArtifactStore(tiny_store).artifacts():
        if one.kind not in MEASURED:
            assert there.pop((one.kind, one.key)).files == one.files
    assert {kind for kind, _ in there} == MEASURED
    sys.stdout.write(f"{s3.told()}\n")
