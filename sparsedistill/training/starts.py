"""Where a table starts, beside at random: at the teacher's embeddings, or at an earlier student's.

Both know something of an n-gram before the first update. What the teacher gives is the mean of its
embeddings of the n-gram's tokens; what an earlier student gives are its rows of the n-grams that
both vocabularies have, so that a student that is made anew every week need not forget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparsedistill.bags import Bags
from sparsedistill.errors import DataError, TeacherError
from sparsedistill.parallel import map_ranges
from sparsedistill.students.stepping import one_torch_thread
from sparsedistill.students.tokens import token_ids
from sparsedistill.text.buffers import frozen
from sparsedistill.training.held import put
from sparsedistill.training.order import update_generator
from sparsedistill.training.row_kernels import pool_rows
from sparsedistill.training.row_types import BFLOAT16, from_bfloat16

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from sparsedistill.students.dan import DAN
    from sparsedistill.training.table import EmbeddingTable
    from sparsedistill.vocabulary import Vocabulary

# Rows made together; also those that share random numbers.
_BLOCK, _START = 16_384, 5
# The most frequent rows, which say in which directions n-grams differ.
_FIT_ROWS = 32_768
_NGRAM_TOKENS = 64
_BAGS_A_CALL = 1024


def start_from_teacher(
    table: EmbeddingTable,
    vocabulary: Vocabulary,
    *,
    tokenizer: Any,  # noqa: ANN401
    embeddings: npt.NDArray[np.float32],
    scale: float,
    seed: int,
    threads: int,
) -> None:
    """Fill a table with what the teacher's embeddings say of each n-gram.

    A row is the mean over the n-gram's tokens, special ones left out, turned by a principal
    component analysis: the columns are those in which the most frequent rows differ most, in that
    order. One factor for all makes the standard deviation of those rows ``scale``. Where the
    teacher's embeddings are narrower than the table, the other columns are random. An n-gram of
    which the tokenizer knows nothing gets the mean of all, which is zero.

    A million n-grams take about half a minute on one core, nearly all of it the tokenizer's, and
    beside the table some tens of megabytes; a larger table begins with the rows of a smaller one,
    where both have the most frequent rows.

    Args:
        table: To fill.
        vocabulary: Its rows are the table's.
        tokenizer: The teacher's, of transformers (``teacher.checkpoint.load_tokenizer``).
        embeddings: The teacher's, of its tokens, float32 [tokens, any].
        scale: Standard deviation.
        seed: Of random columns.
        threads: Any number gives the same rows.

    Raises:
        DataError: The vocabulary has another number of rows.
        TeacherError: Tokenizer and embeddings do not belong together, or the embeddings are all
            alike or not finite.
    """
    rows, width = table.weights.shape
    if len(vocabulary) != rows:
        raise DataError(f"a table of {rows:,} rows, but a vocabulary of {len(vocabulary):,} n-grams")
    reader = _TokenReader(vocabulary, tokenizer, len(embeddings))
    fitted = _pooled(embeddings, reader.read(0, min(rows, _FIT_ROWS)), threads)
    # The mean and the turn are both linear, so tokens are turned instead of n-grams.
    turned = _turned(embeddings, fitted, width, scale)
    for first in range(0, rows, _BLOCK):
        bags = reader.read(first, min(first + _BLOCK, rows))
        values = _pooled(turned, bags, threads)
        if values.shape[1] < width:
            generator = update_generator(seed, first // _BLOCK, _START)
            size = len(values), width - values.shape[1]
            random = generator.standard_normal(size, np.float32) * np.float32(scale)
            values = np.concatenate([values, random], axis=1)
        table.fill(first, values)


@dataclass(frozen=True, slots=True)
class _TokenReader:
    """Turns n-grams into the tokens of a teacher with so many embeddings."""

    vocabulary: Vocabulary
    tokenizer: Any
    tokens: int

    def read(self, first: int, last: int) -> Bags:
        """Return the tokens of the n-grams of some rows, without special ones."""
        strings = list(self.vocabulary.ngrams.slice(first, last))
        if self.vocabulary.spec.tokenizer == "character":
            strings = [text.replace(" ", "") for text in strings]
        # As inside of a text: to many tokenizers a word after a space is another one.
        texts = [f" {text}" for text in strings]
        found = token_ids(texts, self.tokenizer, max_length=_NGRAM_TOKENS)
        if len(found.rows) and int(found.rows.max()) >= self.tokens:
            raise TeacherError(
                f"the tokenizer has a token {int(found.rows.max())}, the teacher embeddings of "
                f"{self.tokens}: they are not of one checkpoint"
            )
        known = ~np.isin(found.rows, self.tokenizer.all_special_ids)
        before = np.concatenate([[0], np.cumsum(known)])
        return Bags(found.rows[known], before[found.offsets])


def _pooled(
    embeddings: npt.NDArray[np.float32], bags: Bags, threads: int
) -> npt.NDArray[np.float32]:
    """Return the mean embedding of each bag, zero for an empty one, float32 [bags, width]."""
    out = np.empty((len(bags), embeddings.shape[1]), np.float32)
    table = frozen(embeddings, np.float32)

    def work(begin: int, end: int) -> None:
        pool_rows(bags.rows, bags.offsets[begin : end + 1], table, True, out[begin:end])

    map_ranges(work, len(bags), block=_BAGS_A_CALL, threads=threads)
    return out
