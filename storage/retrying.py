"""Trying again what a network or a server may have got wrong."""

from __future__ import annotations

import errno
import logging
import random
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

TRIES = 5
FIRST_WAIT_SECONDS = 0.5

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_FINAL = {
    errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS,
}  # fmt: skip
_FINAL_TYPES = (FileExistsError, FileNotFoundError, NotADirectoryError, PermissionError)
_NETWORK_LIBRARIES = {"aiohttp", "botocore", "google", "httpcore", "httpx", "requests", "urllib3"}
_SETTINGS = ("Credential", "Configuration", "ParamValidation", "Profile", "Region", "Token")


def again(what: str, work: Callable[[], _T]) -> _T:
    """Do some work, and do it again, up to `TRIES` times, when it fails in a way that may pass.

    Waits between tries, twice as long each time, by chance up to half longer. File systems and
    their HTTP libraries try again too, but not after every error: of s3fs, a body that ends early
    in one part of a large file, for one.
    """
    for attempt in range(1, TRIES):
        try:
            return work()
        except Exception as error:
            if not may_pass(error):
                raise
            wait = FIRST_WAIT_SECONDS * 2 ** (attempt - 1) * random.uniform(1, 1.5)  # noqa: S311
            _LOG.info("%s failed (%s), trying again in %.1f s", what, type(error).__name__, wait)
            time.sleep(wait)
    return work()


def is_of_network(error: BaseException) -> bool:
    """Whether an error is a file system's own, or of the libraries below it."""
    module = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or module in _NETWORK_LIBRARIES


def may_pass(error: BaseException) -> bool:
    """Whether trying again can help: networks and servers; no permission, no path, no setting."""
    if isinstance(error, _FINAL_TYPES):
        return False
    if any(word in type(error).__name__ for word in _SETTINGS):
        return False
    return is_of_network(error) and getattr(error, "errno", None) not in _FINAL
