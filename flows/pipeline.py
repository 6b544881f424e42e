"""The DAG: which stages there are, what each waits for, and how its jobs follow from what is made.

It is data and pure functions. A runner (``flows/prefect_runner.py``, ``flows/inline.py``) makes the
jobs in this order; a plan (``flows/plan.py``) only looks whether their artifacts are there. So what
a plan shows is what a run does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage import ArtifactStore
from tasks import (
    baseline,
    corpus,
    dataset,
    evaluation,
    features,
    finetune,
    logits,
    ngrams,
    package,
    promotion,
    report,
    student,
    teacher,
    vocabulary,
)

if TYPE_CHECKING:
    from flows.config import DistillConfig
    from tasks.earlier import Earlier
    from tasks.shards import TextShard
    from tasks.stage import Job, Made, Stage

Artifacts = Mapping[str, Sequence["Made"]]
"""What has been made so far: by stage, in the order of the stage's jobs."""


@dataclass(frozen=True, slots=True)
class Step:
    """A stage in the DAG.

    Attributes:
        stage: Makes the artifacts.
        needs: Names of the stages that must be done before the jobs are known.
        jobs: From what is made to the jobs of this stage.
        check: Asked by a runner before the step's jobs are made; it raises to end the run. A plan
            does not ask.
    """

    stage: Stage
    needs: tuple[str, ...]
    jobs: Callable[[Artifacts], list[Job]]
    check: Callable[[Artifacts], None] | None = None

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.kind


