"""The contestants of `training.py`: our student, and the same network out of torch's own parts.

`training.py` has each run in a process of its own, so that the memory it needs is its own.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from sparsedistill.bag_source import BagPart, MappedBags
from sparsedistill.bags import Bags
from sparsedistill.objectives import Soft
from sparsedistill.students import DAN, DANShape, StudentTraining
from sparsedistill.targets import Targets
from sparsedistill.tensor_files import read_tensors
from sparsedistill.training.loading import one_ahead
from sparsedistill.training.order import DataOrder
from sparsedistill.training.row_types import BFLOAT16, from_bfloat16
from tasks.features import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from sparsedistill.training.grouping import GroupedBags
    from sparsedistill.training.table import SecondMoment, TableType

    Row = dict[str, Any]

RATE, CLASSES, INIT_SCALE = 5e-4, 2, 0.05
OBJECTIVE = Soft()


@dataclass(frozen=True, slots=True)
class Contest:
    """What one contestant is to do.

    Attributes:
        features: File of bags; all of them have as many n-grams.
        contestant: Ours, or torch's.
        rows: Of the table.
        width: Of the embeddings, and of the hidden layer.
        batch: Bags in a batch.
        warm_up: Updates before the first that is timed.
        updates: That are timed.
        threads: Of either.
        device: As torch names it.
        second_moment: Of our table.
        table_type: Of our table.
        index: Torch's type of row numbers.
    """

    features: str
    contestant: Literal["ours", "torch"]
    rows: int
    width: int
    batch: int
    warm_up: int
    updates: int
    threads: int
    device: str = "cpu"
    second_moment: SecondMoment = "element"
    table_type: TableType = "float32"
    index: Literal["int32", "int64"] = "int64"

    @property
    def shape(self) -> DANShape:
        """Of the network: the paper's, with one hidden layer as wide as the embeddings."""
        return DANShape(
            self.rows, self.width, self.width, CLASSES, "relu", INIT_SCALE,
            table_type=self.table_type,
        )  # fmt: skip


