"""Torch works in one thread for who asks, and leaves every thread as it was, whoever overlaps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import pytest
import torch

from sparsedistill.torch_threads import one_torch_thread

NUMBER = 3


@pytest.fixture(autouse=True)
def _a_number_of_threads() -> Iterator[None]:
    torch.set_num_threads(NUMBER)
    yield
    torch.set_num_threads(1)


def of_a_new_thread() -> int:
    """What a thread has that begins now."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


class User:
    """A thread that goes into the block and out of it when it is told to.

    Args:
        number: Of the thread's own, set before; None lets it begin with what a new thread has.
    """

    def __init__(self, number: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._block = one_torch_thread()
        if number is not None:
            self._do(lambda: torch.set_num_threads(number))

    def _do(self, work: Callable[[], object]) -> int:
        """Return the number that the thread has after the work."""
        return self._pool.submit(lambda: (work(), torch.get_num_threads())[1]).result(60)

    def go_in(self) -> int:
        return self._do(self._block.__enter__)

    def go_out(self) -> int:
        found = self._do(lambda: self._block.__exit__(None, None, None))
        self._pool.shutdown()
        return found


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_users_that_overlap_leave_the_process_as_it_was(order: tuple[int, ...]) -> None:
    users = [User() for _ in order]
    for user in users:
        assert user.go_in() == 1
    assert of_a_new_thread() == 1
    for number in order[:-1]:
        assert users[number].go_out() == NUMBER
        assert of_a_new_thread() == 1, "a thread that another user begins has one"
    assert users[order[-1]].go_out() == NUMBER
    assert torch.get_num_threads() == of_a_new_thread() == NUMBER


@pytest.mark.parametrize("first_out", [0, 1])
def test_a_thread_has_its_own_number_again(first_out: int) -> None:
    users = [User(), User(number=2)]
    torch.set_num_threads(NUMBER)
    for user in users:
        assert user.go_in() == 1
    assert users[first_out].go_out() == (NUMBER, 2)[first_out]
    assert users[1 - first_out].go_out() == (NUMBER, 2)[1 - first_out]
    assert torch.get_num_threads() == of_a_new_thread() == NUMBER


def test_a_block_in_a_block_of_the_same_thread_ends_with_the_outer_one() -> None:
    with one_torch_thread():
        with one_torch_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == of_a_new_thread() == 1
    assert torch.get_num_threads() == of_a_new_thread() == NUMBER


def test_a_block_that_fails_leaves_the_number_as_it_was() -> None:
    with pytest.raises(ValueError, match="failed"), one_torch_thread():
        raise ValueError("failed")
    assert torch.get_num_threads() == of_a_new_thread() == NUMBER
