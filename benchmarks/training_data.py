"""The bags that `training.py` trains on: the first n-grams of real texts, as many of each.

From features that the pipeline has made, or made here of the IMDB reviews in a directory of data
(train and the unlabelled ones), over the vocabulary of their most frequent n-grams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from training_contestants import read_bags

from sparsedistill.bags import Bags
from sparsedistill.building import build_vocabulary
from sparsedistill.tensor_files import write_tensors
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from storage import read_texts

if TYPE_CHECKING:
    from pathlib import Path

REVIEWS = ("imdb/train.parquet", "corpora/imdb_unsup.parquet")
_BYTES = 48 << 20


def make_features(data: Path, work: Path, *, rows: int, threads: int) -> Path:
    """Return a file with the bags of all reviews; it is made where it is not there yet."""
    made = work / f"reviews-{rows}.safetensors"
    if not made.exists():
        texts = TextBuffer.from_strings(
            [
                text
                for name in REVIEWS
                for batch in read_texts(data / name, on_bad=print)
                for text in batch
                if text
            ]
        )
        vocabulary = build_vocabulary([texts], NgramSpec(), size=rows, threads=threads)
        write_bags(made, vocabulary.bags(texts, threads=threads))
    return made


def made_up_features(work: Path, *, rows: int, ngrams: int, texts: int) -> Path:
    """Return a file with bags of random n-grams, the first rows the most frequent."""
    rng = np.random.default_rng(0)
    drawn = np.minimum(rng.zipf(1.3, texts * ngrams) - 1, rows - 1).astype(np.int32)
    path = work / "made-up.safetensors"
    write_bags(path, Bags(drawn, np.arange(texts + 1) * ngrams))
    return path


def first_ngrams(features: list[Path], ngrams: int, work: Path, *, batch: int) -> Path:
    """Return a file with the first so many n-grams of each text that has as many.

    Texts are taken up to 48 MB. There must be enough for a batch.
    """
    most = _BYTES // (4 * ngrams)
    parts = []
    for path in features:
        bags = read_bags(path)
        long = np.flatnonzero(np.diff(bags.offsets) >= ngrams)[: most - sum(map(len, parts))]
        parts.append(bags.rows[bags.offsets[long][:, None] + np.arange(ngrams)])
    rows = np.concatenate(parts)
    if len(rows) < batch:
        raise SystemExit(
            f"only {len(rows):,} texts have {ngrams} known n-grams, a batch is {batch:,}: "
            "give features of more or longer texts"
        )
    path = work / f"first-{ngrams}.safetensors"
    write_bags(path, Bags(rows.reshape(-1), np.arange(len(rows) + 1) * ngrams))
    return path


def write_bags(path: Path, bags: Bags) -> None:
    """Write bags as a features artifact has them."""
    ids = np.arange(len(bags), dtype=np.uint64)
    write_tensors(path, {"ids": ids, "offsets": bags.offsets, "rows": bags.rows})
