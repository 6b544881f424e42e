"""Distilling again when something has changed, and making the new model the current one if it may.

What a model is made of has a fingerprint: the labelled rows, the corpus's files by size and time
(or the server's tag), the teacher's checkpoint, every setting that decides the model, the versions
of the stages. It is remembered with each decision, so that a look at an unchanged corpus takes
seconds and reads none of it, and a model that was not good enough is not made again every hour.

The current model moves once, by a record, after all else is done. A run that is killed before that
finds the same current model the next time, so it wants the same artifacts and goes on. After it,
the next run finds nothing changed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from flows.current import Decision, DecisionError, current, decide, history, model_of
from flows.pipeline import Pipeline
from flows.places import deliver_current
from flows.plan import Planned
from sparsedistill.text.buffers import TextBuffer
from sparsedistill.text.identity import text_ids
from storage import ArtifactStore, Input, StorageError, StoreUnreachableError, sha256_json
from tasks import corpus, dataset, logits, teacher
from tasks.earlier import Earlier, Origin, origin_of
from tasks.promotion import read_promotion
from tasks.shards import read_shard, shard_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from flows.config import DistillConfig
    from flows.current import Model
    from flows.delivery import RunResult
    from tasks.shards import Texts
    from tasks.stage import Job

Outcome = Literal["unchanged", "promoted", "kept", "overtaken"]
Run: TypeAlias = "Callable[[DistillConfig, Earlier | None], RunResult]"
"""Makes a run, inline or with Prefect, and puts its results into `places.candidate`."""

_LOG = logging.getLogger(__name__)
# What is in no setting: it is in other parts of the fingerprint, or decides no model.
_NO_SETTINGS: dict[str, Any] = {
    "name": True,
    "data": True,
    "run": True,
    "evaluation": True,
    "report": True,
    "baseline": True,
    "dataset": {"train", "dev", "test"},
    "corpus": {"sources", "expected_rows"},
    "teacher": {"checkpoint", "revision"},
    "logits": {"path", "alignment_tolerance"},
    "student": {"baselines", "rivals", "scratch_epochs", "scratch_batch_size"},
}


@dataclass(frozen=True, slots=True)
class Look:
    """What a model would be made of now, and what was decided before.

    Attributes:
        fingerprint: By part: dataset, corpus, teacher or logits, settings, software.
        decisions: About the models of the run's name, in order.
    """

    fingerprint: Mapping[str, str]
    decisions: Sequence[Decision]

    @property
    def last(self) -> int:
        """Number of the last decision; 0 for none."""
        return self.decisions[-1].number if self.decisions else 0

    @property
    def current(self) -> Decision | None:
        """The decision that made the current model what it is."""
        return current(self.decisions)

    @property
    def changed(self) -> bool:
        """Whether it was neither tried last, nor is what the current model was made of."""
        there = self.current
        return there is None or self.fingerprint not in (self._tried(), there.fingerprint)

    @property
    def changes(self) -> tuple[str, ...]:
        """Which parts differ from what was tried last."""
        tried = self._tried()
        return tuple(part for part, value in self.fingerprint.items() if tried.get(part) != value)

    def _tried(self) -> Mapping[str, str]:
        tried = [one.fingerprint for one in self.decisions if one.fingerprint]
        return tried[-1] if tried else {}


@dataclass(frozen=True, slots=True)
class Redistilled:
    """What became of a re-distillation.

    Attributes:
        outcome: ``unchanged``: nothing was to be done. ``promoted``, ``kept``: the new model is, or
            is not, the current one. ``overtaken``: somebody else decided meanwhile, so that nothing
            was.
        why: In words.
        look: What was found at the beginning.
        decision: That was made; None where none was.
        result: Of the run; None where there was none.
    """

    outcome: Outcome
    why: str
    look: Look
    decision: Decision | None = None
    result: RunResult | None = None


def look(config: DistillConfig) -> Look:
    """Look whether there is anything to distil; seconds, and no row of the corpus is read.

    Raises:
        SourceError: A source matches nothing.
        DataError: The labelled rows are no task.
        ConfigError: There is no such checkpoint.
    """
    decisions = history(ArtifactStore(config.run.store), config.name)
    return Look(_fingerprint(config), decisions)


def redistill(
    config: DistillConfig, *, out: str | Path, run: Run, force: bool = False
) -> Redistilled:
    """Distil again if something has changed, compare, and promote the new model if it may be.

    Args:
        config: The whole configuration.
        out: The current model, and the report of the run that made it, are delivered there.
        run: Makes a run, and delivers it to `places.candidate`.
        force: Run although nothing has changed; what is made already is still reused.

    Raises:
        DecisionError: The current model is not in the store, so that nothing can be compared.
    """
    store = ArtifactStore(config.run.store)
    seen = look(config)
    if not seen.changed and not force:
        return _left_alone(config, seen, out)
    there = seen.current
    earlier = None if there is None else earlier_of(there.model, config, store)
    result = run(config, earlier)
    model = model_of(result.artifacts["report"][0], store)
    promote, why, compared = _verdict(model, there, result)
    decision = decide(
        store,
        config.name,
        "promoted" if promote else "kept",
        model,
        after=seen.last,
        why=why,
        fingerprint=seen.fingerprint,
        compared=compared,
    )
    outcome: Outcome = "promoted" if promote else "kept"
    if decision is None:
        return _overtaken(config, seen, model, result, store, out)
    if promote:
        deliver_current(store, config.name, out)
    return Redistilled(outcome, why, seen, decision, result)


def left_alone(config: DistillConfig, *, out: str | Path) -> Redistilled | None:
    """Return what `redistill` would where nothing has changed; None where something has.

    Raises:
        What `look` does.
    """
    seen = look(config)
    return None if seen.changed else _left_alone(config, seen, out)


def earlier_of(model: Model, config: DistillConfig, store: ArtifactStore) -> Earlier:
    """Return the current model as a run needs it.

    Raises:
        DecisionError: It is no longer in the store, or damaged.
    """
    references = model.references
    package, student = references["package"], references["student"]
    try:
        store.get(package.kind, package.key).directory()
        seen = _learned_from(read_shard(store, references["train"]), config)
    except StoreUnreachableError:  # that is no fault of the model
        raise
    except StorageError as error:
        raise DecisionError(
            f"the current model of {config.name} cannot be compared with: {error}\n"
            "`sparsedistill rollback` goes back to the model before it. Or `sparsedistill distill` "
            "makes a model without it, and then `sparsedistill promote` makes that the current one "
            "(unless it came out the same: then it is mended)"
        ) from error
    origin = None
    if config.redistill.start == "current":
        why = (
            f"that one learned from {seen} of the texts that are in dev or test now (a dev that is "
            "put aside from a train that has grown is another one each time: give it a file of its "
            "own)"
        )
        if not seen:
            origin, why = _origin(model, store)
        if origin is None:
            _LOG.warning(
                "the student does not start from the earlier student/%s: %s", student.key, why
            )
    return Earlier(
        package=package,
        student=student,
        vocabulary=references["vocabulary"],
        train=references["train"],
        labels=model.labels,
        width=model.width,
        origin=origin,
        epochs=config.redistill.epochs,
    )


def _origin(model: Model, store: ArtifactStore) -> tuple[Origin | None, str]:
    """Return what the student of a model was made of, or why none can start from it.

    Its files are opened now: what is damaged would otherwise end a run that needs none of it.
    """
    try:
        student, vocabulary = (
            store.get(one.kind, one.key)
            for one in (model.references["student"], model.references["vocabulary"])
        )
        for artifact in (student, vocabulary):
            artifact.directory()
    except StoreUnreachableError:
        raise
    except StorageError as error:
        return None, str(error)
    return origin_of(student.manifest.recipe), ""


def _learned_from(train: Texts, config: DistillConfig) -> int:
    """Return how many texts of ``dev`` and ``test`` an earlier ``train`` had, and this one not."""
    splits = dataset.read_splits(config.dataset, base=config.data)
    measured = {text for name in ("dev", "test") for text in splits[name].texts}
    ids = text_ids(TextBuffer.from_strings(list(measured.difference(splits["train"].texts))))
    return int(np.isin(ids, train.ids).sum())


def _verdict(
    model: Model, there: Decision | None, result: RunResult
) -> tuple[bool, str, Mapping[str, Any]]:
    """Return whether the new model is promoted, why, and what was measured."""
    if there is None:
        return True, "the first model", {}
    document = read_promotion(result.artifacts["promotion"][0])
    compared = {key: document[key] for key in ("margin", "splits")}
    if model.package == there.model.package:
        return False, "the same model came out of it", compared
    return bool(document["promote"]), str(document["why"]), compared


def _overtaken(
    config: DistillConfig,
    seen: Look,
    model: Model,
    result: RunResult,
    store: ArtifactStore,
    out: str | Path,
) -> Redistilled:
    """Somebody decided while this run was at work: the same, or something else."""
    decisions = history(store, config.name)
    since = [one for one in decisions if one.number > seen.last]
    same = [one for one in since if one.model.package == model.package and one.fingerprint]
    deliver_current(store, config.name, out)
    if same:
        decision = same[-1]
        outcome: Outcome = "promoted" if decision.verdict == "promoted" else "kept"
        why = f"another run decided the same at the same time: {decision.why}"
        return Redistilled(outcome, why, seen, decision, result)
    told = "; ".join(f"{one.verdict.replace('_', ' ')}: {one.why}" for one in since)
    why = (
        f"somebody else decided meanwhile ({told}), so the new model was compared with one that is "
        "no longer the current one; the next run compares it again"
    )
    return Redistilled("overtaken", why, seen, None, result)


def _left_alone(config: DistillConfig, seen: Look, out: str | Path) -> Redistilled:
    there = seen.current
    assert there is not None  # noqa: S101 - without a current model, there is something to do
    # Also what a kill prevented.
    deliver_current(ArtifactStore(config.run.store), config.name, out)
    tried = [one for one in seen.decisions if one.fingerprint]
    last = tried[-1] if tried else there
    if last.number > there.number and seen.fingerprint != there.fingerprint:
        fate = f"was kept: {last.why}" if last.verdict == "kept" else "was rolled back"
        why = f"nothing has changed since the last model was made, {last.when}, which {fate}"
    else:
        why = f"nothing has changed since the current model was made, {there.when}"
    return Redistilled("unchanged", why, seen)


def _fingerprint(config: DistillConfig) -> dict[str, str]:
    splits = {job.label: job for job in dataset.jobs(config.dataset, base=config.data)}
    planned = {name: _planned(job) for name, job in splits.items()}
    train, dev, test = (planned[name] for name in dataset.SPLITS)
    (texts,) = corpus.jobs(config.corpus, config.dataset, base=config.data, held_out=[dev, test])
    found = {
        "dataset": sha256_json([one.reference.digest for one in planned.values()]),
        "corpus": texts.recipe.key,
    }
    if config.teacher is not None:
        (taught,) = teacher.jobs(
            config.teacher,
            base=config.data,
            train=train,
            dev=dev,
            threads=config.run.threads,
            devices=config.run.teacher_devices,
        )
        found["teacher"] = taught.recipe.key
    else:
        (given,) = logits.given_jobs(
            config.logits,
            [shard_of("dev", dev)],
            train.statistics["labels"],
            base=config.data,
        )
        found["logits"] = given.recipe.key
    found["settings"] = sha256_json(config.model_dump(mode="json", exclude=_NO_SETTINGS))
    found["software"] = sha256_json(
        {
            step.name: step.stage.version
            for step in Pipeline(config).steps
            if step.name not in _NO_SETTINGS
        }
    )
    return found


def _planned(job: Job) -> Planned:
    recipe = job.recipe
    assert recipe.content is not None  # noqa: S101 - a split is named by its content
    return Planned(Input(recipe.kind, recipe.key, recipe.content), job.preview or {})