class Ours:
    """The library's student."""

    def __init__(self, contest: Contest, weights: Mapping[str, npt.NDArray[Any]] | None) -> None:
        self.student = DAN(
            contest.shape,
            training=StudentTraining(second_moment=contest.second_moment),
            threads=contest.threads,
            weights=weights,
            device=contest.device,
        )
        if contest.device == "cpu":
            # A long run comes to every row: their memory is to be there, and to be counted.
            for state in self.student.optimiser_state().values():
                state[...] = 0

    def prepare(self, source: Bags | MappedBags, rows: npt.NDArray[np.int64]) -> GroupedBags:
        """Read a batch."""
        return self.student.prepare(source, rows, update=1)

    def step(self, batch: GroupedBags, targets: Targets, update: int) -> float:
        """Apply an update and return the loss before it."""
        return self.student.step(batch, targets, OBJECTIVE, update=update, learning_rate=RATE)

    def weights(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return all weights by their names in a student."""
        return self.student.weights()


class Peer:
    """EmbeddingBag with sparse gradients and SparseAdam; the dense layers with fused Adam."""

    def __init__(self, contest: Contest, weights: Mapping[str, npt.NDArray[Any]] | None) -> None:
        torch.manual_seed(0)
        self._device, self._index = contest.device, getattr(torch, contest.index)
        with torch.device(contest.device):
            self.bag = torch.nn.EmbeddingBag(
                contest.rows, contest.width, mode="mean", sparse=True, include_last_offset=True
            )
            self.hidden = torch.nn.Linear(contest.width, contest.width)
            self.head = torch.nn.Linear(contest.width, CLASSES)
        layers = (self.hidden, self.head)
        if weights is not None:
            with torch.no_grad():
                for name, parameter in self._parameters().items():
                    parameter.copy_(torch.tensor(weights[name]))
        self._adams = (
            torch.optim.SparseAdam(self.bag.parameters(), lr=RATE),
            torch.optim.Adam([p for one in layers for p in one.parameters()], lr=RATE, fused=True),
        )

    def prepare(
        self, source: Bags | MappedBags, rows: npt.NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a batch."""
        bags = source.take(rows)
        return tuple(
            torch.tensor(part, dtype=self._index).to(self._device)
            for part in (bags.rows, bags.offsets)
        )

    def step(
        self, batch: tuple[torch.Tensor, torch.Tensor], targets: Targets, update: int
    ) -> float:
        """Apply an update and return the loss before it; its number is not needed."""
        del update
        logits = self.head(torch.relu(self.hidden(self.bag(*batch))))
        loss = OBJECTIVE(logits, targets).mean()
        for adam in self._adams:
            adam.zero_grad(set_to_none=True)
        loss.backward()
        for adam in self._adams:
            adam.step()
        return loss.item()

    def weights(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return all weights by their names in a student."""
        return {name: value.numpy(force=True) for name, value in self._parameters().items()}

    def _parameters(self) -> dict[str, torch.Tensor]:
        return {
            "table": self.bag.weight,
            "hidden_weight": self.hidden.weight,
            "hidden_bias": self.hidden.bias,
            "head_weight": self.head.weight,
            "head_bias": self.head.bias,
        }


def make(contest: Contest, weights: Mapping[str, npt.NDArray[Any]] | None = None) -> Ours | Peer:
    """Return the contestant, with weights of its own or with given ones."""
    return (Ours if contest.contestant == "ours" else Peer)(contest, weights)


def read_bags(path: Path) -> Bags:
    """Return the bags of a features artifact, or of its file, mapped."""
    any_length = (None,)
    found = read_tensors(
        path / FILE if path.is_dir() else path,
        {"ids": (np.uint64, any_length), "offsets": (np.int64, any_length),
         "rows": (np.int32, any_length)},
    )  # fmt: skip
    return Bags(found["rows"], found["offsets"])


def batches(
    contest: Contest, contestant: Ours | Peer, source: Bags | MappedBags, count: int
) -> Iterator[tuple[int, Any, Targets]]:
    """Yield the number, the prepared bags and the targets of so many updates."""
    logits = np.random.default_rng(1).standard_normal((len(source), CLASSES)).astype(np.float32)
    targets = Targets(logits=logits)
    for update, rows in DataOrder(len(source), contest.batch, 0).batches(0, count):
        yield update + 1, contestant.prepare(source, rows), targets.take(rows)


def mapped(contest: Contest) -> MappedBags:
    """Return what the contestants read from."""
    return MappedBags([BagPart(read_bags(Path(contest.features)))], vocabulary_rows=contest.rows)


def run(contest: Contest) -> Row:
    """Return the seconds of each update, and the memory at its highest."""
    torch.set_num_threads(contest.threads)
    contestant = make(contest)
    count = contest.warm_up + contest.updates
    seconds, losses = [], []
    with closing(one_ahead(batches(contest, contestant, mapped(contest), count))) as made:
        _wait(contest.device)
        before = time.perf_counter()
        for update, batch, targets in made:
            losses.append(contestant.step(batch, targets, update))
            if update == count:
                _wait(contest.device)
            now = time.perf_counter()
            seconds.append(now - before)
            before = now
    timed = seconds[contest.warm_up :]
    return {
        "seconds": timed,
        "median_s": statistics.median(timed),
        "best_s": min(timed),
        "mean_s": statistics.fmean(timed),
        "loss": losses[-1],
        "peak_gb": peak_bytes() / 1e9,
        "device_gb": (
            torch.cuda.max_memory_allocated() / 1e9 if contest.device.startswith("cuda") else None
        ),
    }


def compare(ours: Contest, peer: Contest, count: int) -> Row:
    """Return by how much two contestants differ after some updates from the same start.

    Both take the same batches of the same file, its row numbers modulo the rows of a table that is
    small enough for two.
    """
    torch.set_num_threads(ours.threads)
    bags = read_bags(Path(ours.features))
    some = bags.take(np.arange(min(len(bags), count * ours.batch)))
    source = Bags(some.rows % ours.rows, some.offsets)
    on_host = DAN(ours.shape, threads=ours.threads)
    start = {name: value.copy() for name, value in on_host.weights().items()}
    found, losses = [], []
    for contest in (ours, peer):
        contestant = make(contest, {name: value.copy() for name, value in start.items()})
        losses.append(
            [
                contestant.step(batch, targets, update)
                for update, batch, targets in batches(contest, contestant, source, count)
            ]
        )
        found.append(_numbers(contestant.weights()))
    mine, theirs = found
    start = _numbers(start)
    moved = {name: np.abs(value - start[name]) for name, value in mine.items()}
    apart = {name: np.abs(value - theirs[name]) for name, value in mine.items()}
    return {
        "updates": count,
        "loss": float(np.abs(np.subtract(*losses)).max()),
        "weights": max(float(value.max()) for value in apart.values()),
        "mean": max(float(value.mean()) for value in apart.values()),
        "moved": min(float(value.mean()) for value in moved.values()),
        "touched": int((moved["table"] > 0).any(axis=1).sum()),
    }


def _numbers(weights: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.float32]]:
    """Return weights as float32."""
    return {
        name: from_bfloat16(value) if value.dtype == BFLOAT16 else value
        for name, value in weights.items()
    }


def peak_bytes() -> int:
    """Return the most memory that this process ever had."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("the kernel does not say how much memory a process had")


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
