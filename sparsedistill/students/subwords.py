"""Students that read a text's subwords in their order: what the paper compares the DAN with.

One class trains any of them; a network is a small dataclass with its sizes and its forward pass
(``students.bilstm``, ``students.cnn``). The embeddings are the DAN's table, trained row by row; the
network over them is plain torch. A batch is sorted by length and goes through the network in slices
of few texts, each by one thread, so that there is little padding, and the result does not depend on
how many threads there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from sparsedistill.errors import DataError
from sparsedistill.parallel import map_ahead
from sparsedistill.students.dropout import UnitDropout
from sparsedistill.students.hybrid import HybridAdam, HybridStudent, check_weights
from sparsedistill.students.pooling import spread
from sparsedistill.students.stepping import check_loss
from sparsedistill.students.training import StudentTraining
from sparsedistill.torch_threads import one_torch_thread
from sparsedistill.training.grouping import GroupedBags, group_by_row
from sparsedistill.training.order import update_generator
from sparsedistill.training.table import CpuTable, TableOptions, start_at_random

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt
    from torch import Tensor

    from sparsedistill.bag_source import BagSource
    from sparsedistill.bags import Bags
    from sparsedistill.objectives import Objective
    from sparsedistill.students.hybrid import Forms
    from sparsedistill.targets import Targets

_DENSE = 4
SLICE = 16
_PREDICT_TEXTS = 1024


class Drop(Protocol):
    """Dropout of one slice in one update."""

    def __call__(self, values: Tensor, *, layer: int) -> Tensor:
        """Drop units of float32 [texts, units]; each layer has chances of its own."""
        ...


@dataclass(frozen=True, slots=True)
class PaddedTexts:
    """Some texts as vectors, all of one length.

    Attributes:
        vectors: One a token, float32 [texts, longest, width]; zero past the end of a text.
        lengths: Tokens of each, int64 [texts].
    """

    vectors: Tensor
    lengths: Tensor

    @property
    def inside(self) -> Tensor:
        """Which places a text has a token at, bool [texts, longest]."""
        return torch.arange(self.vectors.shape[1]) < self.lengths[:, None]

    def greatest(self, states: Tensor) -> Tensor:
        """Return the greatest of each unit over a text's tokens; zero where it has none.

        Args:
            states: float32 [texts, longest, units].
        """
        outside = ~self.inside[:, :, None]
        greatest = states.masked_fill(outside, -math.inf).max(dim=1).values
        return torch.where(self.lengths[:, None] > 0, greatest, 0.0)


class Network(Protocol):
    """Sizes and forward pass of what comes after the embeddings."""

    @property
    def rows(self) -> int:
        """Rows of the embedding table: the tokens that the tokenizer knows."""
        ...

    @property
    def width(self) -> int:
        """Width of the embeddings."""
        ...

    @property
    def classes(self) -> int:
        """Number of labels."""
        ...

    @property
    def init_scale(self) -> float:
        """Standard deviation of the embeddings' normal start."""
        ...

    def weights(self) -> Forms:
        """Return type and shape of the table and of every dense weight, by name.

        Those have outputs first; biases are named ``..._bias``.
        """
        ...

    def logits(self, dense: Mapping[str, Tensor], texts: PaddedTexts, drop: Drop) -> Tensor:
        """Return logits float32 [texts, classes]; a text's do not depend on the others."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """Texts for one update, longest first.

    Attributes:
        order: Which of the texts asked for each one is, int64 [texts].
        offsets: Where the tokens of each begin, int64 [texts + 1].
        tokens: All their tokens in order, each a bag of its own.
    """

    order: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    tokens: GroupedBags

    def slices(self) -> Iterator[tuple[int, int]]:
        """Yield the (first, last + 1) texts that go through the network together."""
        texts = len(self.order)
        return ((first, min(first + SLICE, texts)) for first in range(0, texts, SLICE))


class SubwordStudent(HybridStudent):
    """A network over the teacher's subwords, and its hybrid Adam; a ``Student``.

    Args:
        network: Sizes and forward pass.
        training: Dropout, decay and Adam's constants; only training looks at them.
        seed: Of the start and of every update's dropout.
        threads: Of everything; results do not depend on it.
        weights: To start from instead of at random. The table is taken over as it is; writable if
            it is to be trained.
        embeddings: Of the teacher, to start the table from, float32 [rows, width]; copied.

    Raises:
        DataError: A weight is missing or has another shape or type.
    """

    def __init__(
        self,
        network: Network,
        *,
        training: StudentTraining | None = None,
        seed: int = 0,
        threads: int = 1,
        weights: Mapping[str, npt.NDArray[Any]] | None = None,
        embeddings: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self.network = network
        self.training = training or StudentTraining()
        self._seed, self._threads = seed, threads
        forms = network.weights()
        if embeddings is not None:
            check_weights({"table": embeddings}, {"table": forms["table"]})
        if weights is not None:
            check_weights(weights, forms)
        self.table = CpuTable(
            network.rows,
            network.width,
            _options(self.training),
            threads=threads,
            weights=None if weights is None else weights["table"],
        )
        if weights is None:
            start_at_random(self.table, network.init_scale, seed, threads=threads)
        if embeddings is not None:
            self.table.fill(0, embeddings)
        del forms["table"]
        generator = update_generator(seed, 0, _DENSE)
        self.dense = {
            name: torch.tensor(
                _start(generator, shape) if weights is None else weights[name], requires_grad=True
            )
            for name, (_, shape) in forms.items()
        }
        self._adam = HybridAdam(self.table, self.dense, training=self.training)

    def prepare(self, inputs: BagSource, rows: npt.NDArray[np.int64], *, update: int) -> TokenBatch:
        """Return some texts without the tokens that this update drops, longest first.

        Raises:
            DataError: A token is none that the student knows.
        """
        drop = self.training.drop(self._seed, update)
        return _batch(inputs.take(rows, drop), self.network.rows)

    def step(
        self,
        batch: TokenBatch,
        targets: Targets,
        objective: Objective,
        *,
        update: int,
        learning_rate: float,
    ) -> float:
        """Apply one hybrid Adam step, as ``Student`` has it."""
        with one_torch_thread():
            loss, by_token, dense = self._gradients(batch, targets, objective, update)
            check_loss(loss, update)
            self._adam.update(
                batch.tokens, by_token, dense, update=update, learning_rate=learning_rate
            )
        return loss

    def predict(self, inputs: BagSource) -> npt.NDArray[np.float32]:
        """Return logits, float32 [texts, classes]."""
        out = np.empty((len(inputs), self.network.classes), np.float32)
        for start in range(0, len(inputs), _PREDICT_TEXTS):
            rows = np.arange(start, min(start + _PREDICT_TEXTS, len(inputs)))
            batch = _batch(inputs.take(rows), self.network.rows)
            with one_torch_thread():
                out[rows[batch.order]] = self._logits(batch)
        return out

    def _logits(self, batch: TokenBatch) -> npt.NDArray[np.float32]:
        """Return logits in the batch's order, nothing dropped."""
        vectors = self.table.pool(batch.tokens.bags)
        none = partial(UnitDropout(0.0, 0, 0), first=0)

        def work(span: tuple[int, int]) -> npt.NDArray[np.float32]:
            with torch.no_grad():
                texts = _padded(vectors, batch.offsets, *span)
                return self.network.logits(self.dense, texts, none).numpy()

        return np.concatenate(list(map_ahead(work, batch.slices(), threads=self._threads)))

    def _gradients(
        self, batch: TokenBatch, targets: Targets, objective: Objective, update: int
    ) -> tuple[float, Tensor, list[Tensor]]:
        """Return the mean loss, and its gradients by the tokens' vectors and the dense layers."""
        vectors = self.table.pool(batch.tokens.bags)
        by_token = torch.zeros_like(vectors)
        dropout = UnitDropout(self.training.dropout, self._seed, update)
        parameters = list(self.dense.values())

        def work(span: tuple[int, int]) -> tuple[float, tuple[Tensor, ...]]:
            first, last = span
            tokens = slice(batch.offsets[first], batch.offsets[last])
            texts = _padded(vectors, batch.offsets, first, last)
            logits = self.network.logits(self.dense, texts, partial(dropout, first=first))
            losses = objective(logits, targets.take(batch.order[first:last]))
            loss = losses.sum() / len(batch.order)
            by_vector, *dense = torch.autograd.grad(loss, [texts.vectors, *parameters])
            by_token[tokens] = by_vector[texts.inside]
            return loss.item(), tuple(dense)

        losses: list[float] = []
        total = [torch.zeros_like(parameter) for parameter in parameters]
        # Added up as they come: of all slices together they would not fit.
        for loss, dense in map_ahead(work, batch.slices(), threads=self._threads):
            losses.append(loss)
            for one, more in zip(total, dense, strict=True):
                one += more
        return math.fsum(losses), by_token, total


