"""A corpus with everything in it that breaks readers and models: the good rows do not notice.

One word's embedding is so large that every logit of a text with it overflows.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers.stages import Workshop
from helpers.tiny_task import texts
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from sparsedistill.errors import DataError
from sparsedistill.teacher.labelling import NOT_FINITE
from tasks.corpus import QUARANTINE_FILE as BAD_ROWS
from tasks.logit_file import read_logits
from tasks.logits import QUARANTINE_FILE
from tasks.shards import open_input, read_shard

WORD = "oven"
GOOD = [text for text, _ in texts(400, seed=21) if WORD not in text.split()]
# Under the megabyte that a row may have: it is read, and cut.
LONG = "soil " * 200_000
HOSTILE = [
    b"",
    b"   ",
    b"\xff\xfe not a text",
    b"rose \x00 soil",
    b"tulip " * 300_000,
    LONG.encode(),
    b"soil \xc3",
]
POISON = [f"{WORD} {word}" for word in ("rose", "soil", "seed", "mill")]
TABLES = {
    "teacher": {"checkpoint": "overflowing", "finetune": False},
    "corpus": {"rows_per_shard": 1000, "max_bad_share": 0.5},
    "run": {"threads": 2},
}


@pytest.fixture
def data(own_data: Path, tiny_classifier: Path) -> Path:
    directory = Path(shutil.copytree(tiny_classifier, own_data / "overflowing"))
    word = AutoTokenizer.from_pretrained(directory).convert_tokens_to_ids(WORD)
    weights = load_file(directory / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][word] = 3e38
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    for name in ("train", "dev", "test"):
        rows = (own_data / f"{name}.csv").read_text("utf-8").splitlines()
        kept = [row for row in rows if WORD not in row.partition(",")[0].split()]
        (own_data / f"{name}.csv").write_text("\n".join(kept) + "\n", "utf-8")
    return own_data


def write_corpus(data: Path, lines: list[bytes]) -> None:
    (data / "corpus.txt").write_bytes(b"".join(line + b"\n" for line in lines))


def corpus_rows(workshop: Workshop, **tables) -> tuple[dict[str, np.ndarray], dict, object]:
    """Logits by text, statistics and the artifact of the corpus's one shard."""
    made = workshop.make("logits", **{**TABLES, **tables})
    artifact = made["logits"][0]
    shard = read_shard(workshop.store, artifact.manifest.inputs["texts"][0])
    of = dict(zip(shard.ids.tolist(), shard.texts, strict=True))
    ids, values = read_logits(artifact)
    return {of[i]: row for i, row in zip(ids.tolist(), values, strict=True)}, of, artifact


def test_good_rows_have_the_same_logits_as_without_the_poison(data: Path, tmp_path: Path):
    write_corpus(data, [text.encode() for text in GOOD])
    clean, _, _ = corpus_rows(Workshop(data, tmp_path / "clean"))
    spread = [text.encode() for text in GOOD]
    for number, line in enumerate([*HOSTILE, *(text.encode() for text in POISON)]):
        spread.insert(number * 29, line)
    write_corpus(data, spread)
    workshop = Workshop(data, tmp_path / "poisoned")
    found, of, artifact = corpus_rows(workshop, logits={"max_quarantined_share": 0.02})

    assert set(clean) == set(GOOD)
    assert set(found) == {*GOOD, LONG}
    for text, logits in clean.items():
        assert found[text].tobytes() == logits.tobytes()

    # Rows that are no text never reach the teacher.
    bad = open_input(workshop.store, workshop.make("corpus", **TABLES)["corpus"][0].as_input())
    reasons = [json.loads(line)["reason"] for line in bad.path(BAD_ROWS).read_text().splitlines()]
    assert len(reasons) == 4
    assert sum("UTF-8" in reason for reason in reasons) == 2
    assert bad.statistics["dropped"]["empty"] == 2

    # Rows that are, and break the teacher, are named with the reason.
    quarantine = pq.read_table(artifact.path(QUARANTINE_FILE)).to_pylist()
    assert {of[row["id"]] for row in quarantine} == set(POISON)
    assert {row["reason"] for row in quarantine} == {NOT_FINITE}
    assert artifact.statistics["quarantined"] == {NOT_FINITE: len(POISON)}
    assert artifact.statistics["rows"] == len(found)
    assert artifact.statistics["covered"] == len(found) / (len(found) + len(POISON))


def test_above_the_cap_the_run_stops_with_the_reason(data: Path, tmp_path: Path):
    write_corpus(data, [text.encode() for text in [*GOOD, *POISON]])
    workshop = Workshop(data, tmp_path / "store")
    with pytest.raises(
        DataError,
        match=rf"fails on 4 of the {len(GOOD) + 4} rows, more than \[logits\] "
        rf"max_quarantined_share = 0.001 lets pass; first row {len(GOOD)} \(id \d+\): "
        rf"{NOT_FINITE}: '{POISON[0]}'. Mend the teacher or the text, or raise the share",
    ):
        workshop.make("logits", **TABLES)
    assert workshop.store.artifacts("logits") == []


def test_one_row_of_a_shard_may_fail_unless_none_may(data: Path, tmp_path: Path):
    write_corpus(data, [text.encode() for text in [*GOOD, POISON[0]]])
    _, _, artifact = corpus_rows(Workshop(data, tmp_path / "store"))
    assert artifact.statistics["quarantined"] == {NOT_FINITE: 1}
    with pytest.raises(DataError, match=r"max_quarantined_share = 0 lets pass"):
        Workshop(data, tmp_path / "other").make(
            "logits", **TABLES, logits={"max_quarantined_share": 0.0}
        )


def test_a_student_is_trained_on_the_rows_that_are_left(data: Path, tmp_path: Path):
    write_corpus(data, [text.encode() for text in [*GOOD, *POISON]])
    workshop = Workshop(data, tmp_path / "store")
    made = workshop.make("student", **TABLES, logits={"max_quarantined_share": 0.02})
    assert torch.isfinite(torch.tensor(made["student"][0].statistics["dev_accuracy"]))
