"""The one configuration of a run: a TOML file, one table a stage, every key checked.

A key that does not exist is an error that names the nearest one that does; so is a value that
cannot work. Each stage owns its table (``tasks/<stage>.py``); here they are put together and read.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from sparsedistill.building import least_to_choose
from sparsedistill.errors import ConfigError
from sparsedistill.memory import format_size, machine_memory, parse_size
from tasks.baseline import BaselineConfig
from tasks.corpus import CorpusConfig
from tasks.dataset import DatasetConfig
from tasks.evaluation import EvaluationConfig
from tasks.features import FeaturesConfig
from tasks.finetune import FinetuneConfig
from tasks.logits import LogitsConfig
from tasks.ngrams import NgramsConfig
from tasks.ngrams import least_memory as least_ngrams_memory
from tasks.package import PackageConfig
from tasks.promotion import RedistillConfig
from tasks.stage import Table
from tasks.student_config import StudentConfig
from tasks.teacher import TeacherConfig
from tasks.vocabulary import VocabularyConfig

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class RunConfig(Table):
    """``[run]``: where and with what a run works; on one kind of device, not what comes out."""

    store: str = Field(".sparsedistill/store", description="directory or URL of the artifact store")
    threads: int = Field(default_factory=_cores, ge=1, description="of one task")
    workers: int = Field(1, ge=1, description="tasks at a time")
    memory: str | int = Field(
        "2GB", description="for the arrays of counting n-grams, all tasks of a machine together"
    )
    student_memory: str | int | None = Field(
        None, description="for all students in training; the machine's where not given"
    )
    student_device: str = Field(
        "cpu", description="where DANs are trained, as torch names it: cuda, cuda:1"
    )
    teacher_devices: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="where the teacher runs, a worker each; every GPU where not given, or the CPU",
    )
    runner: Literal["threads", "processes", "dask"] = "threads"
    dask_address: str | None = Field(
        None, description="scheduler to use; otherwise a local cluster"
    )
    check_disk: bool = Field(
        True, description="refuse to begin where the disk cannot hold what is to be made"
    )
    log: str | None = Field(
        None, description="file to which the log of the run is appended, a JSON object a line"
    )

    @field_validator("memory", "student_memory")
    @classmethod
    def _is_size(cls, memory: str | int | None) -> str | int | None:
        if memory is not None:
            parse_size(memory)
        return memory

    def log_file(self) -> str | None:
        """Return the file of the log as an absolute path, since workers may be elsewhere."""
        return None if self.log is None else str(Path(self.log).expanduser().absolute())

    def memory_of_a_task(self) -> int:
        """Return bytes for one of the tasks that run at a time."""
        return parse_size(self.memory) // self.workers

    def memory_of_students(self) -> int:
        """Return bytes for the students that are trained at a time, all together."""
        if self.student_memory is None:
            return machine_memory()
        return parse_size(self.student_memory)

    def memory_of_the_only_task(self) -> int:
        """Return bytes for a task beside which no other counts n-grams."""
        return parse_size(self.memory)


class DistillConfig(Table):
    """A whole run: labelled data, corpus and teacher in, packaged student and report out."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100, description="of the run and its directory"
    )
    data: str | None = Field(None, description="directory or URL that relative paths are under")
    dataset: DatasetConfig
    corpus: CorpusConfig
    teacher: TeacherConfig | None = None
    logits: LogitsConfig = LogitsConfig()
    ngrams: NgramsConfig = NgramsConfig()
    vocabulary: VocabularyConfig = VocabularyConfig()
    features: FeaturesConfig = FeaturesConfig()
    student: StudentConfig = Field(default_factory=lambda: StudentConfig.model_validate({}))
    finetune: FinetuneConfig = FinetuneConfig()
    package: PackageConfig = PackageConfig()
    baseline: BaselineConfig = BaselineConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    redistill: RedistillConfig = RedistillConfig()
    run: RunConfig = Field(default_factory=RunConfig)

    @model_validator(mode="after")
    def _enough_memory(self) -> DistillConfig:
        run, size = self.run, self.vocabulary.size
        counting = run.workers * least_ngrams_memory(run.threads)
        if parse_size(run.memory) < counting:
            raise ValueError(
                f"[run] memory of {run.memory} is too little to count n-grams in {run.workers} "
                f"workers of {run.threads} threads; {format_size(counting)} are the least"
            )
        choosing = least_to_choose(size, run.threads)
        if parse_size(run.memory) < choosing:
            raise ValueError(
                f"[run] memory of {run.memory} is too little to choose {size:,} n-grams; "
                f"{format_size(choosing)} are the least, or set a smaller [vocabulary] size"
            )
        return self

    @model_validator(mode="after")
    def _one_source_of_logits(self) -> DistillConfig:
        if (self.teacher is None) == (self.logits.path is None):
            raise ValueError("give either a [teacher] table or [logits] path, and not both")
        return self

    @model_validator(mode="after")
    def _epochs_of_a_start(self) -> DistillConfig:
        if self.redistill.epochs is not None and self.student.updates is not None:
            raise ValueError(
                "[redistill] epochs stands in place of [student] epochs, and [student] updates is "
                "given: leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _tokens_to_read(self) -> DistillConfig:
        if self.teacher is None and self.student.rivals:
            raise ValueError(
                "[student] rivals read the tokens of a teacher: give a [teacher] table in place of "
                "[logits] path, or leave [[student.rivals]] out"
            )
        return self

    @model_validator(mode="after")
    def _embeddings_to_start_from(self) -> DistillConfig:
        if self.teacher is None and self.student.start == "teacher":
            raise ValueError(
                '[student] start = "teacher" needs a [teacher] table: with [logits] path there are '
                'no embeddings to start from, so set start = "random"'
            )
        return self


def load_config(
    path: str | Path, *, overrides: Sequence[str] = (), data: str | None = None
) -> DistillConfig:
    """Read and check a configuration.

    Args:
        path: TOML file.
        overrides: ``table.key=value`` each, the value in TOML (a bare word is a string).
        data: In place of the file's ``data``.

    Raises:
        ConfigError: The file is missing or no TOML, a key is unknown, or a value cannot work; the
            message names table and key, and for an unknown one the nearest that exists.
    """
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no configuration {path}{_nearby(Path(path))}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    for override in overrides:
        _apply(given, override)
    if data is not None:
        given["data"] = data
    return parse_config(given, name=str(path))


def parse_config(given: Mapping[str, Any], *, name: str = "configuration") -> DistillConfig:
    """Check a configuration that is a mapping already; raises as ``load_config`` does."""
    try:
        return DistillConfig.model_validate(given)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(detail)}" for detail in error.errors())
        raise ConfigError(f"{name}:\n{problems}") from error


