"""A task of two classes over 50 n-grams: low rows speak for class 0, high rows for class 1."""

import numpy as np

from sparsedistill.bags import Bags
from sparsedistill.training.loop import Examples


def toy_examples(count, *, seed, labels=False):
    """Examples with the teacher's logits, or with labels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, count)
    lengths = rng.integers(3, 9, count)
    lengths[0] = 0
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = rng.integers(0, 30, offsets[-1]) + 20 * np.repeat(truth, lengths)
    logits = np.stack([1 - 2 * truth, 2 * truth - 1], axis=1) * 2 + rng.normal(0, 0.1, (count, 2))
    return Examples(Bags(rows, offsets), truth if labels else logits.astype(np.float32))
