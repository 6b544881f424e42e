"""The texts that a model's reference is measured on: some rows from all over the corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.text.buffers import TextBuffer
from tasks.shards import TEXTS_FILE, open_input, read_text_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage import ArtifactStore, Input
    from tasks.shards import TextShard

ROWS = 20_000
"""So many show a difference from which on `drift` speaks of a shift, and many more no other."""

_SHARDS = 16


def reference_shards(corpus: Sequence[TextShard]) -> list[TextShard]:
    """Return the shards to take rows from: at most 16, from the first to the last.

    A corpus lies source after source, so its first rows are not like the others.
    """
    count = min(len(corpus), _SHARDS)
    return [corpus[i] for i in np.linspace(0, len(corpus) - 1, count).round().astype(int)]


def reference_texts(
    store: ArtifactStore, shards: Sequence[Input], *, rows: int = ROWS
) -> TextBuffer:
    """Return rows of some shards at equal steps, as many as asked for or all there are."""
    sizes = [open_input(store, shard).entry(TEXTS_FILE).rows or 0 for shard in shards]
    total = sum(sizes)
    count = min(rows, total)
    wanted = np.arange(count) * total // max(count, 1)
    starts = np.cumsum([0, *sizes])
    parts = []
    for shard, start, stop in zip(shards, starts, starts[1:], strict=False):
        mine = wanted[(wanted >= start) & (wanted < stop)] - start
        first = 0
        for _, batch in read_text_batches(store, shard):
            last = first + len(batch.texts)
            parts.append(batch.texts.take(mine[(mine >= first) & (mine < last)] - first))
            first = last
    return TextBuffer.concat(parts)
