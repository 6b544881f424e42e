"""A table whose rows are shared out among processes, for one that no single GPU holds.

Of n processes, number i has every n-th row from row i on: the first rows are the most frequent, so
all have as much to do. Process 0 trains, as it would alone: it has the data, the dense layers, the
checkpoints and all decisions. The others keep their rows and do with them what it says, each time
the same as it does with its own (`_Part`). Between them go the bags of a batch, the sums of their
rows, and what is handed back to them; never a row, but for a checkpoint.

Dense layers and checkpoints in one process cost little (an update of 2048 x 1000 x 1000 is a
millisecond of a GPU) and leave nothing to agree on: a checkpoint is one, whole or not there, the
same as that of a single process, and can be taken up by any number of them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from sparsedistill.bags import Bags
from sparsedistill.errors import ConfigError
from sparsedistill.training.grouping import group_by_row
from sparsedistill.training.held import on_host, put
from sparsedistill.training.table import TableOptions
from sparsedistill.training.torch_table import table_on

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from torch import Tensor

    from sparsedistill.training.grouping import GroupedBags
    from sparsedistill.training.table import MakeTable

T = TypeVar("T")

_MESSAGE = 1024
# Rows that travel together.
_ROWS = 16_384


def train_in_processes(
    train: Callable[[MakeTable], T], *, device: str = "cpu", threads: int = 1
) -> T | None:
    """Train with the rows of the table in all processes of torch.distributed's group.

    To be called in each of them. `torchrun --nproc-per-node 4 train.py` starts four of a script:

        torch.distributed.init_process_group()
        device = f"cuda:{os.environ['LOCAL_RANK']}"

        def train(make_table):
            student = DAN(shape, training=training, device=device, table=make_table)
            return fit(student, examples, objective, recipe, dev=dev, seed=0)

        train_in_processes(train, device=device)
        torch.distributed.destroy_process_group()

    Args:
        train: Called in process 0 alone, with what makes a table; one at a time is in use.
        device: Of this process's rows, as torch names it. What travels between GPUs goes by NCCL,
            all else by gloo: a group that is made without a choice of these has both.
        threads: Of the kernels, where that is the processor.

    Returns:
        What ``train`` returns; in the other processes None.

    Raises:
        ConfigError: There is no group of processes.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ConfigError(
            "there is no group of processes: start the script with torchrun, and call "
            "torch.distributed.init_process_group() first"
        )
    link = _Link(device, threads)
    if link.rank:
        _serve(link)
        return None
    try:
        return train(partial(ShardedTable, link))
    finally:
        link.say("stop")


class ShardedTable:
    """A table in process 0 whose rows are in all of them; an ``EmbeddingTable``.

    Attributes:
        options: How it is kept and updated.
        weights: To be copied from all processes, and back.
        first_moment: The same.
        second_moment: The same.
        changed: The update that last changed each row, int32 [rows], in memory.
    """

    def __init__(
        self,
        link: _Link,
        rows: int,
        width: int,
        options: TableOptions,
        *,
        weights: npt.NDArray[Any] | None = None,
    ) -> None:
        """Make room for a table in all processes, in place of one that is there.

        Args:
            link: To the other processes.
            rows: Of the vocabulary.
            width: Of a row.
            options: How it is kept and updated. bfloat16 is rounded by other chances than in one
                process.
            weights: To start from, in the type of the options; copied.
        """
        self.options = options
        self.changed = np.zeros(rows, np.int32)
        self._link, self._lock = link, Lock()
        self._bags: Bags | None = None
        self._link.say("make", rows=rows, width=width, options=asdict(options))
        self._part = _Part(link, rows, width, options)
        second = (rows, width) if options.second_moment == "element" else (rows,)
        self.weights = _Spread(self, "weights", (rows, width), np.dtype(options.stored))
        self.first_moment = _Spread(self, "first_moment", (rows, width), np.dtype(np.float32))
        self.second_moment = _Spread(self, "second_moment", second, np.dtype(np.float32))
        if weights is not None:
            self.weights.put(weights)

    def fill(self, first: int, values: npt.NDArray[np.float32]) -> None:
        """Set rows from ``first`` on, float32 [some, width]; by one thread after another."""
        with self._lock:
            self.everywhere("fill", torch.from_numpy(values), first=first, rows=len(values))

    def pool(self, bags: Bags) -> Tensor:
        """As ``EmbeddingTable`` has it."""
        self._hand_out(bags)
        pooled: Tensor = self.everywhere("pool")
        if self.options.pooling == "mean":
            pooled *= (1 / _counts(bags)).to(pooled.device)
        return pooled

    def norm_squared(self, batch: GroupedBags, gradient: Tensor) -> float:
        """As ``EmbeddingTable`` has it."""
        found: float = self.everywhere("norm_squared", self._handed_back(batch, gradient))
        return found

    def update(
        self,
        batch: GroupedBags,
        gradient: Tensor,
        *,
        update: int,
        learning_rate: float,
        factor: float = 1.0,
    ) -> None:
        """As ``EmbeddingTable`` has it."""
        constants = {"update": update, "learning_rate": learning_rate, "factor": factor}
        self.everywhere("update", self._handed_back(batch, gradient), **constants)
        self.changed[batch.touched] = update

    def everywhere(self, name: str, given: Any = None, **values: Any) -> Any:  # noqa: ANN401
        """Call a method of every process's part; ``given`` is for that of this one alone."""
        self._link.say(name, **values)
        return getattr(self._part, name)(given, **values)

    def _hand_out(self, bags: Bags) -> None:
        """See that all processes have the bags; they cannot be changed, so they do for long."""
        if bags is not self._bags:
            self.everywhere("take", bags, bags=len(bags), occurrences=len(bags.rows))
            self._bags = bags

    def _handed_back(self, batch: GroupedBags, gradient: Tensor) -> Tensor:
        """Return what a bag hands back to each of its rows, [bags, width]."""
        self._hand_out(batch.bags)
        if self.options.pooling == "sum":
            return gradient
        return gradient / _counts(batch.bags).to(gradient.device)


