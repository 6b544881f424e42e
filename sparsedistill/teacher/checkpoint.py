"""Checkpoints of transformers: which one a name stands for, loading it, saving it.

A name is a directory here, or a commit on the hub. The digest decides whether the teacher's work is still good, so it is of the content: of the files
for a directory, of the commit for a hub name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsedistill.errors import ConfigError, TeacherError

_CODE_OR_NOTES = {".py", ".pyc", ".md", ".lock"}


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
        name: A directory with a ``config.json``, or a name on the Hugging Face hub.
        revision: Branch, tag or commit on the hub.

    Raises:
        ConfigError: It is a directory without a model, looks like one that is not there, or the hub
            does not know it or cannot be reached.
    """
    path = Path(name)
    if path.is_dir():
        return Checkpoint(name=str(path), revision=None, digest=_directory_digest(path))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
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
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{relative.as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _on_the_hub(name: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import HfApi, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    if isinstance(cached, str):
        commit = Path(cached).parent.name
        return Checkpoint(name=name, revision=commit, digest=f"hub:{name}@{commit}")
    try:
        found = HfApi().model_info(name, revision=revision, timeout=20).sha
    except Exception as error:
        raise ConfigError(
            f"teacher.checkpoint: there is no directory {name!r}, and the hub could not be asked for "
            f"a model of that name ({type(error).__name__})"
        ) from error
    return Checkpoint(name=name, revision=found, digest=f"hub:{name}@{found}")


def load_classifier(directory: Path | str, *, revision: str | None = None) -> tuple[Any, Any]:
    """Return (tokenizer, model) of a sequence classifier.

    Weights are read from safetensors only and no code of the checkpoint is run.

    Raises:
        TeacherError: transformers cannot read it; the message says what it said.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), revision=revision)
        model = AutoModelForSequenceClassification.from_pretrained(
            str(directory), revision=revision, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise TeacherError(f"the teacher at {directory} cannot be loaded: {error}") from error
    return tokenizer, model


def save_classifier(tokenizer: Any, model: Any, directory: Path) -> None:
    """Write model and tokenizer, without the path that either was read from."""
    model.config._name_or_path = ""
    model.save_pretrained(directory)
    tokenizer.name_or_path = ""
    tokenizer.init_kwargs.pop("name_or_path", None)
    tokenizer.save_pretrained(directory)
