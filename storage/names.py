"""Which names may become paths in a store: the one place that keeps every path inside its root.

Kinds, keys and file names arrive from code, from the command line and from manifests that others
may have altered; all of them pass here before they are joined to a path.
"""

from __future__ import annotations

import re

from storage.errors import StorageError
from storage.urls import holds_credentials

MANIFEST = "manifest.json"
MARK = "damaged.json"
_KIND = re.compile(r"[a-z][a-z_]*")
_KEY = re.compile(r"[0-9a-f]{32}")
_KEY_PREFIX = re.compile(r"[0-9a-f]{1,32}")
# Control characters, and what file systems or fsspec's globbing read as more than a character.
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|\[\]]')
_LONGEST_PART = 200


def is_kind(name: str) -> bool:
    """Whether a directory of this name in the root holds artifacts."""
    return _KIND.fullmatch(name) is not None


def is_key(name: str) -> bool:
    """Whether a directory of this name below a kind is an artifact."""
    return _KEY.fullmatch(name) is not None


def check_kind(kind: str) -> str:
    """The kind itself, or StorageError when it is not `[a-z][a-z_]*`."""
    if not is_kind(kind):
        raise StorageError(f"{kind!r} is no artifact kind: use small letters and underscores")
    return kind


def check_key(key: str) -> str:
    """The key itself, or StorageError when it is not 32 hexadecimal digits."""
    if not is_key(key):
        raise StorageError(f"{key!r} is no artifact key: a key is 32 hexadecimal digits")
    return key


def check_key_prefix(prefix: str) -> str:
    """The prefix itself, or StorageError when no key can start with it."""
    if not _KEY_PREFIX.fullmatch(prefix):
        raise StorageError(f"{prefix!r} starts no artifact key: give 1 to 32 hexadecimal digits")
    return prefix


def check_file_name(name: str) -> str:
    """The name itself, or StorageError when it could leave its artifact's directory.

    Names are relative, parts joined by `/`. `manifest.json` and `damaged.json` are the store's.
    """
    if name in (MANIFEST, MARK):
        raise StorageError(f"{name} is written by the store; choose another file name")
    reason = _reason_against(name)
    if reason:
        raise StorageError(f"{name!r} is no file name of an artifact: {reason}")
    return name


def check_store_url(url: str) -> str:
    """The URL of a store itself; StorageError, without the URL, when it holds credentials."""
    if holds_credentials(url):
        raise StorageError(
            "the URL of the store holds a password or a token, which would get into logs: give "
            "credentials by the environment (AWS_ACCESS_KEY_ID, ~/.aws, FSSPEC_...; docs/store.md)"
        )
    return url


def _reason_against(name: str) -> str | None:
    if name.startswith("/"):
        return "it must be relative"
    if _FORBIDDEN.search(name):
        return 'it may not hold control characters or any of \\ : * ? " < > | [ ]'
    try:
        parts = [part.encode() for part in name.split("/")]
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if any(part in (b"", b".", b"..") for part in parts):
        return "no part of it may be empty, '.' or '..'"
    if any(len(part) > _LONGEST_PART for part in parts):
        return f"no part of it may be longer than {_LONGEST_PART} bytes"
    return None
