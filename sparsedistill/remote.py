"""Models from and to elsewhere: a URL or the Hugging Face hub.

`config.json` names the size and the SHA-256 of every other file, so a fetched model is kept under
the digest of its `config.json` and is good for as long as the source has the same one. Files are
compared with it when they arrive, once. A model is put in place whole, by one rename: what an
interrupted download leaves behind never loads, and any number of processes may fetch at once. That
the files are the ones that the source means to give is all that is known of them: whoever can
change the source can change all of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sparsedistill.errors import ConfigError, ModelFileError
from sparsedistill.model_card import CARD_FILE, model_card
from sparsedistill.model_format import CONFIG_FILE, check_files, read_config
from sparsedistill.remote_sources import (
    LIBRARY,
    REPOSITORY,
    HubSource,
    UrlSource,
    hub_errors,
    import_hub,
)

if TYPE_CHECKING:
    from sparsedistill.remote_sources import Source

CACHE_VARIABLE = "SPARSEDISTILL_CACHE"

_MOST_CARD = 1 << 20
_DAY = 86400


def fetch_model(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache: str | Path | None = None,
) -> Path:
    """The directory of a model that may be elsewhere, fetched if it is not here.

    Args:
        name: A directory, which is returned as it is; a URL of one, of any protocol that fsspec
            knows; or the id of a repository on the hub, `owner/name`.
        revision: Branch, tag or commit on the hub.
        token: For the hub, where `HF_TOKEN` and a login do not serve; sent nowhere else.
        cache: Where fetched models are kept; `$SPARSEDISTILL_CACHE`, else `sparsedistill` in
            `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        ConfigError: A package is missing, or an argument cannot be.
        ModelFileError: There is no such model, it cannot be had, or it is damaged.
    """
    is_url = isinstance(name, str) and "://" in name
    is_directory = isinstance(name, Path) or (not is_url and name != "" and Path(name).is_dir())
    if revision is not None and (is_url or is_directory):
        raise ConfigError(f"revision {revision!r} is for a model on the hub, which {name} is not")
    if is_directory:
        return Path(name)
    root = _cache_directory(cache)
    if is_url:
        return _fetch(UrlSource(str(name)), root / "models")
    if not REPOSITORY.fullmatch(str(name)):
        raise ModelFileError(f"{name}: there is no such directory")
    source = HubSource(str(name), revision=revision, token=token, cache=root / "hub")
    return _fetch(source, root / "models")


def push_model(
    directory: str | Path,
    repository: str,
    *,
    private: bool | None = False,
    token: str | None = None,
    message: str = "Upload a sparsedistill model",
) -> str:
    """Upload a model's directory to the hub, in one commit; returns the repository's address.

    Args:
        directory: The model. Its `README.md` is the model card; one is made if there is none.
        repository: `owner/name`; made if it is not there.
        private: Whether a repository that is made is private; None leaves it to its owner's
            settings.
        token: For the hub, where `HF_TOKEN` and a login do not serve.
        message: Of the commit.

    Raises:
        ConfigError: The hub's library is missing, or the hub refuses or cannot be reached.
        ModelFileError: The directory holds no whole model.
    """
    import_hub("uploading a model to the hub")
    from huggingface_hub import CommitOperationAdd, HfApi

    directory = Path(directory)
    config = read_config(directory)
    check_files(directory, config)
    given = directory / CARD_FILE
    card = given.read_bytes() if given.is_file() else model_card(config, name=repository).encode()
    additions = [CommitOperationAdd(CARD_FILE, card)] + [
        CommitOperationAdd(name, directory / name) for name in sorted({*config.files, CONFIG_FILE})
    ]
    api = HfApi(token=token, **LIBRARY)
    with hub_errors(repository, token, ConfigError):
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(made.repo_id, additions, commit_message=message)
    return str(made)


def _cache_directory(chosen: str | Path | None) -> Path:
    chosen = chosen or os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sparsedistill"


def _fetch(source: Source, models: Path) -> Path:
    content = source.config()
    target = models / hashlib.sha256(content).hexdigest()[:32]
    if _is_whole(target, content):
        return target
    models.mkdir(parents=True, exist_ok=True)
    _remove_old_leftovers(models)
    work = Path(tempfile.mkdtemp(prefix=".fetch-", dir=models))
    try:
        model = work / "model"
        model.mkdir()
        _download(source, content, work, model)
        _put(model, target, content)
    except ModelFileError as error:
        # Whoever asked knows the source, and nothing of the place in between.
        text = str(error).replace(str(model), source.shown).replace(str(work), source.shown)
        raise ModelFileError(text) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _download(source: Source, content: bytes, work: Path, model: Path) -> None:
    """Fetch and verify all files; `config.json`, without which nothing loads, is put there last.

    `read_config` takes no name but those that a model's files have, so no other is fetched.
    """
    (work / CONFIG_FILE).write_bytes(content)
    config = read_config(work)
    needed, free = sum(size for size, _ in config.files.values()), shutil.disk_usage(work).free
    if needed > free:
        raise ModelFileError(
            f"{source.shown}: needs {needed:,} bytes, and {work.parent} has {free:,} left; "
            f"another place can be given as cache or in ${CACHE_VARIABLE}"
        )
    for name, (size, _) in config.files.items():
        if not source.fetch(name, work / name, size):
            raise ModelFileError(
                f"{source.shown}/{name}: there is no such file, but {CONFIG_FILE} lists it"
            )
        with (work / name).open("rb+") as file:
            os.fsync(file.fileno())
        (work / name).replace(model / name)
    check_files(model, config)
    # A model is as good without its card.
    with suppress(ModelFileError):
        if source.fetch(CARD_FILE, work / CARD_FILE, _MOST_CARD):
            (work / CARD_FILE).replace(model / CARD_FILE)
    (work / CONFIG_FILE).replace(model / CONFIG_FILE)


def _is_whole(directory: Path, content: bytes) -> bool:
    """Whether a fetched model is there; verified when it came, so only sizes are looked at."""
    try:
        if (directory / CONFIG_FILE).read_bytes() != content:
            return False
        files = read_config(directory).files
        return all((directory / name).stat().st_size == size for name, (size, _) in files.items())
    except (OSError, ModelFileError):
        return False


def _put(model: Path, target: Path, content: bytes) -> None:
    """Put a fetched model in place, unless another process has done so."""
    try:
        model.replace(target)
    except OSError:
        if _is_whole(target, content):
            return
        # Damaged since: put aside, into what is removed when all is done.
        target.replace(model.with_name("damaged"))
        model.replace(target)


def _remove_old_leftovers(models: Path) -> None:
    """Remove what downloads that were killed have left."""
    for path in models.glob(".fetch-*"):
        # Others fetch and remove their own meanwhile.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _DAY:
                shutil.rmtree(path, ignore_errors=True)
