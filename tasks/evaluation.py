"""What every model of a run is worth: accuracy, agreement with the teacher, speed, size, mistakes.

Students are measured as they would be deployed, text in and label out, on the same cores as the
teacher. Where there are several seeds, figures are means over them.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file

from sparsedistill.classifier import Classifier
from sparsedistill.compression.folding import fold
from sparsedistill.compression.sizes import model_bytes
from sparsedistill.errors import DataError
from sparsedistill.students.tokens import token_ids
from sparsedistill.teacher.checkpoint import load_tokenizer
from sparsedistill.teacher.devices import device_in_turn, teacher_devices
from storage import ArtifactStore, ArtifactWriter, Recipe
from tasks import baseline, student_file
from tasks.comparison import (
    ModelScore,
    calibration_of,
    confusion_of,
    disagreements_of,
    score,
    speed_of,
)
from tasks.environment import environment
from tasks.features import read_features
from tasks.logit_file import aligned_logits
from tasks.shards import Texts, open_input, read_shard
from tasks.stage import Job, Made, Progress, Stage, Table, single_input
from tasks.student_file import read_rival, read_shape, read_student, read_weights
from tasks.teacher import MODEL_DIRECTORY, READING
from tasks.teacher_trust import teacher_calibration
from tasks.vocabulary import read_vocabulary
from tasks.work import waiting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from sparsedistill.bags import Bags
    from sparsedistill.students import Student
    from storage import Artifact, Input

KIND, VERSION = "evaluation", 6
FILE = "evaluation.json"
TITLES = {
    "tfidf_lr": "TF-IDF + LR",
    "dan_scratch": "DAN scratch",
    "dan_kd_private": "DAN (KD), corpus only",
    "dan_kd": "DAN (KD)",
    "dan_kd_ft": "DAN (KD+FT)",
    "bilstm_kd": "BiLSTM (KD)",
    "cnn_kd": "CNN (KD)",
    "teacher": "teacher",
}
_DAN_OF = {"scratch": "dan_scratch", "kd_private": "dan_kd_private", "kd": "dan_kd"}
_RIVAL_OF = {"kd_bilstm": "bilstm_kd", "kd_cnn": "cnn_kd"}
MODEL_OF = {**_DAN_OF, **_RIVAL_OF}


class EvaluationConfig(Table):
    """``[evaluation]``: what is measured, and on how much."""

    teacher_texts: int = Field(
        256, ge=1, description="texts that the speed of the teacher and of rivals is taken on"
    )
    examples: int = Field(12, ge=0, description="texts shown where student and teacher differ")


def jobs(
    config: EvaluationConfig,
    made: Mapping[str, Sequence[Made]],
    *,
    max_ngrams: int,
    threads: int,
    devices: Sequence[str] | None = None,
) -> list[Job]:
    """Return the one job of the evaluation.

    Args:
        config: The table ``[evaluation]``.
        made: All artifacts so far, by stage.
        max_ngrams: As the features were made.
        threads: That the models are timed with.
        devices: That the teacher may be timed on; None takes every GPU there is, or else the CPU.
    """
    _, dev, test = made["dataset"]
    inputs = {
        "dev": (dev.as_input(),),
        "dev_logits": (made["logits"][-2].as_input(),),
        "test": (test.as_input(),),
        "test_features": (made["features"][-1].as_input(),),
        "test_logits": (made["logits"][-1].as_input(),),
        "vocabulary": (made["vocabulary"][0].as_input(),),
        "student": tuple(one.as_input() for one in made["student"]),
        "finetune": tuple(one.as_input() for one in made["finetune"]),
        "package": (made["package"][0].as_input(),),
        "baseline": tuple(one.as_input() for one in made["baseline"]),
        "teacher": tuple(one.as_input() for one in made.get("teacher", ())),
    }
    settings = {**config.model_dump(mode="json"), "max_ngrams": max_ngrams}
    runtime = {"threads": threads, "devices": None if devices is None else list(devices)}
    return [Job(Recipe(KIND, VERSION, settings, inputs), runtime=runtime)]


def build(job: Job, store: ArtifactStore, writer: ArtifactWriter, progress: Progress) -> None:
    """Measure everything and write it as one JSON document."""
    evaluation = _Evaluation(job, store)
    scores = evaluation.scores(progress)
    document = {
        "environment": environment(job.runtime["threads"]),
        "results": [one.to_json() for one in scores],
        **evaluation.details(),
    }
    writer.path(FILE).write_text(json.dumps(document, ensure_ascii=False, indent=1), "utf-8")
    writer.statistics["results"] = document["results"]


STAGE = Stage(KIND, VERSION, build)


class _Evaluation:
    """The models of one run and the rows they are measured on."""

    def __init__(self, job: Job, store: ArtifactStore) -> None:
        self._job = job
        self._store = store
        self._threads: int = job.runtime["threads"]
        self._settings = dict(job.recipe.config)
        self._test: Texts = read_shard(store, self._input("test"))
        if self._test.labels is None:
            raise DataError("test has no labels")
        self._truth = self._test.labels
        self._texts = list(self._test.texts)
        self._vocabulary = read_vocabulary(self._open("vocabulary"))
        _, self._bags = read_features(self._open("test_features"))
        self._teacher_logits = aligned_logits(self._open("test_logits"), self._test)
        self._classifier = Classifier.load(self._open("package").directory(), threads=self._threads)

    def scores(self, progress: Progress) -> list[ModelScore]:
        """Return one score a model, the baselines first and the teacher last."""
        students = self._students()
        found = [self._score_baseline(one) for one in self._all("baseline")]
        for number, (model, artifacts) in enumerate(students.items()):
            over_tokens = model in _RIVAL_OF.values()
            score_of = self._score_rival if over_tokens else self._score_student
            found.append(score_of(model, artifacts))
            progress(0.6 * (number + 1) / len(students))
        if np.isfinite(self._teacher_logits).all():
            found.append(self._score_teacher())
        return found

    def details(self) -> dict[str, Any]:
        """Return what the report shows beside the table of results."""
        probabilities = self._classifier.predict_proba(self._texts)
        own = probabilities.argmax(axis=1)
        models = {"dan_kd_ft": own}
        details: dict[str, Any] = {
            "calibration": calibration_of(self._classifier, self._texts, self._truth),
            "teacher_calibration": teacher_calibration(self._labelled_by_the_teacher()),
        }
        if np.isfinite(self._teacher_logits).all():
            models["teacher"] = self._teacher_logits.argmax(axis=1)
            details["disagreements"] = disagreements_of(
                self._classifier,
                self._texts,
                truth=self._truth,
                teacher_logits=self._teacher_logits,
                examples=int(self._settings["examples"]),  # type: ignore[arg-type]
            )
        details["confusion"] = confusion_of(self._truth, models, self._classifier.classes_)
        return details

    def _labelled_by_the_teacher(
        self,
    ) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Return labels and logits of ``dev``, and of ``test`` where that is another."""
        dev = read_shard(self._store, self._input("dev"))
        if dev.labels is None:
            raise DataError("dev has no labels")
        found = {"dev": (dev.labels, aligned_logits(self._open("dev_logits"), dev))}
        if self._input("dev").digest != self._input("test").digest:
            found["test"] = (self._truth, self._teacher_logits)
        return found

    def _students(self) -> dict[str, list[Artifact]]:
        """Return the students by model name, the seeds of each together."""
        found: dict[str, list[Artifact]] = {}
        for artifact in self._all("student"):
            found.setdefault(MODEL_OF[str(artifact.statistics["variant"])], []).append(artifact)
        found["dan_kd_ft"] = self._all("finetune")
        return found

    def _score_student(self, model: str, artifacts: Sequence[Artifact]) -> ModelScore:
        # One after the other: each may be as large as the memory.
        predicted = [
            read_student(artifact.path(student_file.FILE), threads=self._threads)
            .predict(self._bags)
            .argmax(axis=1)
            for artifact in artifacts
        ]
        first = artifacts[0].path(student_file.FILE)
        shape = read_shape(first)
        folded = fold(
            read_weights(first),
            self._vocabulary,
            labels=self._test.label_names,
            activation=shape.activation,
            pooling=shape.pooling,
            max_ngrams=int(self._settings["max_ngrams"]),  # type: ignore[arg-type]
        )
        size = model_bytes(folded, self._vocabulary)
        deployed = Classifier.from_folded(folded, threads=self._threads)
        if model == "dan_kd_ft":
            deployed, package = self._classifier, self._open("package")
            size = package.manifest.size
            if len(package.statistics["steps"]) > 1:  # type: ignore[arg-type]
                # Pruned or quantised: its own answers, not those of what it was made from.
                predicted = [deployed.predict_proba(self._texts).argmax(axis=1)]
        return self._score(model, predicted, speed_of(deployed.predict, self._texts), size)

    def _score_rival(self, model: str, artifacts: Sequence[Artifact]) -> ModelScore:
        (teacher,) = self._all("teacher")
        tokenizer = load_tokenizer(teacher.directory() / MODEL_DIRECTORY)
        longest: Any = artifacts[0].manifest.config["max_length"]
        students = [
            read_rival(artifact.path(student_file.FILE), threads=self._threads)
            for artifact in artifacts
        ]

        def answer(student: Student[Bags, Any], texts: list[str]) -> npt.NDArray[np.int64]:
            tokens = token_ids(texts, tokenizer, max_length=longest)
            labels: npt.NDArray[np.int64] = student.predict(tokens).argmax(axis=1)
            return labels

        predicted = [answer(student, self._texts) for student in students]
        speed = speed_of(partial(answer, students[0]), self._some_texts(), passes=2)
        return self._score(model, predicted, speed, artifacts[0].entry(student_file.FILE).bytes)

    def _score_baseline(self, artifact: Artifact) -> ModelScore:
        predicted = load_file(artifact.path(baseline.FILE))["test"]
        statistics: Mapping[str, Any] = artifact.statistics
        return self._score(
            "tfidf_lr", [predicted], statistics["texts_per_second"], statistics["bytes"]
        )

    def _score_teacher(self) -> ModelScore:
        speed = size = None
        for artifact in self._all("teacher"):
            speed, size = self._teacher_speed(artifact), artifact.manifest.size
        return self._score("teacher", [self._teacher_logits.argmax(axis=1)], speed, size)

    def _teacher_speed(self, artifact: Artifact) -> float:
        """Return texts a second on a device that no other job has meanwhile."""
        from sparsedistill.teacher.labelling import LabellingOptions, Teacher

        statistics: Mapping[str, Any] = artifact.statistics
        devices = teacher_devices(self._job.runtime["devices"])
        with waiting("device", device_in_turn(devices)) as device:
            teacher = Teacher(
                artifact.directory() / MODEL_DIRECTORY,
                labels=self._test.label_names,
                options=LabellingOptions(
                    **{name: statistics[name] for name in READING},
                    threads=self._threads,
                    device=device,
                ),
            )
            return speed_of(teacher.logits, self._some_texts(), passes=2)

    def _some_texts(self) -> list[str]:
        """Return the texts that slow models are timed on, evenly from all."""
        wanted = int(self._settings["teacher_texts"])  # type: ignore[arg-type]
        step = max(1, len(self._texts) // wanted)
        return self._texts[::step][:wanted]

    def _score(
        self,
        model: str,
        predicted: Sequence[npt.NDArray[np.int64]],
        texts_per_second: float | None,
        size: int | None,
    ) -> ModelScore:
        return score(
            model,
            TITLES[model],
            predicted,
            truth=self._truth,
            teacher_logits=self._teacher_logits,
            texts_per_second=texts_per_second,
            size=size,
        )

    def _input(self, role: str) -> Input:
        return single_input(self._job.recipe, role)

    def _open(self, role: str) -> Artifact:
        return open_input(self._store, self._input(role))

    def _all(self, role: str) -> list[Artifact]:
        return [open_input(self._store, one) for one in self._job.recipe.inputs[role]]
