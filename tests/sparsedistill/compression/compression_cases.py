"""A model of some hundred n-grams with counts, and labelled texts that it is mostly right about."""

import numpy as np

from sparsedistill.folded import FoldedModel
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.ngram_spec import NgramSpec
from sparsedistill.vocabulary import Vocabulary

LABELS = ("a", "b", "c")
WORDS = [f"{a}{b}" for a in "bcdfghjklmnp" for b in "aeiou"]
HIDDEN = 12


def counted_vocabulary():
    """Words, pairs and triples in order of count; bridges are needed once some are pruned."""
    rng = np.random.default_rng(0)
    pairs = [f"{a} {b}" for a in WORDS[:14] for b in WORDS[:14]]
    triples = [f"{pair} {word}" for pair in pairs[::3] for word in WORDS[:2]]
    ngrams = [*WORDS, *pairs, *triples]
    counts = np.sort(rng.zipf(1.4, len(ngrams)).clip(max=10**6))[::-1]
    order = np.concatenate([np.arange(10), 10 + rng.permutation(len(ngrams) - 10)])
    strings = TextBuffer.from_strings([ngrams[i] for i in order])
    plain = Vocabulary.from_strings(NgramSpec(), strings)
    train = rng.binomial(np.minimum(counts, 1000), 0.2)
    return Vocabulary(plain.spec, strings, plain.hashes, counts, train)


def model_of(vocabulary, *, max_ngrams=2048, dtype="float32", table=None):
    rng = np.random.default_rng(1)
    if table is None:
        table = rng.standard_normal((len(vocabulary), HIDDEN)) * 3
    model = FoldedModel(
        labels=LABELS,
        spec=vocabulary.spec,
        index=vocabulary.index,
        max_ngrams=max_ngrams,
        table=table.astype(np.float32),
        hidden_bias=rng.standard_normal(HIDDEN) * 0.1,
        head_weight=rng.standard_normal((len(LABELS), HIDDEN)),
        head_bias=rng.standard_normal(len(LABELS)) * 0.1,
    )
    return model if dtype == "float32" else model.converted(dtype)


def texts(count=150):
    """Random texts of known and unknown words; some empty, one long."""
    rng = np.random.default_rng(2)
    words = [*WORDS[:20], *WORDS, "unknown"]
    rows = [" ".join(rng.choice(words, rng.integers(0, 30))) for _ in range(count - 2)]
    return TextBuffer.from_strings([*rows, "", " ".join(rng.choice(words, 400))])


def labelled(model, count=150):
    """Texts and labels: the model's own answers, a fifth of them changed."""
    found = texts(count)
    truth = model.logits(found).argmax(axis=1)
    return found, np.where(np.arange(count) % 5 == 0, (truth + 1) % len(LABELS), truth)


def without_counts(vocabulary):
    return Vocabulary.from_strings(vocabulary.spec, vocabulary.ngrams)
