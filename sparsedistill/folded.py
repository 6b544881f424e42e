"""The finished student as it runs: text to logits, on the CPU, without torch.

The mean of the n-gram embeddings and the first linear layer are both linear, so the layer is
folded into the table (design, "package"): `hidden = mean of table rows + hidden_bias`,
`logits = head_weight · activation(hidden) + head_bias`. What is left per n-gram is to add one row.

A text that has no known n-gram has the zero vector for its mean. `fused.py` computes all of this in
one compiled loop; `bags`, `hidden_vectors` and `head` say the same step by step in NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from sparsedistill import fused
from sparsedistill.errors import ConfigError, DataError, ModelFileError
from sparsedistill.parallel import map_ranges
from sparsedistill.text.buffers import frozen
from sparsedistill.text.kernels import rules

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sparsedistill.bags import Bags
    from sparsedistill.ngram_index import NgramIndex
    from sparsedistill.text.buffers import TextBuffer
    from sparsedistill.text.kernels import Rules
    from sparsedistill.text.ngram_spec import NgramSpec

    Floats = NDArray[np.float32]
    Network = tuple[NDArray[Any], Floats, Floats, Floats, bool]
    Whole = tuple[
        Rules, tuple[int, int, int], NDArray[np.uint64], np.uint64,
        NDArray[Any], Floats, Floats, Floats, bool,
    ]  # fmt: skip

Activation = Literal["relu", "tanh"]
TableType = Literal["float32", "float16", "int8"]

# Texts that one call of the kernel is given.
BLOCK = 512
_NOT_FINITE = (
    "the model gives logits that are not finite: its table is damaged; load it with verify=True, "
    "which says so, and get it anew"
)
_NO_SCALE = np.ones(1, np.float32)
_NO_PROJECTION = np.zeros((0, 0), np.float32)
_BLOCK_ROWS = 8192


class Scores(NamedTuple):
    """What the model finds in texts.

    Attributes:
        logits: float32[texts, classes], not divided by the temperature.
        known: int64[texts], n-grams that have a row and count.
        total: int64[texts], n-grams looked up: all that begin at a token up to the last one read.
    """

    logits: NDArray[np.float32]
    known: NDArray[np.int64]
    total: NDArray[np.int64]

    @property
    def coverage(self) -> NDArray[np.float32]:
        """The share of known n-grams, float32[texts]; 0 where there is none."""
        share: NDArray[np.float32] = (self.known / np.maximum(self.total, 1)).astype(np.float32)
        return share


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FoldedModel:
    """A folded DAN; all arrays become read-only.

    Attributes:
        labels: Names of the classes, by class.
        spec: Which n-grams of a text are looked up.
        index: From an n-gram's hash to its row.
        max_ngrams: Known n-grams of a text that count; the rest of a longer one is not read.
        table: float32, float16 or int8 [rows, width].
        scale: float32[rows], what to multiply an int8 row with; None for the other types.
        projection: float32[width, hidden], what the mean of a text's rows is multiplied with; None
            where rows are as wide as the hidden layer and nothing is.
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
    projection: NDArray[np.float32] | None = None
    hidden_bias: NDArray[np.float32]
    head_weight: NDArray[np.float32]
    head_bias: NDArray[np.float32]
    activation: Activation = "relu"
    temperature: float = 1.0
    _network: Network = field(init=False, repr=False)
    _whole: Whole = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rows, width, hidden = self._sizes()
        shapes: dict[str, tuple[int, ...]] = {
            "hidden_bias": (hidden,),
            "head_weight": (len(self.labels), hidden),
            "head_bias": (len(self.labels),),
        }
        if (self.scale is not None) != (self.table_type == "int8"):
            raise DataError("an int8 table needs a scale per row, and no other has one")
        if self.scale is not None:
            shapes["scale"] = (rows,)
        if self.projection is not None:
            shapes["projection"] = (width, hidden)
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
        self._bind()

    def _sizes(self) -> tuple[int, int, int]:
        """Rows and columns of the table, and hidden units."""
        if self.table.ndim != 2 or self.table.dtype.name not in get_args(TableType):
            raise DataError(
                f"a table is float32, float16 or int8 [rows, width], "
                f"not {self.table.dtype}{list(self.table.shape)}"
            )
        rows, width = self.table.shape
        hidden = width
        if self.projection is not None:
            if self.projection.ndim != 2:
                raise DataError(
                    f"a projection is float32[width, hidden], not {list(self.projection.shape)}"
                )
            hidden = self.projection.shape[1]
            if width >= hidden:
                raise DataError(f"a projection widens rows: {width} columns are not below {hidden}")
        if width < 1:
            raise DataError("a table needs a column or more")
        return rows, width, hidden

    def _bind(self) -> None:
        """Put down what `fused.run` gets beside texts and room for results."""
        table = self.table.view(np.uint16) if self.table_type == "float16" else self.table
        layers = [self.hidden_bias, self.head_weight.reshape(-1), self.head_bias]
        reader = (
            rules(self.spec.tokenizer),
            (self.spec.min_n, self.spec.max_n, self.max_ngrams),
            self.index.slots,
            self.index.row_bits,
        )
        network = (
            frozen(table, table.dtype),
            frozen(_NO_SCALE if self.scale is None else self.scale, np.float32),
            frozen(_NO_PROJECTION if self.projection is None else self.projection, np.float32),
            frozen(np.concatenate(layers), np.float32),
            self.activation == "tanh",
        )
        object.__setattr__(self, "_network", network)
        object.__setattr__(self, "_whole", (*reader, *network))

    def _check_settings(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"need two labels or more, all different, not {self.labels!r:.80}")
        if self.activation not in get_args(Activation):
            raise ConfigError(f"activation must be relu or tanh, not {self.activation!r:.60}")
        # Beyond these, logits over the temperature are all alike, or no numbers.
        if not 1e-6 <= self.temperature <= 1e6:
            raise ConfigError(f"temperature must be between 1e-6 and 1e6, not {self.temperature}")
        if not 1 <= self.max_ngrams < 1 << 31:
            raise ConfigError(
                f"max_ngrams must be 1 or more, below 2**31, not {self.max_ngrams!s:.20}"
            )

    @property
    def table_type(self) -> TableType:
        """The type of the table's numbers."""
        name: TableType = self.table.dtype.name  # type: ignore[assignment]
        return name

    @property
    def hidden(self) -> int:
        """Width of the hidden layer."""
        return len(self.hidden_bias)

    @property
    def width(self) -> int:
        """Numbers in a row of the table."""
        return int(self.table.shape[1])

    def logits(self, texts: TextBuffer, *, threads: int = 1) -> NDArray[np.float32]:
        """The logits of texts, float32[texts, classes], not divided by the temperature.

        A text's logits depend neither on the texts beside it nor on the number of threads.

        Raises:
            ModelFileError: A logit is not finite.
        """
        return self.run(texts, threads=threads).logits

    def run(self, texts: TextBuffer, *, threads: int = 1) -> Scores:
        """Logits, and how many n-grams are known; as `logits` otherwise."""
        logits = np.empty((len(texts), len(self.labels)), np.float32)
        counts = np.empty((len(texts), 2), np.int64)

        def block(start: int, stop: int) -> None:
            self._fill(
                texts.data, texts.offsets[start : stop + 1], logits[start:stop], counts[start:stop]
            )

        map_ranges(block, len(texts), block=BLOCK, threads=threads)
        return Scores(logits, counts[:, 0], counts[:, 1])

    def run_one(self, text: bytes) -> NDArray[np.float32]:
        """The logits of one text in UTF-8, float32[classes], without detours."""
        logits: NDArray[np.float32] = np.empty((1, len(self.labels)), np.float32)
        counts = np.empty((1, 2), np.int64)
        data = np.frombuffer(text or b"\0", np.uint8)
        self._fill(data, frozen(np.array([0, len(text)]), np.int64), logits, counts)
        one: NDArray[np.float32] = logits[0]
        return one

    def _fill(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        logits: NDArray[np.float32],
        counts: NDArray[np.int64],
    ) -> None:
        if not fused.run(data, offsets, *self._whole, logits, counts):
            raise ModelFileError(_NOT_FINITE)

    def bag_logits(self, bags: Bags) -> NDArray[np.float32]:
        """The logits of bags of rows, float32[bags, classes]: of texts, or of parts of them.

        Raises:
            DataError: A row is not one of the model's.
            ModelFileError: A logit is not finite.
        """
        if len(bags.rows) and not 0 <= bags.rows.min() <= bags.rows.max() < len(self.table):
            raise DataError(f"bags with rows outside of the model's {len(self.table):,}")
        logits = np.empty((len(bags), len(self.labels)), np.float32)
        if not fused.run_bags(bags.rows, bags.offsets, *self._network, logits):
            raise ModelFileError(_NOT_FINITE)
        return logits

    def bags(self, texts: TextBuffer) -> Bags:
        """The rows of the texts' known n-grams."""
        return self.index.bags(texts, self.spec, max_ngrams=self.max_ngrams)

    def hidden_vectors(self, bags: Bags) -> NDArray[np.float64]:
        """What the activation gets: mean of the rows plus bias, float64[bags, hidden]."""
        out = np.tile(self.hidden_bias.astype(np.float64), (len(bags), 1))
        for bag, rows in enumerate(bags):
            if len(rows):
                out[bag] += self.rows(rows).mean(axis=0, dtype=np.float64)
        return out

    def head(self, hidden: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Activation and last layer, float64[n, hidden] to float64[n, classes]."""
        active = np.maximum(hidden, 0) if self.activation == "relu" else np.tanh(hidden)
        logits: NDArray[np.float64] = active @ self.head_weight.T.astype(np.float64)
        return logits + self.head_bias

    def rows(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """What some rows add to the hidden layer, float32[n, hidden]."""
        stored = self.stored_rows(rows)
        return stored if self.projection is None else stored @ self.projection

    def stored_rows(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Some rows of the table, float32[n, width]."""
        chosen: NDArray[np.float32] = self.table[rows].astype(np.float32)
        return chosen if self.scale is None else chosen * self.scale[rows][:, None]

    def converted(self, table_type: TableType) -> FoldedModel:
        """The same model with a table of another type; see `convert_table` for the error."""
        if table_type == self.table_type:
            return self
        rows = len(self.table)
        table = np.empty(self.table.shape, table_type)
        scale = np.empty(rows, np.float32) if table_type == "int8" else None
        # In blocks: the table as float32 may be all the memory there is.
        for start in range(0, rows, _BLOCK_ROWS):
            block = np.arange(start, min(start + _BLOCK_ROWS, rows))
            table[block], steps = convert_table(self.stored_rows(block), table_type, first=start)
            if scale is not None and steps is not None:
                scale[block] = steps
        return replace(self, table=table, scale=scale)


def convert_table(
    table: NDArray[np.float32], table_type: TableType, *, first: int = 0
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Quantise a float32 table [rows, hidden].

    float16 rounds to 11 bits; int8 stores each row in steps of its largest magnitude / 127, so
    that a value is off by half a step at most.

    Args:
        table: To be quantised.
        table_type: Into what.
        first: The number that its first row has in error messages.

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
        raise DataError(f"row {first + bad[0]} has {magnitude[bad[0]]}, too large for {table_type}")
    if table_type == "float16":
        return table.astype(np.float16), None
    # A row too small for a step that is a normal number becomes zeros.
    smallest = 127 * np.finfo(np.float32).tiny
    scale = np.where(magnitude > smallest, magnitude / 127, 1).astype(np.float32)
    return np.rint(table / scale[:, None]).astype(np.int8), scale
