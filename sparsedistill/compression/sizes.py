"""How many bytes a model takes on disk, without writing it.

What is counted: the tensors, the index (a hash a row, and slots of a power of two), the compressed
n-grams, and something for headers and `config.json`. Who must stay below a limit measures the
directory in the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from sparsedistill.compression.held_out import Shape
from sparsedistill.files import write_strings
from sparsedistill.model_format import CONFIG_FILE, read_config
from sparsedistill.ngram_index import slots_needed

if TYPE_CHECKING:
    from sparsedistill.folded import FoldedModel
    from sparsedistill.vocabulary import Vocabulary

# Of the three files' headers and what is always in config.json.
_HEADERS = 2048
_HASH_BYTES = _SLOT_BYTES = 8
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class SizeEstimate:
    """Bytes of a model by its rows and its shape.

    Attributes:
        rows: Of the full model.
        width: Numbers in a row.
        hidden: Width of the hidden layer.
        fixed: Bytes that do not depend on the rows.
        string_bytes: Compressed bytes of an n-gram, on average.
        bridges: Bridges in the index for each row.
    """

    rows: int
    width: int
    hidden: int
    fixed: int
    string_bytes: float
    bridges: float

    @classmethod
    def of(cls, model: FoldedModel, vocabulary: Vocabulary) -> SizeEstimate:
        """Return the estimate that is exact for this model."""
        layers = (model.hidden_bias, model.head_weight, model.head_bias)
        return cls(
            rows=len(vocabulary),
            width=model.width,
            hidden=model.hidden,
            fixed=sum(layer.nbytes for layer in layers) + _HEADERS,
            string_bytes=_compressed(vocabulary) / max(1, len(vocabulary)),
            bridges=model.index.bridges / max(1, len(vocabulary)),
        )

    def like(self, vocabulary: Vocabulary) -> SizeEstimate:
        """Return the estimate with the n-grams of a pruned vocabulary for an example."""
        rows = max(1, len(vocabulary))
        return replace(
            self,
            string_bytes=_compressed(vocabulary) / rows,
            bridges=vocabulary.index.bridges / rows,
        )

    def bytes(self, keep: int, shape: Shape) -> int:
        """Return how many bytes a model of so many rows takes."""
        scale = _FLOAT_BYTES if shape.dtype == "int8" else 0
        row = shape.width * np.dtype(shape.dtype).itemsize + scale + _HASH_BYTES
        projection = shape.width * self.hidden * _FLOAT_BYTES if shape.width < self.hidden else 0
        slots = slots_needed(keep + round(keep * self.bridges))
        strings = round(keep * self.string_bytes)
        return self.fixed + projection + keep * row + strings + _SLOT_BYTES * slots

    def largest(self, limit: int, shape: Shape) -> int:
        """Return how many rows fit below a limit, 0 if none do."""
        low, high = 0, self.rows
        while low < high:
            middle = (low + high + 1) // 2
            if self.bytes(middle, shape) <= limit:
                low = middle
            else:
                high = middle - 1
        return low


def model_bytes(model: FoldedModel, vocabulary: Vocabulary) -> int:
    """Return how many bytes the model takes on disk, to about a thousand."""
    return SizeEstimate.of(model, vocabulary).bytes(
        len(vocabulary), Shape(model.width, model.table_type)
    )


def saved_bytes(directory: str | Path) -> int:
    """Return how many bytes the files of a saved model take together."""
    config = Path(directory) / CONFIG_FILE
    files = read_config(directory).files
    return config.stat().st_size + sum(size for size, _ in files.values())


def _compressed(vocabulary: Vocabulary) -> int:
    with TemporaryDirectory() as directory:
        file = Path(directory) / "ngrams"
        write_strings(file, vocabulary.ngrams)
        return file.stat().st_size
