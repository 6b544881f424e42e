"""N-grams against scikit-learn at scale: generated texts, every code point, and real corpora.

The slow tests say how much they compared with `-o log_cli=true --log-cli-level=INFO`.
"""

import logging
import random
from itertools import chain
from pathlib import Path

import ngram_cases
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ngram_cases import SPECS, vectorizer
from scipy.sparse import csr_matrix

from sparsedistill.text import oracle
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.counting import count_ngrams
from sparsedistill.text.ngram_spec import TOKEN_PATTERNS, NgramSpec
from sparsedistill.text.strings import hash_strings
from sparsedistill.text.tokens import token_hashes
from sparsedistill.vocabulary import Vocabulary

log = logging.getLogger(__name__)

ALPHABETS = [
    ngram_cases._SIGMAS,
    ngram_cases._LOWERING,
    ngram_cases._ASCII,
    ngram_cases._SPACES,
    ngram_cases._ASTRAL,
]
WORDS = ["the", "The", "film", "was", "a", "ΟΔΟΣ", "İzmir", "don't", "very", "x1", "straße", "ǅΣ."]
UNLIMITED = 1 << 40

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = sorted(DATA.glob("**/*.parquet"))
NO_TEXTS = {"doc_id", "source", "category"}
SAMPLE = 1000


def code_point(rng):
    code = rng.randrange(0x110000 - 0x800)
    return chr(code if code < 0xD800 else code + 0x800)


