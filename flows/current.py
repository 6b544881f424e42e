"""Which model of a run's name is the current one: a log of decisions, of which the last one counts.

Every decision is a record ``current-<name>`` of the store: a model was promoted, one was kept from
it, or an earlier one was taken back. Records are only added, each by one writer, so the current
model changes at one moment for everybody, and any change can be undone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from dashboards.format import clean
from flows.finished import finished_runs
from sparsedistill.errors import DataError
from tasks import report_file as reports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from storage import JSON, Artifact, ArtifactStore, Input, Record

Verdict = Literal["promoted", "kept", "rolled_back"]
PREFIX = "current-"
_ROLES = ("package", "report", "evaluation", "student", "vocabulary", "train")


class DecisionError(DataError):
    """A decision cannot be made as asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a run made, as decisions speak of it.

    Attributes:
        references: ``package``, ``report``, ``evaluation``, ``student`` (as it was distilled),
            ``vocabulary``, and ``train``, whose labels it learned.
        labels: In the student's order.
        width: Of the student's table.
        accuracy: Of the packaged model, by the evaluation.
    """

    references: Mapping[str, Input]
    labels: tuple[str, ...]
    width: int
    accuracy: float

    @property
    def package(self) -> Input:
        """The deployable model."""
        return self.references["package"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision about the models of a name.

    Attributes:
        number: Its place among them, from 1.
        when: ISO 8601, UTC.
        verdict: What was decided of ``model``: kept means that it was not promoted.
        model: What it is about; after ``rolled_back`` the one that is current again.
        why: In words.
        by_hand: Whether a person decided.
        fingerprint: Of all that the model was made of, by part; empty where a person decided.
        compared: What was measured of both models, where there were two: see ``tasks.promotion``.
        to: Number of the decision that ``rolled_back`` returns to.
    """

    number: int
    when: str
    verdict: Verdict
    model: Model
    why: str
    by_hand: bool = False
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    compared: Mapping[str, Any] = field(default_factory=dict)
    to: int | None = None


def history(store: ArtifactStore, name: str) -> list[Decision]:
    """Return all decisions about the models of a run's name, in order.

    Raises:
        StorageError: A record is damaged, or a newer version wrote it.
    """
    return [_decision(record) for record in store.records(f"{PREFIX}{name}")]


def current(decisions: Sequence[Decision]) -> Decision | None:
    """Return the decision that made the current model what it is; None if there is no model."""
    stack = _stack(decisions)
    return stack[-1] if stack else None


def before_current(decisions: Sequence[Decision]) -> Decision | None:
    """Return the decision that a roll-back returns to; None if there was no model before."""
    stack = _stack(decisions)
    return stack[-2] if len(stack) > 1 else None


def decide(
    store: ArtifactStore,
    name: str,
    verdict: Verdict,
    model: Model,
    *,
    after: int,
    why: str,
    by_hand: bool = False,
    fingerprint: Mapping[str, str] | None = None,
    compared: Mapping[str, Any] | None = None,
    to: int | None = None,
) -> Decision | None:
    """Write a decision down; None if somebody decided meanwhile.

    Args:
        store: That has the models.
        name: Of the run.
        verdict: See ``Decision``, as the following.
        model: What it is about.
        after: Number of the last decision known; 0 for none.
        why: In words.
        by_hand: Whether a person decided.
        fingerprint: Of all that the model was made of.
        compared: What was measured.
        to: Where a roll-back goes.
    """
    content: dict[str, Any] = {
        "verdict": verdict,
        "references": {role: asdict(one) for role, one in model.references.items()},
        "labels": list(model.labels),
        "width": model.width,
        "accuracy": model.accuracy,
        "why": why,
        "by_hand": by_hand,
        "fingerprint": dict(fingerprint or {}),
        "compared": dict(compared or {}),
        "to": to,
    }
    record = store.add_record(f"{PREFIX}{name}", cast("dict[str, JSON]", content), after=after)
    return None if record is None else _decision(record)


def promote(store: ArtifactStore, name: str, *, report: str | None = None) -> Decision:
    """Make a model the current one by hand.

    Args:
        store: That has it.
        name: Of the run.
        report: Key (or its beginning) of the report of the run that made it; of the run of that
            name that ended last where not given.

    Raises:
        DecisionError: There is no such report, it is the current model already, or somebody else
            decided meanwhile.
        StorageError: The model is no longer in the store, or damaged.
    """
    decisions = history(store, name)
    model = model_of(_report(store, name, report), store)
    there = current(decisions)
    if there is not None and there.model.package == model.package:
        raise DecisionError(f"package/{model.package.key} is the current model of {name} already")
    return _by_hand(store, name, "promoted", model, decisions, why="promoted by hand")


