"""``[student]``: what a student is and how it is trained, filled up from a preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from sparsedistill.students import DANShape, StudentTraining
from sparsedistill.training.recipe import Decay, TrainingRecipe
from sparsedistill.training.table import SecondMoment, TableType
from tasks.presets import PRESETS, PresetName
from tasks.rivals import RivalConfig
from tasks.stage import Table

Variant = Literal["kd", "kd_private", "scratch"]


Beta = Annotated[float, Field(ge=0, lt=1)]


class StudentConfig(Table):
    """``[student]``: size and training of the student; ``preset`` gives what is not set here."""

    preset: PresetName = "default"
    seeds: tuple[NonNegativeInt, ...] = Field(
        (0,), min_length=1, description="one student each; the best on dev is packaged"
    )
    width: int = Field(ge=1, description="of the embeddings (d_e)")
    hidden: int = Field(ge=1, description="of the hidden layer (d_h), and of the packaged table")
    activation: Literal["relu", "tanh"]
    table_type: TableType = Field("float32", description="bfloat16 takes half the room")
    init_scale: float = Field(gt=0, description="standard deviation of the embeddings' start")
    start: Literal["random", "teacher"] = Field(
        "random", description="of the embeddings: teacher is the mean of its own, by n-gram"
    )
    objective: Literal["soft", "logits"]
    temperature: float = Field(gt=0)
    epochs: int | None = Field(ge=1)
    updates: int | None = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup: float = Field(ge=0, lt=1)
    decay: Decay
    evaluate_every: int | None = Field(ge=1, description="updates; every epoch where not given")
    feature_dropout: float = Field(ge=0, lt=1)
    dropout: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0, description="of the dense layers")
    table_decay: float = Field(0.0, ge=0, description="of the rows that a batch touches")
    clip: float | None = Field(None, gt=0, description="greatest length of a gradient")
    second_moment: SecondMoment = Field("element", description="row saves a third of the memory")
    betas: tuple[Beta, Beta]
    epsilon: float = Field(gt=0)
    baselines: tuple[Literal["scratch", "kd_private"], ...] = Field(
        ("scratch", "kd_private"), description="students trained only to be compared with"
    )
    rivals: tuple[RivalConfig, ...] = Field(
        (), description="of other architectures over subwords, to be compared with too"
    )
    scratch_epochs: int = Field(ge=1, description="of the baseline that sees no teacher")
    scratch_batch_size: int = Field(ge=1)
    patience: int | None = Field(
        None, ge=1, description="looks at dev without a better one before training ends early"
    )
    label_share: float = Field(
        0.0, ge=0, lt=1, description="of the loss of train's texts, for their labels"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="of what labels ask for, in scratch, label_share and fine-tuning"
    )

    least_margin: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="between the teacher's two best probabilities, of corpus rows learned from",
    )
    balance: Literal["none", "even", "train"] = Field(
        "none", description="most corpus rows of a predicted class: its share of all, or of train"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:  # noqa: ANN401 - as pydantic has it
        if not isinstance(given, Mapping):
            return given
        name = given.get("preset", "default")
        preset = dict(next((p for n, p in PRESETS.items() if n == name), PRESETS["default"]))
        if given.get("updates") is not None and "epochs" not in given:
            preset["epochs"] = None
        if given.get("epochs") is not None and "updates" not in given:
            preset["updates"] = None
        return {**preset, **given}

    @field_validator("rivals")
    @classmethod
    def _one_of_each(cls, rivals: tuple[RivalConfig, ...]) -> tuple[RivalConfig, ...]:
        names = [rival.architecture for rival in rivals]
        if len(set(names)) < len(names):
            raise ValueError("give one of each architecture; other sizes are for another run")
        return rivals

    @model_validator(mode="after")
    def _one_length(self) -> StudentConfig:
        if (self.epochs is None) == (self.updates is None):
            raise ValueError("give either epochs or updates")
        return self

    def training(self, variant: Variant) -> TrainingRecipe:
        """Return the schedule of a variant."""
        scratch = variant == "scratch"
        return TrainingRecipe(
            batch_size=self.scratch_batch_size if scratch else self.batch_size,
            learning_rate=self.learning_rate,
            epochs=self.scratch_epochs if scratch else self.epochs,
            updates=None if scratch else self.updates,
            warmup=self.warmup,
            decay=self.decay,
            evaluate_every=None if scratch else self.evaluate_every,
            patience=self.patience,
        )

    def shape(self, *, rows: int, classes: int) -> DANShape:
        """Return the student's sizes for a vocabulary and a number of labels."""
        return DANShape(
            rows=rows,
            width=self.width,
            hidden=self.hidden,
            classes=classes,
            activation=self.activation,
            init_scale=self.init_scale,
            table_type=self.table_type,
        )

    def student_training(self) -> StudentTraining:
        """Return the dropout, decay and Adam's constants."""
        return StudentTraining(
            feature_dropout=self.feature_dropout,
            dropout=self.dropout,
            weight_decay=self.weight_decay,
            table_decay=self.table_decay,
            clip=self.clip,
            second_moment=self.second_moment,
            betas=self.betas,
            epsilon=self.epsilon,
        )
