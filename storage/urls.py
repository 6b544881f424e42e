"""Secrets in URLs: user:password@, and the signed query of a presigned URL.

What has a password in it is refused, for it would end in configurations, logs and manifests. What
is shown of a URL never has its query or fragment, where presigned URLs and tokens keep theirs.
"""

from __future__ import annotations

import re

# A query has a "="; without one a "?" is a wildcard, or part of a name, as a blank is.
_QUERY = re.compile(r"(://[^\r\n'\"<>]*?)\?[^\s'\"<>]*=[^\s'\"<>]*")
# Elsewhere a "#" is a part of the name.
_FRAGMENT = re.compile(r"(https?://[^\r\n'\"<>]*?)#[^\s'\"<>]*=[^\s'\"<>]*")
# No host has a ":" before anything but the digits of a port.
_PASSWORD = re.compile(r"://[^/?#\s]*:(?!\d*(?:[/?#\s]|$))[^\s]*@|://[^/?#\s@]*:[^/?#\s@]*@")
_USER = re.compile(r"\b(https?)://[^/?#\s]*@")


def holds_credentials(url: str) -> bool:
    """Whether a URL says who may use it: `scheme://user:password@`, or a token before an `@`."""
    return bool(_PASSWORD.search(url) or _USER.search(url))


def safe_cause(error: BaseException) -> BaseException:
    """The error itself, or, where its text holds a URL's secrets, one like it without them."""
    text = str(error)
    return error if shown(text) == text else ConnectionError(shown(text))


def shown(text: str) -> str:
    """A URL, or a message with URLs in it, without queries, fragments and passwords."""
    text = _FRAGMENT.sub(r"\1", _QUERY.sub(r"\1", text))
    text = _PASSWORD.sub("://...@", text)
    return _USER.sub(r"\1://...@", text)
