"""Torch in one thread: work is shared out by whoever calls it, a batch or a slice a thread."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Have torch work in the thread it is called from, for as long as the block lasts.

    Two ways of sharing at once would have more threads than cores; and what torch's own threads sum
    up comes out with other last bits where there is another number of them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
