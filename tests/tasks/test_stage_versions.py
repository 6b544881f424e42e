"""A stage whose output changes must say so: its VERSION is part of every key.

The table below holds, for stages that compute with whole numbers or in NumPy alone, the version and
a digest of what they make of a fixed input. Files are decoded first, so that another version of
pyarrow or zstandard does not look like another result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from helpers.stages import Workshop
from helpers.tiny_task import write_labelled, write_lines
from safetensors.numpy import load_file

from sparsedistill.students import DAN, DANShape
from storage import Artifact, Recipe
from tasks import corpus, dataset, features, logits, ngrams, package, vocabulary
from tasks.student_file import FILE as STUDENT_FILE
from tasks.student_file import write_student

GOLDEN = {
    "corpus": (2, "dbb751ca63bcc758"),
    "corpus_shard": (1, "2650247962150560"),
    "dataset": (1, "aa5f4aaa73ef285e"),
    "features": (3, "802a6510d2f33286"),
    "logits": (2, "0416df7ab485669d"),
    "ngrams": (2, "8e092fa91a5eef0a"),
    "package": (2, "c95e7c486ab236de"),
    "vocabulary": (2, "60daa8218eaa9806"),
}

VERSIONS = {
    "dataset": dataset.VERSION,
    "corpus": corpus.VERSION,
    "corpus_shard": corpus.SHARD_VERSION,
    "ngrams": ngrams.VERSION,
    "vocabulary": vocabulary.VERSION,
    "features": features.VERSION,
    "logits": logits.VERSION,
    "package": package.VERSION,
}
WORDS = "river İstanbul Straße naïve 東京 tea's ok ΟΔΟΣ x 42 mill stone".split()  # noqa: SIM905


def line(number: int) -> str:
    """Words picked by arithmetic, so that no random generator is part of the input."""
    return " ".join(WORDS[(number * k + k * k) % len(WORDS)] for k in range(1, 3 + number % 6))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Artifact]]:
    """The stages over the fixed input."""
    data = tmp_path_factory.mktemp("golden")
    texts = [f"{line(i)} {i}" for i in range(90)]
    split = {"train": range(40), "dev": range(40, 60), "test": range(60, 70)}
    for name, rows in split.items():
        write_labelled(data / f"{name}.csv", [(texts[i], "ab"[i % 2]) for i in rows])
    write_lines(data / "corpus.txt", [*texts[65:], "", texts[80], "  ", "a"])
    rows = [[float(i % 7), float(-(i % 5))] for i in range(90)]
    table = pa.table({"text": texts, "logits": rows})
    names = {"label_names": json.dumps(["a", "b"])}
    pq.write_table(table.replace_schema_metadata(names), data / "given.parquet")
    workshop = Workshop(data, data / "store")
    tables = {
        "teacher": None,
        "logits": {"path": "given.parquet"},
        "corpus": {"rows_per_shard": 12},
        "vocabulary": {"size": 150, "min_count": 2},
    }
    found = workshop.make("features", **tables)
    found["logits"] = workshop.make("logits", **tables)["logits"]
    found["corpus_shard"] = [
        workshop.store.get(shard.input.kind, shard.input.key)
        for shard in corpus.shards(found["corpus"][0])
    ]
    found["package"] = [packaged(workshop, found)]
    return found


def packaged(workshop: Workshop, made: dict[str, list[Artifact]]) -> Artifact:
    """Package a student whose weights are small whole numbers, so that sums are exact."""
    rows = int(made["vocabulary"][0].statistics["rows"])
    student = DAN(DANShape(rows, 4, 3, 2, "relu", 1.0))
    numbers = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) % 5 - 2
    student.load(
        {
            "table": numbers,
            "hidden_weight": np.array([[1, 0, -1, 2], [0, 1, 1, 0], [2, -1, 0, 1]], np.float32),
            "hidden_bias": np.array([0, 1, -1], np.float32),
            "head_weight": np.array([[1, -1, 0], [0, 2, 1]], np.float32),
            "head_bias": np.array([0, 1], np.float32),
        }
    )
    with workshop.store.create(Recipe("student", 0, {"made by": "a test"})) as writer:
        write_student(student, writer.path(STUDENT_FILE))
        writer.statistics["dev_accuracy"] = 0.5
    train, dev, _ = made["dataset"]
    config = workshop.config(package={"keep_share": 0.5, "dtype": "int8"}).package
    (job,) = package.jobs(
        config,
        students=[writer.artifact],
        vocabulary=made["vocabulary"][0],
        splits={"train": train, "dev": dev},
        corpus=corpus.shards(made["corpus"][0]),
        max_ngrams=2048,
        threads=1,
    )
    outcome = package.STAGE.run(job, workshop.store)
    return workshop.store.get(outcome.kind, outcome.key)


def content(path: Path) -> Iterator[bytes]:
    """What a file says, in bytes that depend on no library's way of writing it."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        for name in table.column_names:
            yield f"{name} {table[name].to_pylist()}".encode()
    elif path.suffix == ".safetensors":
        for name, array in sorted(load_file(path).items()):
            yield f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes()
    elif path.suffix == ".zst":
        yield zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
    elif path.suffix == ".json":
        document = json.loads(path.read_text("utf-8"))
        for made_elsewhere in ("training", "files", "digest"):
            document.pop(made_elsewhere, None)
        yield json.dumps(document, sort_keys=True).encode()
    else:
        yield path.read_bytes()


def digest(artifacts: list[Artifact]) -> str:
    found = hashlib.sha256()
    for artifact in artifacts:
        # The list of a corpus's shards is in its statistics.
        found.update(json.dumps(artifact.statistics.get("shards"), sort_keys=True).encode())
        for name in artifact.names:
            for part in (name.encode(), *content(artifact.path(name))):
                found.update(b"%d " % len(part) + part)
    return found.hexdigest()[:16]


@pytest.mark.parametrize("stage", sorted(VERSIONS))
def test_a_stage_whose_output_changed_has_another_version(
    stage: str, made: dict[str, list[Artifact]]
):
    version, golden = GOLDEN[stage]
    found = digest(made[stage])
    assert VERSIONS[stage] == version, (
        f"the version of {stage} was raised: put ({VERSIONS[stage]}, {found!r}) into GOLDEN"
    )
    assert found == golden, (
        f"{stage} makes something else of the same input, so what stores hold is stale: raise its "
        f"VERSION in tasks/ to {version + 1} and put ({version + 1}, {found!r}) into GOLDEN"
    )


def test_every_stage_states_a_version_of_its_own():
    """Of stages that train or measure, output is no function of the input alone to the last bit."""
    from tasks import baseline, evaluation, finetune, report, student, teacher

    others = (baseline, evaluation, finetune, report, student, teacher)
    for module in (*others, dataset, corpus, ngrams, vocabulary, features, logits, package):
        assert module.STAGE.version == module.VERSION >= 1
        assert module.STAGE.kind == module.KIND == module.__name__.removeprefix("tasks.")