class Pipeline:
    """The steps of one configuration, in an order in which each comes after what it needs.

    Args:
        config: The whole configuration.
        earlier: The current model of a re-distillation: its student may give the new one a start,
            and one more step compares the two.
    """

    def __init__(self, config: DistillConfig, earlier: Earlier | None = None) -> None:
        self.config = config
        self.earlier = earlier
        taught = () if config.teacher is None else ("teacher",)
        compared = () if earlier is None else ("promotion",)
        texts = ("dataset", "corpus")
        self.steps = (
            Step(dataset.STAGE, (), self._dataset),
            Step(corpus.STAGE, ("dataset",), self._corpus, check=self._check_teacher),
            Step(ngrams.STAGE, texts, self._ngrams),
            Step(vocabulary.STAGE, (*texts, "ngrams"), self._vocabulary),
            Step(features.STAGE, (*texts, "vocabulary"), self._features),
            *((Step(teacher.STAGE, ("dataset",), self._teacher),) if taught else ()),
            Step(logits.STAGE, (*texts, *taught), self._logits),
            Step(baseline.STAGE, ("dataset",), self._baseline),
            Step(
                student.STAGE, (*texts, *taught, "vocabulary", "features", "logits"), self._student
            ),
            Step(finetune.STAGE, ("dataset", "features", "student"), self._finetune),
            Step(package.STAGE, (*texts, "vocabulary", "finetune"), self._package),
            Step(evaluation.STAGE, _BEFORE_EVALUATION + taught, self._evaluation),
            *((Step(promotion.STAGE, ("dataset", "package"), self._promotion),) if earlier else ()),
            Step(
                report.STAGE,
                ("evaluation", *_BEFORE_EVALUATION, *taught, *compared),
                self._report,
            ),
        )

    def direct_needs(self, step: Step) -> list[str]:
        """Return what a step waits for, less what those wait for themselves: the graph's edges."""
        needs = {other.name: other.needs for other in self.steps}

        def behind(name: str) -> set[str]:
            return set(needs[name]).union(*(behind(need) for need in needs[name]))

        indirect = set().union(*(behind(need) for need in step.needs))
        return [need for need in step.needs if need not in indirect]

    def shards(self, made: Artifacts) -> list[TextShard]:
        """Return every shard of texts: the corpus's, then train, dev and test."""
        return [*corpus.shards(made["corpus"][0]), *self._split_shards(made)]

    def _dataset(self, made: Artifacts) -> list[Job]:
        del made
        return dataset.jobs(self.config.dataset, base=self.config.data)

    def _corpus(self, made: Artifacts) -> list[Job]:
        _, dev, test = made["dataset"]
        return corpus.jobs(
            self.config.corpus, self.config.dataset, base=self.config.data, held_out=[dev, test]
        )

    def _ngrams(self, made: Artifacts) -> list[Job]:
        *corpus_shards, train, _, _ = self.shards(made)
        return ngrams.jobs(
            self.config.ngrams,
            corpus_shards,
            train,
            memory=self.config.run.memory_of_a_task(),
            threads=self.config.run.threads,
        )

    def _vocabulary(self, made: Artifacts) -> list[Job]:
        return vocabulary.jobs(
            self.config.vocabulary,
            self.config.ngrams,
            self.shards(made)[:-2],
            made["ngrams"],
            {split: one for split, one in _by_split(made["dataset"]).items() if split != "train"},
            memory=self.config.run.memory_of_the_only_task(),
            threads=self.config.run.threads,
        )

    def _features(self, made: Artifacts) -> list[Job]:
        return features.jobs(
            self.config.features,
            self.shards(made),
            made["vocabulary"][0],
            threads=self.config.run.threads,
        )

    def _teacher(self, made: Artifacts) -> list[Job]:
        assert self.config.teacher is not None  # noqa: S101 - the step exists only then
        train, dev, _ = made["dataset"]
        return teacher.jobs(
            self.config.teacher,
            base=self.config.data,
            train=train,
            dev=dev,
            threads=self.config.run.threads,
            devices=self.config.run.teacher_devices,
        )

    def _check_teacher(self, made: Artifacts) -> None:
        """Refuse a bad teacher before anything long; one that is made already was good."""
        if self.config.teacher is not None:
            jobs = self._teacher(made)
            store = ArtifactStore(self.config.run.store)
            for job, found in zip(jobs, teacher.STAGE.find_all(jobs, store), strict=True):
                if found is None:
                    teacher.preflight(job)

    def _logits(self, made: Artifacts) -> list[Job]:
        if self.config.teacher is None:
            labels = made["dataset"][0].statistics["labels"]
            return logits.given_jobs(
                self.config.logits, self.shards(made), labels, base=self.config.data
            )
        return logits.jobs(
            self.config.logits,
            self.shards(made),
            made["teacher"][0],
            threads=self.config.run.threads,
            devices=self.config.run.teacher_devices,
        )

    def _baseline(self, made: Artifacts) -> list[Job]:
        return baseline.jobs(self.config.baseline, _by_split(made["dataset"]))

    def _student(self, made: Artifacts) -> list[Job]:
        return student.jobs(
            self.config.student,
            vocabulary=made["vocabulary"][0],
            texts=self.shards(made)[:-2],
            features=_by_part(made["features"]),
            logits=_by_part(made["logits"]),
            splits=_by_split(made["dataset"]),
            teacher=made["teacher"][0] if self.config.teacher else None,
            alignment_tolerance=self.config.logits.tolerance(
                self.config.teacher.precision if self.config.teacher else None
            ),
            memory=self.config.run.memory_of_students(),
            device=self.config.run.student_device,
            threads=self.config.run.threads,
            earlier=self.earlier,
        )

    def _finetune(self, made: Artifacts) -> list[Job]:
        return finetune.jobs(
            self.config.finetune,
            [one for one in made["student"] if one.statistics["variant"] == "kd"],
            features=_by_part(made["features"]),
            splits=_by_split(made["dataset"]),
            training=self.config.student.student_training(),
            class_weights=self.config.student.class_weights,
            threads=self.config.run.threads,
        )

    def _package(self, made: Artifacts) -> list[Job]:
        return package.jobs(
            self.config.package,
            students=made["finetune"],
            vocabulary=made["vocabulary"][0],
            splits=_by_split(made["dataset"]),
            corpus=corpus.shards(made["corpus"][0]),
            max_ngrams=self.config.features.max_ngrams,
            threads=self.config.run.threads,
        )

    def _evaluation(self, made: Artifacts) -> list[Job]:
        return evaluation.jobs(
            self.config.evaluation,
            made,
            max_ngrams=self.config.features.max_ngrams,
            threads=self.config.run.threads,
            devices=self.config.run.teacher_devices,
        )

    def _promotion(self, made: Artifacts) -> list[Job]:
        assert self.earlier is not None  # noqa: S101 - the step exists only then
        return promotion.jobs(
            self.config.redistill,
            self.earlier,
            package=made["package"][0],
            splits=_by_split(made["dataset"]),
            threads=self.config.run.threads,
        )

    def _report(self, made: Artifacts) -> list[Job]:
        return report.jobs(self.config.name, made)

    @staticmethod
    def _split_shards(made: Artifacts) -> list[TextShard]:
        from tasks.shards import shard_of

        return [shard_of(name, one) for name, one in _by_split(made["dataset"]).items()]


_BEFORE_EVALUATION = (
    "dataset", "corpus", "ngrams", "vocabulary", "features", "logits", "baseline", "student",
    "finetune", "package",
)  # fmt: skip


def _by_split(made: Sequence[Made]) -> dict[str, Made]:
    return dict(zip(dataset.SPLITS, made, strict=True))


def _by_part(made: Sequence[Made]) -> dict[str, list[Made]]:
    """Return a shard stage's artifacts by what they are of: corpus, train, dev, test."""
    train, dev, test = made[-3:]
    return {"corpus": list(made[:-3]), "train": [train], "dev": [dev], "test": [test]}
