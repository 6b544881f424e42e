"""The Deep Averaging Network over n-grams: mean embedding, one hidden layer, a head.

``W2 act(W1 mean(E[g]) + b1) + b2`` (paper, section 2.3, after Iyyer et al., 2015). The table ``E``
is a plain array updated row by row (``training.sparse_adam``); the small dense layers are torch's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone knows it by

from sparsedistill.bags import Bags
from sparsedistill.errors import DataError
from sparsedistill.training.order import update_generator
from sparsedistill.training.sparse_adam import SparseTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    from torch import Tensor

    from sparsedistill.folded import Activation

_FEATURE_DROPOUT, _DROPOUT, _INIT = 1, 2, 3
_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}
_PREDICT_ROWS = 8192
# Products of fewer rows come out of MKL with other last bits where it has other threads.
_LEAST_ROWS = 16


@dataclass(frozen=True, slots=True)
class DANShape:
    """Sizes of a DAN, and how it starts.

    Attributes:
        rows: Rows of the table: the size of the vocabulary.
        width: Width of the embeddings (d_e).
        hidden: Width of the hidden layer (d_h).
        classes: Number of labels.
        activation: After the hidden layer; the paper says ReLU, its released code uses tanh.
        init_scale: Standard deviation of the table's normal start.
    """

    rows: int
    width: int
    hidden: int
    classes: int
    activation: Activation
    init_scale: float

    def to_json(self) -> dict[str, int | float | str]:
        """Return the fields as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DANRegularisation:
    """What a DAN drops and shrinks while it is trained, and the constants of its Adam.

    Attributes:
        feature_dropout: Share of the n-gram occurrences left out of a batch.
        dropout: Share of units dropped before the hidden layer and before the head.
        weight_decay: Decoupled decay of the dense weights (never of the table).
        betas: Decay of Adam's moments.
        epsilon: Adam's.
    """

    feature_dropout: float = 0.0
    dropout: float = 0.0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8


