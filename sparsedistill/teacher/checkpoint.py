"""Checkpoints of transformers: which one a name stands for, loading it, saving it.

A name is a directory here, or a commit on the hub. The digest decides whether the teacher's work is
still good, so it is of the content: of the files for a directory, of the commit for a hub name.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsedistill.errors import ConfigError, TeacherError
from sparsedistill.teacher.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODE_OR_NOTES = {".py", ".pyc", ".md", ".lock"}
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_OTHER_WEIGHTS = (".bin", ".pt", ".ckpt", ".h5", ".msgpack")
_SECONDS_FOR_THE_HUB = 10
_NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A pretrained or fine-tuned model that transformers can load.

    Attributes:
        name: Directory or hub name.
        revision: Commit on the hub; None for a directory.
        digest: Of the content.
    """

    name: str
    revision: str | None
    digest: str


def resolve_checkpoint(name: str, *, revision: str | None = None) -> Checkpoint:
    """Return the checkpoint that ``name`` stands for.

    Args:
        name: A directory with a ``config.json``, or a name on the Hugging Face hub. Of a name on
            the hub the commit in the local cache is taken, where there is one.
        revision: Branch, tag or commit on the hub.

    Raises:
        ConfigError: It is a directory without a model, looks like one that is not there, or the hub
            does not know it or cannot be reached.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return Checkpoint(name=str(path), revision=None, digest=_directory_digest(path))
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(
            f"teacher.checkpoint: no directory {name!r}; give a directory with a config.json or a "
            "hub name such as 'FacebookAI/roberta-large'"
        )
    return _on_the_hub(name, revision)


def _directory_digest(path: Path) -> str:
    if not (path / "config.json").is_file():
        raise ConfigError(f"teacher.checkpoint: {path} has no config.json, so it is not a model")
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        hidden = any(part.startswith((".", "__")) for part in relative.parts)
        if not file.is_file() or hidden or file.suffix in _CODE_OR_NOTES:
            continue
        stat = file.stat()
        content = _file_digest(file, stat.st_size, stat.st_mtime_ns, stat.st_ino)
        digest.update(f"{relative.as_posix()} {content}\n".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=4096)
def _file_digest(path: Path, *_state: int) -> str:
    """Return the digest of a file, read once as long as its size and times stay as they are."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _on_the_hub(name: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str):
            commit = Path(cached).parent.name
        else:
            info = HfApi().model_info(name, revision=revision, timeout=_SECONDS_FOR_THE_HUB)
            commit = str(info.sha)
    except Exception as error:
        raise ConfigError(
            f"teacher.checkpoint: there is no directory {name!r}, and the hub gave no model of "
            f"that name ({type(error).__name__}: {_first_line(error)})"
        ) from error
    return Checkpoint(name=name, revision=commit, digest=f"hub:{name}@{commit}")


def load_tokenizer(name: Path | str, *, revision: str | None = None) -> Any:  # noqa: ANN401
    """Return the tokenizer of a checkpoint; no code of the checkpoint is run.

    Raises:
        TeacherError: There is none, transformers cannot read it, or it cannot pad.
    """
    from transformers import AutoTokenizer

    directory = _local(name, revision)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # of many kinds, some of them plain Exception
        raise TeacherError(f"{name} has no tokenizer that loads: {_first_line(error)}") from error
    # Without its files transformers makes one up that knows nothing but the special tokens.
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_ids):
        raise TeacherError(f"{name} has no tokenizer: save it beside the model's config.json")
    if tokenizer.pad_token_id is None:
        raise TeacherError(f"the tokenizer of {name} has no pad_token; set one and save it again")
    return tokenizer


def load_config(name: Path | str, *, revision: str | None = None) -> Any:  # noqa: ANN401
    """Return the configuration of a checkpoint of an architecture that can classify texts.

    Raises:
        TeacherError: The installed transformers does not know it, or it cannot classify texts.
    """
    return _config_in(Path(_local(name, revision)), name)


def _config_in(directory: Path, name: Path | str) -> Any:  # noqa: ANN401
    """Return the configuration in a directory that a name stands for; raises as `load_config`."""
    from transformers import AutoConfig, __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    try:
        stated = _stated(directory)
        kind = stated.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise TeacherError(f"{name} has no config.json that can be read: {error}") from error
    if kind is None:
        raise TeacherError(f"{name}: config.json states no model_type, so it is no checkpoint")
    if kind not in CONFIG_MAPPING:
        raise TeacherError(
            f"{name} is of model_type {kind!r}, which the installed transformers {__version__} "
            "does not know; it was saved by transformers "
            f"{stated.get('transformers_version', '?')}. Upgrade transformers, or give a teacher "
            "of an architecture it knows (code that comes with a checkpoint is not run)"
        )
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # of many kinds
        raise TeacherError(
            f"the config.json of {name} cannot be used: {_first_line(error)}{_versions(directory)}"
        ) from error
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise TeacherError(
            f"{name} is of model_type {kind!r}, of which transformers has no sequence classifier; "
            "give an encoder of texts such as 'FacebookAI/roberta-base'"
        )
    return config


