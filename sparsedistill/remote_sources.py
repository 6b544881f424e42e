"""Where a model's files can come from: a URL that fsspec reads, or a repository on the hub.

A source hands over files by name and turns whatever goes wrong into an error that says what to do.
It checks nothing of what it hands over; `remote` does. No message holds a token, a password or a
signature.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import urlsplit

from sparsedistill import __version__
from sparsedistill.errors import ConfigError, ModelFileError, SparseDistillError
from sparsedistill.model_format import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = {"library_name": "sparsedistill", "library_version": __version__}
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
"""What the id of a repository on the hub looks like."""

_CHUNK = 1 << 20
_MOST_CONFIG = 64 << 20
_WEB = {"http", "https"}
_EXTRAS = {"http": "remote", "https": "remote", "s3": "s3", "s3a": "s3"}


class _NoSuchFileError(ModelFileError):
    """The source is there, or may be, and has no file of this name."""


class Source(Protocol):
    """A place that a model's files are fetched from.

    Attributes:
        shown: Its name for messages.
    """

    shown: str

    def config(self) -> bytes:
        """The content of `config.json`; comes first."""
        ...

    def fetch(self, name: str, target: Path, most: int) -> bool:
        """Write a file to `target`; False if the source has none of this name.

        Raises:
            ModelFileError: It cannot be had, or has more than `most` bytes.
        """
        ...


class UrlSource:
    """A directory at a URL, read with fsspec and whatever credentials that finds."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise ConfigError(
                f"{_shown(url)}: a model at a URL needs fsspec: pip install 'sparsedistill[remote]'"
            ) from error
        self.shown = _shown(url)
        self._scheme = urlsplit(url).scheme.lower()
        web = self._scheme in _WEB
        # A signature follows the path that it is for.
        path, mark, query = url.partition("?") if web else (url, "", "")
        self._path, self._query = path.rstrip("/"), mark + query
        self._secrets = [query, urlsplit(url).netloc.rpartition("@")[0]]
        try:
            self._files, _ = fsspec.core.url_to_fs(path)
        except ImportError as error:
            package = f"sparsedistill[{_EXTRAS[self._scheme]}]" if self._scheme in _EXTRAS else ""
            advice = f"pip install '{package}'" if package else str(error)
            raise ConfigError(
                f"{self.shown}: a package for {self._scheme}:// is missing: {advice}"
            ) from error
        except Exception as error:
            self._refuse(self.shown, error)
        self._options: dict[str, Any] = {}
        if web:
            import aiohttp

            # A file of any length may take its time, but not a minute in which nothing comes.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
            # As one stream, of whatever size; without both, a further request asks for the size.
            self._options = {"block_size": 0, "size": 1, "timeout": timeout}

    def config(self) -> bytes:
        """The content of `config.json`."""
        content = b"".join(self._chunks(CONFIG_FILE, _MOST_CONFIG))
        if not content:
            raise ModelFileError(f"{self.shown}/{CONFIG_FILE}: empty")
        return content

    def fetch(self, name: str, target: Path, most: int) -> bool:
        """Write a file to `target`; False if there is none of this name."""
        try:
            with target.open("wb") as file:
                file.writelines(self._chunks(name, most))
        except _NoSuchFileError:
            return False
        return True

    def _chunks(self, name: str, most: int) -> Iterator[bytes]:
        place, shown = f"{self._path}/{name}{self._query}", f"{self.shown}/{name}"
        try:
            with self._files.open(place, "rb", **self._options) as file:
                while chunk := file.read(_CHUNK):
                    most -= len(chunk)
                    if most < 0:
                        raise ModelFileError(f"{shown}: longer than it may be; not fetched")
                    yield chunk
        except SparseDistillError:
            raise
        except Exception as error:  # Each file system has errors of its own.
            self._refuse(shown, error)

    def _refuse(self, shown: str, error: Exception) -> NoReturn:
        status = getattr(error, "status", None)
        # Some errors hold the whole URL, with what must not be shown.
        cause = None if any(self._secrets) else error
        if isinstance(error, FileNotFoundError) or status == 404:
            raise _NoSuchFileError(
                f"{shown}: there is no such file; is {self.shown} a model's directory?"
            ) from cause
        if isinstance(error, PermissionError) or status in (401, 403):
            raise ModelFileError(
                f"{shown}: access is refused; credentials for {self._scheme}:// are those of "
                "fsspec (its environment variables and configuration file)"
            ) from cause
        reason = f"{type(error).__name__}: {error}" if cause else type(error).__name__
        raise ModelFileError(f"{shown}: cannot be fetched: {reason:.300}") from cause


