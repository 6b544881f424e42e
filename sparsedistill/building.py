"""A vocabulary straight from texts: counting, choosing and recovering in one call.

The pipeline does the same in stages, with the counts of each shard kept (`tasks/ngrams.py`,
`tasks/vocabulary.py`). This is for texts at hand, in a notebook or a benchmark.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.errors import ConfigError
from sparsedistill.memory import format_size, give_back, parse_size
from sparsedistill.selection import CANDIDATE_BYTES, finish, pool_bytes, select_top
from sparsedistill.text.counting import NgramCounter, least_memory, most_ngrams
from sparsedistill.text.recovery import recover
from sparsedistill.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparsedistill.text.buffers import TextBuffer
    from sparsedistill.text.ngram_spec import NgramSpec


def least_to_choose(size: int, threads: int) -> int:
    """Bytes that choosing so many n-grams cannot do without."""
    return max(pool_bytes(size) + least_memory(threads), CANDIDATE_BYTES * size)


def build_vocabulary(
    texts: Sequence[TextBuffer],
    spec: NgramSpec,
    *,
    size: int,
    min_count: int = 1,
    memory: str | int = "2GB",
    threads: int = 1,
) -> Vocabulary:
    """The `size` most frequent n-grams of texts, by count, then by length, then by bytes.

    Args:
        texts: All rows, in one buffer or in several; they are gone through twice.
        spec: Which n-grams.
        size: Rows wanted; there are fewer if there are fewer n-grams.
        min_count: N-grams with a smaller count are left out.
        memory: For all arrays beside the texts; what does not fit goes to a temporary directory.
        threads: At most this many; the result does not depend on it.

    Raises:
        ConfigError: The memory is too little; says what is enough.
        OSError: The disk is full.
    """
    budget = parse_size(memory)
    least = least_to_choose(size, threads)
    if budget < least:
        raise ConfigError(
            f"{format_size(budget)} of memory are too little to choose {size:,} n-grams; "
            f"{format_size(least)} are the least"
        )
    with tempfile.TemporaryDirectory(prefix="sparsedistill-") as spill:
        counter = NgramCounter(
            spec,
            memory=budget - pool_bytes(size),
            occurrences=sum(most_ngrams(part.nbytes, len(part), spec) for part in texts),
            spill=Path(spill),
            threads=threads,
        )
        for part in texts:
            counter.add(part)
        selection = select_top(counter.parts(), size=size, min_count=min_count, memory=budget)
        del counter
    give_back()
    found = recover(texts, spec, selection.hash, threads=threads)
    chosen = finish(selection, *found, threads=threads)
    return Vocabulary(spec, *chosen, np.zeros(len(chosen.hashes), np.int64))