def load_model(name: Path | str, *, revision: str | None = None, **head: Any) -> Any:  # noqa: ANN401
    """Return the sequence classifier of a checkpoint, from safetensors only, in float32.

    Args:
        name: Directory or hub name.
        revision: Commit on the hub.
        head: Settings of a new head (``num_labels`` and the like), for fine-tuning; without them
            the checkpoint must have a head.

    Raises:
        TeacherError: transformers cannot read it, or weights are missing: those of a new head and
            of the pooler below it may be.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    directory = Path(_local(name, revision))
    _config_in(directory, name)  # has the better words for what it refuses
    _check_format(name, directory)
    try:
        with quiet_transformers():
            model, found = AutoModelForSequenceClassification.from_pretrained(
                directory,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=bool(head),
                output_loading_info=True,
                dtype=torch.float32,
                **head,
            )
    except Exception as error:  # of many kinds, some of them plain Exception
        raise TeacherError(
            f"the model of {name} cannot be loaded: {_first_line(error)}{_versions(directory)}"
        ) from error
    missing = sorted(found["missing_keys"])
    if missing and not head:
        raise TeacherError(
            f"{name} is no fine-tuned classifier: it lacks {_some(missing)}; fine-tune it "
            "([teacher] finetune = true), or give one that is"
        )
    body = f"{model.base_model_prefix}."
    new = {*missing, *(key for key, *_ in found["mismatched_keys"])}
    lost = sorted(key for key in new if key.startswith(body) and ".pooler." not in key)
    if lost:
        raise TeacherError(
            f"{name} lacks {len(lost)} weights that its config.json asks for, or has them in "
            f"another shape: {_some(lost)}; its model.safetensors is of another architecture or "
            "size, and random weights would be fine-tuned in their place"
        )
    return model


def load_classifier(name: Path | str, *, revision: str | None = None) -> tuple[Any, Any]:
    """Return (tokenizer, model) of a fine-tuned sequence classifier.

    Raises:
        TeacherError: As ``load_tokenizer`` and ``load_model`` do.
    """
    tokenizer, model = load_tokenizer(name, revision=revision), load_model(name, revision=revision)
    name_padding(model, tokenizer)
    return tokenizer, model


def name_padding(model: Any, tokenizer: Any) -> None:  # noqa: ANN401
    """Tell a model what its padding is, where only the tokenizer knows.

    Decoders look for the last token before the padding, and read no two rows at a time without it.
    """
    config = model.config.get_text_config()
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id


def save_classifier(tokenizer: Any, model: Any, directory: Path) -> None:  # noqa: ANN401
    """Write model and tokenizer, without the path that either was read from."""
    model.config._name_or_path = ""
    tokenizer.name_or_path = ""
    tokenizer.init_kwargs.pop("name_or_path", None)
    with quiet_transformers():
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def _local(name: Path | str, revision: str | None) -> str:
    """Return the directory of a checkpoint, fetched from the hub where it is not here yet.

    Given a directory, transformers asks the network nothing; given a hub name it would, and try for
    most of a minute where there is none. So would the hub's own client: one quick question first.
    """
    if revision is None:
        if not Path(name).is_dir():
            raise TeacherError(f"there is no directory {name}")
        return str(name)
    from huggingface_hub import HfApi, snapshot_download

    refusal: Exception | None = None
    try:
        HfApi().model_info(str(name), revision=revision, timeout=_SECONDS_FOR_THE_HUB)
    except Exception as error:  # of many kinds; the cache may have the files all the same
        refusal = error
    try:
        with quiet_transformers():
            directory: str = snapshot_download(
                str(name),
                revision=revision,
                allow_patterns=_HUB_FILES,
                ignore_patterns="*/*",  # other checkpoints, other formats
                local_files_only=refusal is not None,
            )
            return directory
    except Exception as error:
        reason = _first_line(refusal or error)
        raise TeacherError(f"{name} cannot be fetched from the hub: {reason}") from error


def _check_format(name: Path | str, directory: Path) -> None:
    """Refuse weights that are not safetensors, by name."""
    if any(directory.glob("*.safetensors")):
        return
    others = sorted(path.name for suffix in _OTHER_WEIGHTS for path in directory.glob(f"*{suffix}"))
    if others:
        raise TeacherError(
            f"{name} has its weights in {_some(others)} only, and loading such a file can run "
            "code; save the model again as safetensors (save_pretrained of a current "
            "transformers) and give that directory"
        )
    raise TeacherError(f"{name} has no *.safetensors: there are no weights to load")


def _stated(directory: Path) -> dict[str, Any]:
    """Return config.json as it is; transformers would put its own version in."""
    stated: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return stated


def _versions(directory: Path) -> str:
    """Return a hint where a checkpoint was saved by a newer transformers than is installed."""
    from packaging.version import InvalidVersion, Version
    from transformers import __version__

    stated = str(_stated(directory).get("transformers_version"))
    try:
        newer = Version(stated) > Version(__version__)
    except InvalidVersion:
        return ""
    if not newer:
        return ""
    return f" (saved by transformers {stated}, installed is {__version__}: upgrade transformers)"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
