"""The finished student as it runs: bytes of text to logits, on the CPU, without torch.

The mean of the n-gram embeddings and the first linear layer are both linear, so the layer is
folded into the table (design, "package"): `hidden = mean of table rows + hidden_bias`,
`logits = head_weight · activation(hidden) + head_bias`. What is left per n-gram is to add one row.

A text that has no known n-gram has the zero vector for its mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sparsedistill.errors import ConfigError, DataError
from sparsedistill.jit import kernel
from sparsedistill.ngram_index import BLOCK, NgramIndex
from sparsedistill.parallel import map_ranges
from sparsedistill.text.buffers import frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.bags import Bags
    from sparsedistill.text.buffers import TextBuffer
    from sparsedistill.text.ngram_spec import NgramSpec

Activation = Literal["relu", "tanh"]
TableType = Literal["float32", "float16", "int8"]

# Rows summed before they are added to the total: 2,048 additions one after another would lose two
# digits, 32 of sums of 64 lose none.
PART = 64
SIGN = np.uint32(0x8000)
UNSCALE = np.float32(2.0**112)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FoldedModel:
    """A folded DAN; all arrays become read-only.

    Attributes:
        labels: Names of the classes, by class.
        spec: Which n-grams of a text are looked up.
        index: From an n-gram's hash to its row.
        max_ngrams: Known n-grams of a text that count; the rest of a longer one is not read.
        table: float32, float16 or int8 [rows, hidden].
        scale: float32[rows], what to multiply an int8 row with; None for the other types.
        hidden_bias: float32[hidden].
        head_weight: float32[classes, hidden].
        head_bias: float32[classes].
        activation: "relu" or "tanh".
        temperature: Logits are divided by it where they become probabilities.
    """

    labels: tuple[str, ...]
    spec: NgramSpec
    index: NgramIndex
    max_ngrams: int
    table: NDArray[Any]
    scale: NDArray[np.float32] | None = None
    hidden_bias: NDArray[np.float32]
    head_weight: NDArray[np.float32]
    head_bias: NDArray[np.float32]
    activation: Activation = "relu"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.table.ndim != 2 or self.table.dtype.name not in get_args(TableType):
            raise DataError(
                f"a table is float32, float16 or int8 [rows, hidden], "
                f"not {self.table.dtype}{list(self.table.shape)}"
            )
        rows, hidden = self.table.shape
        shapes: dict[str, tuple[int, ...]] = {
            "hidden_bias": (hidden,),
            "head_weight": (len(self.labels), hidden),
            "head_bias": (len(self.labels),),
        }
        if (self.scale is not None) != (self.table_type == "int8"):
            raise DataError("an int8 table needs a scale per row, and no other has one")
        if self.scale is not None:
            shapes["scale"] = (rows,)
        for name, shape in shapes.items():
            array = frozen(getattr(self, name), np.float32)
            if array.shape != shape:
                raise DataError(f"{name} must be {list(shape)}, not {list(array.shape)}")
            if not np.isfinite(array).all():
                raise DataError(f"{name} has values that are not finite")
            object.__setattr__(self, name, array)
        object.__setattr__(self, "table", frozen(self.table, self.table.dtype))
        if len(self.index) != rows:
            raise DataError(f"a table of {rows} rows for {len(self.index)} n-grams")
        self._check_settings()

    def _check_settings(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"need two labels or more, all different, not {self.labels!r:.80}")
        if self.activation not in get_args(Activation):
            raise ConfigError(f"activation must be relu or tanh, not {self.activation!r}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature must be above 0, not {self.temperature}")
        if self.max_ngrams < 1:
            raise ConfigError(f"max_ngrams must be 1 or more, not {self.max_ngrams}")

    @property
    def table_type(self) -> TableType:
        """The type of the table's numbers."""
        name: TableType = self.table.dtype.name  # type: ignore[assignment]
        return name

    @property
    def hidden(self) -> int:
        """Width of the table and of the hidden layer."""
        return int(self.table.shape[1])

    def logits(self, texts: TextBuffer, *, threads: int = 1) -> NDArray[np.float32]:
        """The logits of texts, float32[texts, classes], not divided by the temperature.

        A text's logits depend neither on the texts beside it nor on the number of threads.
        """

        def block(start: int, stop: int) -> NDArray[np.float32]:
            return self.head(self.hidden_vectors(self.bags(texts.slice(start, stop))))

        empty = np.zeros((0, len(self.labels)), np.float32)
        return np.concatenate([empty, *map_ranges(block, len(texts), block=BLOCK, threads=threads)])

    def bags(self, texts: TextBuffer) -> Bags:
        """The rows of the texts' known n-grams."""
        return self.index.bags(texts, self.spec, max_ngrams=self.max_ngrams)

    def hidden_vectors(self, bags: Bags) -> NDArray[np.float32]:
        """What the activation gets: mean of the rows plus bias, float32[bags, hidden]."""
        out = np.empty((len(bags), self.hidden), np.float32)
        if self.scale is not None:
            add_int8(bags.rows, bags.offsets, self.table, self.scale, out)
        elif self.table_type == "float16":
            add_float16(bags.rows, bags.offsets, self.table.view(np.uint16), out)
        else:
            add_float32(bags.rows, bags.offsets, self.table, out)
        out /= np.maximum(np.diff(bags.offsets), 1).astype(np.float32)[:, None]
        out += self.hidden_bias
        return out

    def head(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Activation and last layer, float32[n, hidden] to float32[n, classes]."""
        active = np.maximum(hidden, 0) if self.activation == "relu" else np.tanh(hidden)
        out = np.empty((len(hidden), len(self.labels)), np.float32)
        apply_head(frozen(active, np.float32), self.head_weight, self.head_bias, out)
        return out

    def rows(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Some rows of the table as float32[n, hidden]."""
        chosen: NDArray[np.float32] = self.table[rows].astype(np.float32)
        return chosen if self.scale is None else chosen * self.scale[rows][:, None]

    def converted(self, table_type: TableType) -> FoldedModel:
        """The same model with a table of another type; see `convert_table` for the error."""
        table, scale = convert_table(self.rows(np.arange(len(self.table))), table_type)
        return replace(self, table=table, scale=scale)


def convert_table(
    table: NDArray[np.float32], table_type: TableType
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Quantise a float32 table [rows, hidden].

    float16 rounds to 11 bits; int8 stores each row in steps of its largest magnitude / 127, so
    that a value is off by half a step at most.

    Returns:
        The table, and the step of each row for int8, float32[rows].

    Raises:
        DataError: A value is too large for float16, or is not finite; names the row.
    """
    if table_type == "float32":
        return table, None
    magnitude = np.abs(table).max(axis=1, initial=0.0)
    largest = np.finfo(np.float16).max if table_type == "float16" else np.finfo(np.float32).max
    bad = np.flatnonzero(~(magnitude <= largest))
    if len(bad):
        raise DataError(f"row {bad[0]} has {magnitude[bad[0]]}, too large for {table_type}")
    if table_type == "float16":
        return table.astype(np.float16), None
    # A row too small for a step that is a normal number becomes zeros.
    smallest = 127 * np.finfo(np.float32).tiny
    scale = np.where(magnitude > smallest, magnitude / 127, 1).astype(np.float32)
    return np.rint(table / scale[:, None]).astype(np.int8), scale


@kernel
def add_float32(
    rows: NDArray[np.int32],
    offsets: NDArray[np.int64],
    table: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Sum the rows of each bag."""
    width = table.shape[1]
    part = np.empty(width, np.float32)
    for bag in range(len(offsets) - 1):
        out[bag] = 0
        for first in range(offsets[bag], offsets[bag + 1], PART):
            part[:] = 0
            for i in range(first, min(first + PART, offsets[bag + 1])):
                row = table[rows[i]]
                for j in range(width):
                    part[j] += row[j]
            out[bag] += part


@kernel
def add_float16(
    rows: NDArray[np.int32],
    offsets: NDArray[np.int64],
    table: NDArray[np.uint16],
    out: NDArray[np.float32],
) -> None:
    """Sum the rows of each bag; `table` has the bits of float16.

    The bits of a float16, moved to where a float32 has them, are the number times 2**-112, also
    for subnormal ones; only infinities and NaN would come out wrong, and a table has none.
    """
    width = table.shape[1]
    bits = np.empty(width, np.uint32)
    values = bits.view(np.float32)
    part = np.empty(width, np.float32)
    for bag in range(len(offsets) - 1):
        out[bag] = 0
        for first in range(offsets[bag], offsets[bag + 1], PART):
            part[:] = 0
            for i in range(first, min(first + PART, offsets[bag + 1])):
                row = table[rows[i]]
                for j in range(width):
                    half = np.uint32(row[j])
                    bits[j] = (half & SIGN) << np.uint32(16) | (half & ~SIGN) << np.uint32(13)
                for j in range(width):
                    part[j] += values[j] * UNSCALE
            out[bag] += part


@kernel
def add_int8(
    rows: NDArray[np.int32],
    offsets: NDArray[np.int64],
    table: NDArray[np.int8],
    scale: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Sum the scaled rows of each bag."""
    width = table.shape[1]
    part = np.empty(width, np.float32)
    for bag in range(len(offsets) - 1):
        out[bag] = 0
        for first in range(offsets[bag], offsets[bag + 1], PART):
            part[:] = 0
            for i in range(first, min(first + PART, offsets[bag + 1])):
                row = table[rows[i]]
                step = scale[rows[i]]
                for j in range(width):
                    part[j] += np.float32(row[j]) * step
            out[bag] += part


@kernel
def apply_head(
    active: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """The last layer. Not a matrix product of BLAS: its result depends on how many rows there are.

    Eight sums side by side, so that additions need not wait for one another.
    """
    width = active.shape[1]
    whole = width - width % 8
    sums = np.empty(8, np.float64)
    for i in range(len(active)):
        for c in range(len(bias)):
            sums[:] = 0
            for j in range(0, whole, 8):
                for lane in range(8):
                    sums[lane] += np.float64(active[i, j + lane]) * weight[c, j + lane]
            total = np.float64(bias[c]) + sums.sum()
            for j in range(whole, width):
                total += np.float64(active[i, j]) * weight[c, j]
            out[i, c] = total