@dataclass(frozen=True, slots=True)
class _Spread:
    """An array of the table, row by row in all processes; an ``Elsewhere``."""

    table: ShardedTable
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def get(self) -> npt.NDArray[Any]:
        """Return a copy."""
        values = np.empty(self.shape, self.dtype)
        self.table.everywhere("give", values, array=self.name)
        return values

    def put(self, values: npt.NDArray[Any]) -> None:
        """Write all of it."""
        self.table.everywhere("receive", values, array=self.name)


class _Part:
    """The rows of one process, and what it does with them when all do.

    The first argument of a method is what only process 0 has; the others are the same in all.
    """

    def __init__(self, link: _Link, rows: int, width: int, options: TableOptions) -> None:
        self._link, self._width = link, width
        own = len(range(link.rank, rows, link.processes))
        self._table = table_on(link.device, threads=link.threads)(
            own, width, replace(options, pooling="sum")
        )
        self._bags = Bags(np.zeros(0, np.int32), np.zeros(1, np.int64))
        self._batch: GroupedBags | None = None

    def fill(self, given: Tensor | None, *, first: int, rows: int) -> None:
        """Take this process's rows out of some that follow each other."""
        values = self._link.shared(given, (rows, self._width), torch.float32).numpy()
        before = len(range(self._link.rank, first, self._link.processes))
        skipped = self._link.rank + before * self._link.processes - first
        self._table.fill(before, np.ascontiguousarray(values[skipped :: self._link.processes]))

    def take(self, given: Bags | None, *, bags: int, occurrences: int) -> None:
        """Take over a batch, but for the rows of other processes."""
        packed = None
        if given is not None:
            packed = torch.from_numpy(np.concatenate([given.offsets, given.rows]))
        packed = self._link.shared(packed, (bags + 1 + occurrences,), torch.int64)
        offsets, rows = np.split(packed.numpy(), [bags + 1])
        own = rows % self._link.processes == self._link.rank
        before = np.concatenate([[0], np.cumsum(own)])
        self._bags = Bags((rows[own] // self._link.processes).astype(np.int32), before[offsets])
        self._batch = None

    def pool(self, given: None) -> Tensor:  # noqa: ARG002
        """Add up this process's rows of each bag, and in process 0 those of all."""
        return self._link.total(self._table.pool(self._bags))

    def norm_squared(self, given: Tensor | None) -> float:
        """Return, in process 0, the squared length of the whole gradient."""
        own = self._table.norm_squared(self._grouped(), self._gradient(given))
        return self._link.total(torch.tensor(own, dtype=torch.float64)).item()

    def update(
        self, given: Tensor | None, *, update: int, learning_rate: float, factor: float
    ) -> None:
        """Apply one step of Adam to this process's rows of the batch."""
        self._table.update(
            self._grouped(),
            self._gradient(given),
            update=update,
            learning_rate=learning_rate,
            factor=factor,
        )

    def give(self, given: npt.NDArray[Any] | None, *, array: str) -> None:
        """Copy this process's rows of an array to those that process 0 was given."""
        held = getattr(self._table, array)
        if given is not None:
            given[:: self._link.processes] = on_host(held)
            for rank in range(1, self._link.processes):
                for rows in _blocks(given[rank :: self._link.processes]):
                    self._link.receive(rows, rank)
            return
        for first in range(0, len(held), _ROWS):
            self._link.send(on_host(held[first : first + _ROWS]), 0)

    def receive(self, given: npt.NDArray[Any] | None, *, array: str) -> None:
        """Copy this process's rows of an array from those that process 0 was given."""
        held = getattr(self._table, array)
        if given is not None:
            put(held, given[:: self._link.processes])
            for rank in range(1, self._link.processes):
                for rows in _blocks(given[rank :: self._link.processes]):
                    self._link.send(rows, rank)
            return
        for first in range(0, len(held), _ROWS):
            some = held[first : first + _ROWS]
            values = np.empty_like(on_host(some))
            self._link.receive(values, 0)
            put(some, values)

    def _gradient(self, given: Tensor | None) -> Tensor:
        shape = (len(self._bags), self._width)
        return self._link.shared(given, shape, torch.float32, self._link.device)

    def _grouped(self) -> GroupedBags:
        if self._batch is None:
            self._batch = group_by_row(self._bags)
        return self._batch


class _Link:
    """How the processes speak to each other: numbers between devices, all else in memory."""

    def __init__(self, device: str, threads: int) -> None:
        self.device, self.threads = torch.device(device), threads
        self.rank, self.processes = dist.get_rank(), dist.get_world_size()

    def say(self, name: str, **values: Any) -> None:  # noqa: ANN401
        """Tell the other processes what to do."""
        text = json.dumps([name, values]).encode().ljust(_MESSAGE)
        dist.broadcast(torch.frombuffer(bytearray(text), dtype=torch.uint8), 0)

    def hear(self) -> tuple[str, dict[str, Any]]:
        """Wait for what process 0 says."""
        text = torch.empty(_MESSAGE, dtype=torch.uint8)
        dist.broadcast(text, 0)
        name, values = json.loads(bytes(text.numpy()))
        return name, values

    def shared(
        self,
        given: Tensor | None,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device | None = None,
    ) -> Tensor:
        """Return what process 0 was given, in all of them."""
        if given is None:
            given = torch.empty(shape, dtype=dtype, device=device)
        values = given.contiguous()
        dist.broadcast(values, 0)
        return values

    def total(self, values: Tensor) -> Tensor:
        """Return, in process 0, the sum over all."""
        dist.reduce(values, 0)
        return values

    def send(self, rows: npt.NDArray[Any], rank: int) -> None:
        """Send rows of a table."""
        # As bytes: not every type of number can travel.
        dist.send(torch.from_numpy(np.array(rows).reshape(-1).view(np.uint8)), rank)

    def receive(self, rows: npt.NDArray[Any], rank: int) -> None:
        """Write rows of a table that were sent."""
        sent = np.empty(rows.nbytes, np.uint8)
        dist.recv(torch.from_numpy(sent), rank)
        rows[...] = sent.view(rows.dtype).reshape(rows.shape)


def _serve(link: _Link) -> None:
    """Do with this process's rows what process 0 says, until it says stop."""
    part: _Part | None = None
    while True:
        name, values = link.hear()
        if name == "stop":
            return
        if name == "make":
            options = values.pop("options")
            options = TableOptions(**{**options, "betas": tuple(options["betas"])})
            part = None  # its memory is needed for the next
            part = _Part(link, **values, options=options)
        else:
            getattr(part, name)(None, **values)


def _counts(bags: Bags) -> Tensor:
    """Return how many rows each bag has, at least 1, float32 [bags, 1]."""
    return torch.from_numpy(np.maximum(np.diff(bags.offsets), 1).astype(np.float32)[:, None])


def _blocks(rows: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    return [rows[first : first + _ROWS] for first in range(0, len(rows), _ROWS)]
