"""Torch in one thread: work is shared out by whoever calls it, a batch or a slice a thread.

How many threads torch works in is a number of each thread; one that is new takes what was set last
in the process. So the users are counted, and the last one out leaves the process as it was.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_lock = threading.Lock()
_users = 0
_of_new_threads = 1


class _Mine(threading.local):
    inside = False


_mine = _Mine()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Have torch work in the thread it is called from, for as long as the block lasts.

    Two ways of sharing at once would have more threads than cores; and what torch's own threads sum
    up comes out with other last bits where there is another number of them. Threads that begin in
    the block have one too, whoever else comes and goes.
    """
    if _mine.inside:
        yield
        return
    before = _enter()
    _mine.inside = True
    try:
        yield
    finally:
        _mine.inside = False
        _leave(before)


def _enter() -> int:
    """Return the number that this thread is to have again."""
    global _users, _of_new_threads
    with _lock:
        before = torch.get_num_threads()
        if _users == 0:
            _of_new_threads = before
        elif before == 1:  # as a thread has that began in the block of another user
            before = _of_new_threads
        _users += 1
        torch.set_num_threads(1)
    return before


def _leave(before: int) -> None:
    global _users
    with _lock:
        _users -= 1
        torch.set_num_threads(before)
        of_new_threads = _of_new_threads if _users == 0 else 1
        if of_new_threads != before:
            # Set here it would be this thread's own number too.
            setting = threading.Thread(target=torch.set_num_threads, args=(of_new_threads,))
            setting.start()
            setting.join()