class HubSource:
    """A model repository on the Hugging Face hub, or where `HF_ENDPOINT` points to."""

    def __init__(
        self, repository: str, *, revision: str | None, token: str | None, cache: Path
    ) -> None:
        import_hub(f"{repository}: there is no such directory, and a model on the hub")
        self.shown = repository if revision is None else f"{repository}@{revision}"
        self._repository, self._revision = repository, revision
        self._token, self._cache = token, cache

    def config(self) -> bytes:
        """The content of `config.json`; what else is fetched is of the same commit."""
        from huggingface_hub import hf_hub_download

        with hub_errors(self.shown, self._token, ModelFileError):
            path = hf_hub_download(
                self._repository,
                CONFIG_FILE,
                revision=self._revision,
                token=self._token,
                cache_dir=self._cache,
                **LIBRARY,
            )
        # .../snapshots/<commit>/config.json
        found = Path(path)
        self._revision = found.parent.name
        return found.read_bytes()

    def fetch(self, name: str, target: Path, most: int) -> bool:
        """Write a file to `target`; False if the repository has none of this name."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import RemoteEntryNotFoundError

        shown = f"{self.shown}/{name}"
        with hub_errors(shown, self._token, ModelFileError):
            try:
                url = hf_hub_url(self._repository, name, revision=self._revision)
                size = get_hf_file_metadata(url, token=self._token, **LIBRARY).size
                if size is not None and size > most:
                    raise ModelFileError(f"{shown}: longer than it may be; not fetched")
                # Past the hub's own cache, which would keep a second copy.
                path = hf_hub_download(
                    self._repository,
                    name,
                    revision=self._revision,
                    token=self._token,
                    local_dir=target.parent / "hub",
                    **LIBRARY,
                )
            except RemoteEntryNotFoundError:
                return False
        Path(path).replace(target)
        return True


@contextmanager
def hub_errors(
    shown: str, token: str | None, kind: type[ModelFileError | ConfigError]
) -> Iterator[None]:
    """Turn the errors of the hub's library into one of ours that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except SparseDistillError:
        raise
    except Exception as error:
        reason = _advice(error, errors) or f"the hub failed: {type(error).__name__}: {error}"
        if token:
            reason = reason.replace(token, "***")
        raise kind(f"{shown}: {reason:.500}") from error


def _advice(error: Exception, errors: Any) -> str | None:  # noqa: ANN401
    """What to do about an error of the hub; None for one that speaks for itself."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return "its owner must grant access first: ask for it on the model's page on the hub"
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return (
            "there is no such directory, and the hub has no such model or keeps it private: "
            "check the name; for a private one pass token= or log in with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return "the model on the hub has no such revision: check branch, tag or commit"
    if isinstance(error, errors.HFValidationError):
        return "neither a directory nor a name that the hub can have (owner/name)"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"the repository on the hub has no {CONFIG_FILE}: is it a model of sparsedistill?"
    if isinstance(error, errors.OfflineModeIsEnabled) or (
        isinstance(error, errors.LocalEntryNotFoundError) and _offline()
    ):
        return "not fetched before, and HF_HUB_OFFLINE is set: unset it once, or give a directory"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "not fetched before, and the hub does not answer: check network and HF_ENDPOINT"
    return None


def _offline() -> bool:
    from huggingface_hub.constants import is_offline_mode

    return bool(is_offline_mode())


def import_hub(what: str) -> None:
    """Refuse with advice where the hub's library is missing."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{what} needs huggingface_hub: pip install 'sparsedistill[hub]'"
        ) from error


def shown_name(model: str) -> str:
    """What to call a model in public: of a URL its last part, without user, password and query.

    Args:
        model: A URL, or a name on the hub, which is its own.
    """
    if "://" not in model:
        return model
    place = re.split(r"[?#]", model, maxsplit=1)[0].partition("://")[2].rstrip("/")
    # Not urlsplit: in a URL within a URL (`zip://a::https://...`) it finds no user.
    before, slash, last = place.rpartition("/")
    is_host = not slash or before.endswith("/")
    return (last.rpartition("@")[2] if is_host else last) or "model"


def _shown(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