def _apply(given: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    path = key.strip().split(".")
    if not sign or not all(path):
        raise ConfigError(f"--set {override!r}: write it as table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table: Any = given
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override!r}: {part} is no table")
    table[path[-1]] = value


def _explain(detail: ErrorDetails) -> str:
    """Return one line for one thing that is wrong."""
    where = [str(part) for part in detail["loc"]]
    if detail["type"] == "extra_forbidden":
        known = _keys_of(where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.4)
        hint = f"; the nearest is {near[0]}" if near else f"; there are {', '.join(known)}"
        return f"{_dotted(where)}: there is no such key{hint}"
    if detail["type"] == "missing":
        return f"{_dotted(where)}: is required"
    message = detail["msg"].removeprefix("Value error, ")
    value = detail["input"]
    said = "" if isinstance(value, Mapping) else f", not {json.dumps(value, default=str)[:80]}"
    return f"{_dotted(where) or 'the whole'}: {message}{said}"


def _dotted(where: Sequence[str]) -> str:
    return ".".join(where)


def _keys_of(where: Sequence[str]) -> list[str]:
    model: type[BaseModel] = DistillConfig
    for part in where:
        if part.isdigit():  # a number in a list of tables
            continue
        found = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [found, *getattr(found, "__args__", ())]
        model = next(
            (m for m in inner if isinstance(m, type) and issubclass(m, BaseModel)), DistillConfig
        )
    return list(model.model_fields)


def _nearby(path: Path) -> str:
    there = sorted(other.name for other in path.parent.glob("*.toml"))
    near = difflib.get_close_matches(path.name, there, n=1, cutoff=0.4)
    return f"; did you mean {path.parent / near[0]}?" if near else ""
