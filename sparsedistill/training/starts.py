"""Where a table starts, beside at random: at the teacher's embeddings, or at an earlier student's.

Both know something of an n-gram before the first update. What the teacher gives is the mean of its
embeddings of the n-gram's tokens; what an earlier student gives are its rows of the n-grams that
both vocabularies have, so that a student that is made anew every week need not forget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sparsedistill.bags import Bags
from sparsedistill.errors import DataError, TeacherError
from sparsedistill.students.tokens import token_ids
from sparsedistill.torch_threads import one_torch_thread
from sparsedistill.training.held import put
from sparsedistill.training.order import update_generator
from sparsedistill.training.row_types import BFLOAT16, from_bfloat16
from sparsedistill.training.table import pooled

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from sparsedistill.students.dan import DAN
    from sparsedistill.training.table import EmbeddingTable
    from sparsedistill.vocabulary import Vocabulary

# Rows made together, which also share random numbers; and rows whose float64 are held at a time.
_BLOCK, _PART, _START = 16_384, 2048, 5
# The most frequent rows, which say in which directions n-grams differ.
_FIT_ROWS = 32_768
_NGRAM_TOKENS = 64
# Variance, as a share of the mean's square, that is rounding.
_ALIKE = 1e-12


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

    A million n-grams take about 40 seconds on one core, nearly all of them the tokenizer's. Beside
    the table there are never more than the vectors of the most frequent rows (32,768, as wide as
    the teacher's) and of a block of rows.

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
        raise DataError(
            f"a table of {rows:,} rows, but a vocabulary of {len(vocabulary):,} n-grams"
        )
    reader = _TokenReader(vocabulary, tokenizer, len(embeddings))
    frequent = reader.read(0, min(rows, _FIT_ROWS))
    known = frequent.take(np.flatnonzero(np.diff(frequent.offsets)))
    # The mean and the turn are both linear, so tokens are turned instead of n-grams.
    turned = _turned(
        embeddings, pooled(embeddings, known, mean=True, threads=threads), width, scale
    )
    for first in range(0, rows, _BLOCK):
        bags = reader.read(first, min(first + _BLOCK, rows))
        values = pooled(turned, bags, mean=True, threads=threads)
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


def _turned(
    embeddings: npt.NDArray[np.float32], sample: npt.NDArray[np.float32], width: int, scale: float
) -> npt.NDArray[np.float32]:
    """Return embeddings in at most ``width`` principal components of a sample, scaled."""
    with one_torch_thread():
        rows = torch.from_numpy(sample)
        mean = rows.mean(dim=0, dtype=torch.float64)
        covariance = torch.zeros((len(mean), len(mean)), dtype=torch.float64)
        for part in torch.split(rows, _PART):
            away = part.double() - mean
            covariance += away.T @ away / len(rows)
        if not covariance.trace() > _ALIKE * mean.square().sum():
            raise TeacherError(
                "the teacher's embeddings do not tell the most frequent n-grams apart, or are not "
                "finite numbers: start at random"
            )
        variances, axes = torch.linalg.eigh(covariance)
        variances, axes = variances.flip(0)[:width], axes.flip(1)[:, :width]
        # An axis has two directions: of the two, the one in which its greatest part is positive.
        greatest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
        axes *= greatest.sign() * scale / variances.mean().sqrt()
        turned = np.empty((len(embeddings), len(variances)), np.float32)
        for first in range(0, len(embeddings), _PART):
            away = torch.tensor(embeddings[first : first + _PART], dtype=torch.float64) - mean
            turned[first : first + _PART] = away @ axes
    return turned


def same_ngrams(new: Vocabulary, old: Vocabulary) -> npt.NDArray[np.int32]:
    """Return the row that each n-gram of a vocabulary has in another, int32 [new]; -1 for none."""
    rows = old.index.find(new.hashes)
    known = np.flatnonzero(rows >= 0)
    # The index compares most bits of a hash; here all of them can be.
    same = known[old.hashes[rows[known]] == new.hashes[known]]
    found = np.full(len(rows), -1, np.int32)
    found[same] = rows[same]
    return found


def start_from_student(
    student: DAN, weights: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[np.int32]
) -> list[str]:
    """Take over what an earlier student has learnt; the rest stays as it started.

    Args:
        student: That has learnt nothing yet.
        weights: Of the earlier student, whose labels are the same, in the same order.
        rows: The row there of each row here, or -1, as ``same_ngrams`` has it.

    Returns:
        The dense weights that were taken over: those of the same shape.

    Raises:
        DataError: The earlier student's rows have another width, or ``rows`` another length.
    """
    old, table = weights["table"], student.table
    if len(rows) != table.weights.shape[0] or old.shape[1] != table.weights.shape[1]:
        raise DataError(
            f"a table of {list(table.weights.shape)} cannot take {len(rows):,} rows over from one "
            f"of {list(old.shape)}: set the width that the earlier student has"
        )
    for first in range(0, len(rows), _BLOCK):
        wanted = rows[first : first + _BLOCK]
        known = wanted >= 0
        here = np.arange(first, first + len(wanted), dtype=np.int32)
        values = table.pool(Bags(here, np.arange(len(here) + 1))).numpy(force=True)
        found = old[wanted[known]]
        values[known] = from_bfloat16(found) if old.dtype == BFLOAT16 else found
        table.fill(first, values)
    taken = [
        name
        for name, held in student.dense.items()
        if name in weights and weights[name].shape == tuple(held.shape)
    ]
    for name in taken:
        put(student.dense[name], weights[name])
    return taken
