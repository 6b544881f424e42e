"""What students over subwords learn from: the teacher's tokens of every text.

They are made in the student's own job, a batch of texts at a time, and put into files beside its
checkpoints. So memory does not grow with the corpus, and a run that was killed finds them there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparsedistill.errors import DataError
from sparsedistill.students.tokens import token_ids
from tasks.bag_file import read_bags, write_bags
from tasks.shards import TEXTS_FILE, open_input, read_text_batches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from sparsedistill.bags import Bags
    from storage import ArtifactStore, Input


@dataclass(frozen=True, slots=True)
class TokenFiles:
    """Text shards as tokens, each in a file that is made when it is first asked for.

    Attributes:
        store: Has the texts.
        directory: Of the files; there already, and of one tokenizer and one ``max_length``.
        tokenizer: Of the teacher.
        max_length: Tokens of a text that are kept, the first ones.
        rows: Of the embeddings that the tokens are rows of.
    """

    store: ArtifactStore
    directory: Path
    tokenizer: Any
    max_length: int
    rows: int

    def of(self, texts: Input) -> tuple[npt.NDArray[np.uint64], Bags]:
        """Return ids uint64 [rows] and tokens of a text shard, mapped from its file.

        Raises:
            DataError: The tokenizer gives a token that has no embedding.
        """
        path = self.directory / f"tokens-{texts.key}.safetensors"
        if not path.exists():
            count = open_input(self.store, texts).entry(TEXTS_FILE).rows or 0
            write_bags(path, self._parts(texts), count=count)
        return read_bags(path)

    def _parts(self, texts: Input) -> Iterator[tuple[npt.NDArray[np.uint64], Bags]]:
        for _, batch in read_text_batches(self.store, texts):
            tokens = token_ids(list(batch.texts), self.tokenizer, max_length=self.max_length)
            if len(tokens.rows) and int(tokens.rows.max()) >= self.rows:
                raise DataError(
                    f"the teacher's tokenizer gives token {tokens.rows.max()}, but the teacher has "
                    f"{self.rows:,} embeddings: save model and tokenizer of one checkpoint together"
                )
            yield batch.ids, tokens