def rollback(store: ArtifactStore, name: str, *, to: int | None = None) -> Decision:
    """Make an earlier model the current one again.

    Args:
        store: That has it.
        name: Of the run.
        to: Number of the decision that promoted it; the model before the current one where not
            given.

    Raises:
        DecisionError: There is no such model, or somebody else decided meanwhile.
        StorageError: The model is no longer in the store, or damaged.
    """
    decisions = history(store, name)
    there = current(decisions)
    if there is None:
        raise DecisionError(f"{name} has no current model: run `sparsedistill redistill` first")
    if to is None:
        target = before_current(decisions)
        if target is None:
            raise DecisionError(
                f"there is no model of {name} before the current one; `sparsedistill current "
                f"{name}` lists all decisions, and `--to NUMBER` goes to the model of one"
            )
    else:
        found = [one for one in decisions if one.number == to and one.verdict == "promoted"]
        if not found:
            numbers = [one.number for one in decisions if one.verdict == "promoted"]
            raise DecisionError(f"decision {to} promoted no model of {name}; these did: {numbers}")
        (target,) = found
        if target.number == there.number:
            raise DecisionError(f"the model of decision {to} is the current one already")
    why = f"back from the model of decision {there.number} to that of {target.number}"
    return _by_hand(store, name, "rolled_back", target.model, decisions, why=why, to=target.number)


def model_of(report: Artifact, store: ArtifactStore) -> Model:
    """Return the model that a run made, from the run's report.

    Raises:
        DecisionError: What it was made from is no longer in the store.
    """
    made = report.manifest.inputs
    (package,), (evaluation,), (vocabulary,) = (
        made[role] for role in ("package", "evaluation", "vocabulary")
    )
    (finetuned,) = store.get(package.kind, package.key).manifest.inputs["student"]
    tuned = store.get(finetuned.kind, finetuned.key).manifest.inputs
    (student,), (train,) = tuned["student"], tuned["train"]
    settings: Mapping[str, Any] = store.get(student.kind, student.key).manifest.config
    summary = report.read_json(reports.SUMMARY_FILE)
    references = (package, report.as_input(), evaluation, student, vocabulary, train)
    return Model(
        references=dict(zip(_ROLES, references, strict=True)),
        labels=tuple(str(label) for label in summary["labels"]),
        width=int(settings["width"]),
        accuracy=float(summary["headline"]["accuracy"]),
    )


def check_whole(model: Model, store: ArtifactStore) -> None:
    """Raise StorageError unless a model can be delivered."""
    for role in ("package", "report"):
        reference = model.references[role]
        store.get(reference.kind, reference.key).directory()


def _stack(decisions: Sequence[Decision]) -> list[Decision]:
    """Return the promotions that led to the current model, the last one of which made it."""
    stack: list[Decision] = []
    promoted = {one.number: one for one in decisions if one.verdict == "promoted"}
    for one in decisions:
        if one.verdict == "promoted":
            stack.append(one)
        elif one.verdict == "rolled_back" and one.to in promoted:
            target = promoted[one.to]
            stack = [*stack[: stack.index(target)], target] if target in stack else [*stack, target]
    return stack


def _by_hand(
    store: ArtifactStore,
    name: str,
    verdict: Verdict,
    model: Model,
    decisions: Sequence[Decision],
    *,
    why: str,
    to: int | None = None,
) -> Decision:
    last = decisions[-1].number if decisions else 0
    check_whole(model, store)  # without a claim, which an error would leave behind
    with store.lease(f"decision-{name}") as lease:
        lease.use([(one.kind, one.key) for one in model.references.values()])
        # Again, for a collection may have gone by; from now on none takes the model away.
        check_whole(model, store)
        decided = decide(store, name, verdict, model, after=last, why=why, by_hand=True, to=to)
    if decided is None:
        raise DecisionError(
            f"somebody else decided about {name} at the same moment: look with "
            f"`sparsedistill current {name}`, then try again"
        )
    return decided


def _report(store: ArtifactStore, name: str, key: str | None) -> Artifact:
    if key is not None:
        report = store.get(reports.KIND, key)
        if report.manifest.config["name"] != name:
            raise DecisionError(
                f"report/{report.key} is of {report.manifest.config['name']}, not of {name}"
            )
        return report
    found = finished_runs(store, name, store.artifacts(reports.KIND))
    if not found:
        raise DecisionError(f"no finished run of {name} is in {store.url}")
    return store.get(reports.KIND, found[-1][0].key)


def _decision(record: Record) -> Decision:
    content: Mapping[str, Any] = record.content
    references = record.references()
    try:
        if content["verdict"] not in get_args(Verdict):
            raise ValueError("no such verdict")
        return Decision(
            number=record.number,
            when=clean(record.created),
            verdict=content["verdict"],
            model=Model(
                references={role: references[role] for role in _ROLES},
                labels=tuple(content["labels"]),
                width=int(content["width"]),
                accuracy=float(content["accuracy"]),
            ),
            why=clean(content["why"]),
            by_hand=bool(content["by_hand"]),
            fingerprint=content["fingerprint"],
            compared=content["compared"],
            to=content["to"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DecisionError(f"record {record.number} of {record.name} is no decision") from error
