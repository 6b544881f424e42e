"""What is raised, without secrets: Prefect writes it into its logs, states, events and messages."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparsedistill.errors import SparseDistillError
from tasks.logs import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

# A text that still quotes a secret is seen, and replaced.
_DEEPEST = 5


@contextmanager
def telling_no_secrets() -> Iterator[None]:
    """Cross secrets out of whatever the block raises, and of what led to it.

    An error stays what it is, for its kind decides what is tried again. One whose text cannot be
    changed becomes one that can be told.

    Raises:
        SparseDistillError: In the place of an error whose text cannot be changed.
    """
    try:
        yield
    except Exception as error:
        if _is_mended(error):
            raise
        told = without_secrets(f"{type(error).__name__}: {error}")
    else:
        return
    # Not shown with it, what was raised stays its context: by that it is known what may pass.
    raise SparseDistillError(told) from None


def _is_mended(error: BaseException) -> bool:
    try:
        return _mended(error, set())
    except Exception:  # a frozen one, say
        return False


def _mended(error: BaseException, seen: set[int]) -> bool:
    """Cross secrets out of an error and of all that led to it; False where that is not possible."""
    if id(error) in seen:
        return True
    seen.add(id(error))
    error.args = tuple(_plain(one) for one in error.args)
    vars(error).update({name: _plain(value) for name, value in vars(error).items()})
    if isinstance(error, OSError):
        # In no dictionary, and in its text; one that is set to None would be in it as well.
        for name in ("strerror", "filename", "filename2"):
            if isinstance(getattr(error, name), str):
                setattr(error, name, _plain(getattr(error, name)))
    before = [error.__cause__, None if error.__suppress_context__ else error.__context__]
    if isinstance(error, BaseExceptionGroup):
        before += error.exceptions
    told = [str(error), *getattr(error, "__notes__", ())]
    return all([
        *(without_secrets(one) == one for one in told),
        *(_mended(one, seen) for one in before if one is not None),
    ])  # fmt: skip


def _plain(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 (whatever an error holds)
    """Return strings, and those in lists and dictionaries, without secrets; all else as it is."""
    if isinstance(value, str):
        return without_secrets(value)
    if depth == _DEEPEST:
        return value
    if isinstance(value, dict):
        return {key: _plain(one, depth + 1) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(one, depth + 1) for one in value)
    return value
