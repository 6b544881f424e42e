"""How far packaged models are from the students that they were made from, on real test sets.

For every `package` artifact of a store: the largest difference of logits, over the whole test set
and over texts that go wrong first (empty, nothing known, a megabyte, every script), between the
training-time model and the folded one with a float32, float16 and int8 table; how many labels
change; and the accuracy of each.

    python benchmarks/exactness.py .sparsedistill/store --test ../shared/data/sst2/test.parquet
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from sparsedistill.compression.folding import fold
from sparsedistill.text.buffers import TextBuffer
from storage import ArtifactStore
from tasks.environment import environment
from tasks.student_file import FILE, read_student
from tasks.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from storage import Artifact

    Row = dict[str, Any]

# A character of every block of 256 that has letters, among words.
SCRIPTS = " ".join(
    f"the {letter}{letter} film"
    for letter in (chr(block) for block in range(0x41, 0x30000, 0x100))
    if letter.isalpha()
)
EDGES = ["", " \t\n", "☃ ☃", "qzxv jqwk", SCRIPTS, "was not good " * 80_000, SCRIPTS * 300]


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description="Compare packaged models with their students.")
    parser.add_argument("store")
    parser.add_argument("--test", type=Path, required=True, help="Parquet of text and label")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    test = pq.read_table(options.test)
    texts = TextBuffer.from_arrow(test["text"])
    truth = test["label"].to_numpy()
    names = json.loads((test.schema.metadata or {}).get(b"label_names", b"[]"))
    store = ArtifactStore(options.store)
    rows = [
        {"package": one.key[:8], **row}
        for one in store.artifacts("package")
        for row in compare(
            store, store.get(one.kind, one.key), texts, truth, names, options.threads
        )
    ]
    table = Table(box=None)
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    about = {"test": options.test.name, "rows": len(texts), **environment(options.threads)}
    Console(width=130).print(table, about)
    if options.json:
        options.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1), "utf-8")
    return 0


def compare(
    store: ArtifactStore,
    package: Artifact,
    texts: TextBuffer,
    truth: np.ndarray[Any, Any],
    names: list[str],
    threads: int,
) -> list[Row]:
    """Return one row a type of table; none for a package of another task."""
    student, vocabulary = (
        store.get(one.kind, one.key)
        for one in (package.manifest.inputs["student"][0], package.manifest.inputs["vocabulary"][0])
    )
    labels: Any = package.statistics["labels"]
    if sorted(labels) != sorted(names):
        return []
    made, known = read_student(student.path(FILE), threads=threads), read_vocabulary(vocabulary)
    limit = int(package.manifest.config["max_ngrams"])  # type: ignore[arg-type]
    both = texts, TextBuffer.from_strings(EDGES)
    trained = [made.predict(known.bags(part, max_ngrams=limit, threads=threads)) for part in both]
    folded = fold(
        made.weights(), known, labels=labels, activation=made.shape.activation, max_ngrams=limit
    )
    right = np.array([labels.index(names[label]) for label in truth])
    rows = []
    for dtype in ("float32", "float16", "int8"):
        model = folded.converted(dtype)  # type: ignore[arg-type]
        found = [model.logits(part, threads=threads) for part in both]
        label = found[0].argmax(axis=1)
        rows.append(
            {
                "table": dtype,
                "difference_test": float(np.abs(found[0] - trained[0]).max()),
                "difference_edges": float(np.abs(found[1] - trained[1]).max()),
                "largest_logit": float(np.abs(trained[0]).max()),
                "labels_changed": int((label != trained[0].argmax(axis=1)).sum()),
                "accuracy_%": f"{100 * float((label == right).mean()):.2f}",
                "trained_%": f"{100 * float((trained[0].argmax(axis=1) == right).mean()):.2f}",
            }
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