def any_text(rng):
    kind = rng.randrange(5)
    length = rng.randrange(40)
    if kind == 0:
        return "".join(rng.choices(rng.choice(ALPHABETS), k=length))
    if kind == 1:
        return "".join(rng.choices("".join(ALPHABETS), k=length))
    if kind == 2:
        return "".join(code_point(rng) for _ in range(length))
    words = rng.choices(WORDS, k=length // 3)
    if kind == 3:
        return " ".join(words)
    joints = "".join(ALPHABETS)
    return "".join(word + rng.choice((" ", rng.choice(joints), code_point(rng))) for word in words)


def generated(seed, rows):
    rng = random.Random(seed)
    return [any_text(rng) for _ in range(rows)]


def assert_same_bags(vocabulary, texts, judged):
    bags = vocabulary.bags(texts, max_ngrams=UNLIMITED)
    ones = np.ones(len(bags.rows), np.int64)
    found = csr_matrix(
        (ones, bags.rows.copy(), bags.offsets.copy()), shape=(len(texts), len(vocabulary))
    )
    found.sum_duplicates()
    judged.sort_indices()
    np.testing.assert_array_equal(found.indptr, judged.indptr)
    np.testing.assert_array_equal(found.indices, judged.indices)
    np.testing.assert_array_equal(found.data, judged.data)


def compared(corpus, spec):
    """Compare counts and bags with scikit-learn; returns how many n-grams that were."""
    texts = TextBuffer.from_strings(corpus)
    judge = vectorizer(spec)
    matrix = judge.fit_transform(corpus)
    names = judge.get_feature_names_out().tolist()
    hashes, orders, _ = hash_strings(TextBuffer.from_strings(names))
    by_hash = np.lexsort((hashes, orders))
    counts = count_ngrams(texts, spec)
    np.testing.assert_array_equal(counts.hash, hashes[by_hash])
    np.testing.assert_array_equal(counts.order, orders[by_hash])
    np.testing.assert_array_equal(counts.count, np.asarray(matrix.sum(axis=0)).ravel()[by_hash])
    assert_same_bags(Vocabulary.from_ngrams(spec, names), texts, matrix)
    # A vocabulary with holes and in another order, as a pruned one has it.
    some = names[::-3]
    transformed = vectorizer(spec, vocabulary=some).transform(corpus)
    assert_same_bags(Vocabulary.from_ngrams(spec, some), texts, transformed)
    return int(counts.count.sum())


def assert_same_tokens(texts, tokens, spec, hashes_of):
    """Compare the hashes of all tokens, row by row; returns how many tokens there are."""
    hashes, ends = token_hashes(texts, spec)
    np.testing.assert_array_equal(np.diff(ends), [len(row) for row in tokens])
    np.testing.assert_array_equal(hashes, hashes_of(chain.from_iterable(tokens)))
    return len(hashes)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_counts_and_bags_of_generated_texts_are_those_of_count_vectorizer(spec):
    assert compared(generated("quick", 2000), spec) > 5000


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_counts_and_bags_of_100_000_generated_texts_are_those_of_count_vectorizer(spec):
    ngrams = sum(compared(generated(seed, 10_000), spec) for seed in range(10))
    log.info("%s: 100,000 texts, %s n-grams", spec, f"{ngrams:,}")


def kernel_hashes(tokens):
    # Another test compares this kernel with the oracle, which would take minutes here.
    return hash_strings(TextBuffer.from_strings(list(tokens)))[0]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tokenizer", TOKEN_PATTERNS)
def test_each_code_point_in_each_context_is_tokenised_as_scikit_learn_does(tokenizer):
    spec = NgramSpec(tokenizer, 1, 1)
    analyze = vectorizer(spec).build_analyzer()
    codes = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    contexts = (
        "{0}", "a{0}", "{0}a", "a{0}b", "{0}{0}", "Σ{0}", "{0}Σ", "aΣ{0}", "aΣ{0}b", "A{0}Σ",
        "A{0}Σ{0}b", "1{0}_", "İ{0}", "A\u0301{0}Σ", "AΣ\u00ad{0}", "一{0}",
    )  # fmt: skip
    texts = tokens = 0
    for at in range(0, len(codes), 1 << 14):
        some = codes[at : at + (1 << 14)]
        rows = [context.format(code) for context in contexts for code in some]
        packed = TextBuffer.from_strings(rows)
        tokens += assert_same_tokens(packed, list(map(analyze, rows)), spec, kernel_hashes)
        texts += len(rows)
    log.info("%s: %s texts of every code point, %s tokens", tokenizer, f"{texts:,}", f"{tokens:,}")


class OracleHashes(dict):
    """Hashes of tokens by the oracle, each computed once."""

    def __missing__(self, token):
        if len(self) > 1_500_000:
            self.clear()
        self[token] = oracle.token_hash(token)
        return self[token]


def text_columns(file):
    return [
        column.name
        for column in file.schema_arrow
        if pa.types.is_string(column.type) and column.name not in NO_TEXTS
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not FILES, reason=f"no Parquet files in {DATA}")
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DATA)))
def test_tokens_and_ngrams_of_real_texts_are_those_of_scikit_learn(path):
    file = pq.ParquetFile(path)
    tokenizers = ["word", "whitespace"] + ["character"] * path.parent.name.startswith("zh_")
    for column in text_columns(file):
        for tokenizer in tokenizers:
            spec = NgramSpec(tokenizer)
            analyze = vectorizer(NgramSpec(tokenizer, 1, 1)).build_analyzer()
            known = OracleHashes()

            def hashes_of(tokens, known=known):
                return np.fromiter(map(known.__getitem__, tokens), np.uint64)

            step = -(-file.metadata.num_rows // SAMPLE)
            rows = tokens = 0
            sample = []
            for batch in file.iter_batches(10_000, columns=[column]):
                texts = batch.column(0).drop_null()
                strings = texts.to_pylist()
                packed = TextBuffer.from_arrow(texts)
                tokens += assert_same_tokens(packed, list(map(analyze, strings)), spec, hashes_of)
                rows += len(strings)
                sample += strings[::step]
            log.info(
                "%s %s %s: %s texts, %s tokens; of %s texts %s n-grams",
                path.relative_to(DATA), column, tokenizer,
                *(f"{n:,}" for n in (rows, tokens, len(sample), compared(sample, spec))),
            )  # fmt: skip