def _options(training: StudentTraining) -> TableOptions:
    return TableOptions(
        betas=training.betas,
        epsilon=training.epsilon,
        decay=training.table_decay,
        second_moment=training.second_moment,
        pooling="sum",  # of one token each, the token itself
    )


def _start(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return a weight that starts at U(-1, 1) / sqrt(inputs), or a bias, that starts at zero."""
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    bound = math.prod(shape[1:]) ** -0.5
    return generator.uniform(-bound, bound, shape).astype(np.float32)


def _batch(texts: Bags, rows: int) -> TokenBatch:
    """Return texts of a table with so many rows, longest first."""
    if len(texts.rows) and int(texts.rows.max()) >= rows:
        raise DataError(
            f"a text has token {int(texts.rows.max())}, the student knows {rows}: make its tokens "
            "with the tokenizer of the teacher that it was made for"
        )
    order = np.argsort(-np.diff(texts.offsets), kind="stable")
    ordered = texts.take(order)
    return TokenBatch(order, ordered.offsets, group_by_row(spread(ordered)))


def _padded(vectors: Tensor, offsets: npt.NDArray[np.int64], first: int, last: int) -> PaddedTexts:
    """Return some of a batch's texts; a gradient can be asked for by their vectors."""
    lengths = torch.from_numpy(np.diff(offsets[first : last + 1]))
    longest = max(int(lengths.max()), 1)
    padded = vectors.new_zeros(last - first, longest, vectors.shape[1])
    texts = PaddedTexts(padded, lengths)
    padded[texts.inside] = vectors[offsets[first] : offsets[last]]
    padded.requires_grad_(torch.is_grad_enabled())
    return texts