class DAN:
    """A Deep Averaging Network and its hybrid Adam.

    Args:
        shape: Sizes and start.
        regularisation: Dropout, decay and Adam's constants; only training looks at them.
        seed: Of the start and of every update's dropout.
        threads: Threads of the table's kernels; results do not depend on it. The dense layers run
            on torch's threads (``torch.set_num_threads``).
    """

    def __init__(
        self,
        shape: DANShape,
        *,
        regularisation: DANRegularisation | None = None,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        self.shape = shape
        self.regularisation = regularisation or DANRegularisation()
        self._seed = seed
        generator = update_generator(seed, 0, _INIT)
        table = generator.standard_normal((shape.rows, shape.width), np.float32)
        table *= np.float32(shape.init_scale)
        self.sparse = SparseTable(
            table,
            betas=self.regularisation.betas,
            epsilon=self.regularisation.epsilon,
            threads=threads,
        )
        self.dense = {
            "hidden_weight": _uniform(generator, shape.hidden, shape.width),
            "hidden_bias": torch.zeros(shape.hidden, requires_grad=True),
            "head_weight": _uniform(generator, shape.classes, shape.hidden),
            "head_bias": torch.zeros(shape.classes, requires_grad=True),
        }
        self._adam = _dense_adam(self.dense, self.regularisation)
        self._bags: Bags | None = None
        self._mean: Tensor | None = None

    def forward(self, bags: Bags, *, update: int) -> Tensor:
        """Return training logits, float32 [bags, classes]; ``update`` seeds the dropout."""
        if self.regularisation.feature_dropout:
            bags = _drop_features(
                bags,
                self.regularisation.feature_dropout,
                update_generator(self._seed, update, _FEATURE_DROPOUT),
            )
        self._bags = bags
        self._mean = torch.from_numpy(self.sparse.mean(bags)).requires_grad_()
        generator = update_generator(self._seed, update, _DROPOUT)
        hidden = self._hidden(self._dropped(self._mean, generator))
        return self._head(self._dropped(hidden, generator))[: len(bags)]

    def update(self, update: int, learning_rate: float) -> None:
        """Apply one hybrid Adam step from the gradients of the last ``forward``."""
        if self._bags is None or self._mean is None or self._mean.grad is None:
            raise RuntimeError("update() needs forward() and backward() before it")
        self.sparse.update(
            self._bags, self._mean.grad.numpy(), update=update, learning_rate=learning_rate
        )
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._bags = self._mean = None

    def predict(self, bags: Bags) -> npt.NDArray[np.float32]:
        """Return logits, float32 [bags, classes]."""
        out = np.empty((len(bags), self.shape.classes), np.float32)
        with torch.no_grad():
            for start in range(0, len(bags), _PREDICT_ROWS):
                stop = min(start + _PREDICT_ROWS, len(bags))
                mean = torch.from_numpy(self.sparse.mean(bags.take(range(start, stop))))
                out[start:stop] = self._head(self._hidden(mean))[: stop - start].numpy()
        return out

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the table and the dense layers, as views."""
        dense = {name: value.detach().numpy() for name, value in self.dense.items()}
        return {"table": self.sparse.table, **dense}

    def optimiser_state(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return Adam's moments, as views."""
        return {
            "table.first_moment": self.sparse.first_moment,
            "table.second_moment": self.sparse.second_moment,
            **{
                f"{name}.{part}": value.numpy()
                for name, parameter in self.dense.items()
                for part, value in self._adam.state[parameter].items()
            },
        }

    def load(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Take over weights, and the moments where ``arrays`` has them.

        Raises:
            DataError: A weight is missing or has another shape.
        """
        own = {**self.weights(), **self.optimiser_state()}
        missing = [name for name in self.weights() if name not in arrays]
        if missing:
            raise DataError(f"the checkpoint of the student lacks {', '.join(missing)}")
        for name, value in arrays.items():
            if name not in own or own[name].shape != value.shape:
                expected = own[name].shape if name in own else "nothing of that name"
                raise DataError(f"checkpoint: {name} is {value.shape}, expected {expected}")
            own[name][...] = value

    def _hidden(self, mean: Tensor) -> Tensor:
        """Return the active hidden layer, [max(bags, _LEAST_ROWS), hidden]."""
        mean = F.pad(mean, (0, 0, 0, max(_LEAST_ROWS - len(mean), 0)))
        hidden = torch.addmm(self.dense["hidden_bias"], mean, self.dense["hidden_weight"].T)
        return _ACTIVATIONS[self.shape.activation](hidden)

    def _head(self, hidden: Tensor) -> Tensor:
        return torch.addmm(self.dense["head_bias"], hidden, self.dense["head_weight"].T)

    def _dropped(self, values: Tensor, generator: np.random.Generator) -> Tensor:
        rate = self.regularisation.dropout
        if not rate:
            return values
        # Not torch's dropout: its random state is shared by every thread of the process.
        kept = generator.random(tuple(values.shape), np.float32) >= rate
        return values * torch.from_numpy(kept.astype(np.float32) / np.float32(1 - rate))


def _dense_adam(
    parameters: Mapping[str, Tensor], regularisation: DANRegularisation
) -> torch.optim.AdamW:
    """Return torch's Adam over the dense layers, its state already there to be saved or loaded.

    Biases do not decay.
    """
    weights = [value for name, value in parameters.items() if name.endswith("weight")]
    biases = [value for name, value in parameters.items() if name.endswith("bias")]
    adam = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": regularisation.weight_decay},
            {"params": biases, "weight_decay": 0.0},
        ],
        betas=regularisation.betas,
        eps=regularisation.epsilon,
    )
    for parameter in parameters.values():
        adam.state[parameter] = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }
    return adam


def _uniform(generator: np.random.Generator, outputs: int, inputs: int) -> Tensor:
    """Return a weight [outputs, inputs] that starts as torch's Linear: U(-1, 1) / sqrt(inputs)."""
    bound = inputs**-0.5
    values = generator.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
    return torch.from_numpy(values).requires_grad_()


def _drop_features(bags: Bags, rate: float, generator: np.random.Generator) -> Bags:
    """Return the bags without a random share of their occurrences."""
    kept = generator.random(len(bags.rows), np.float32) >= rate
    before = np.concatenate([[0], np.cumsum(kept)])
    return Bags(bags.rows[kept], before[bags.offsets])
