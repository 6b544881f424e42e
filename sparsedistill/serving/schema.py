"""What requests and answers look like; the OpenAPI document is made from these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

if TYPE_CHECKING:
    from typing import Self

    from sparsedistill.serving.settings import Settings

MOST_EXPLAINED_NGRAMS = 100

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class PredictRequest(BaseModel):
    """One text or many, and what to tell of each."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {"text": "a gripping film"},
                {"texts": ["a gripping film", "two hours too long"], "top_k": 2, "coverage": True},
            ]
        },
    )

    text: str | None = Field(default=None, description="One text. Either this or `texts`.")
    texts: list[str] | None = Field(
        default=None, description="Many texts; their answers come in the same order. May be empty."
    )
    top_k: int | None = Field(
        default=None, ge=1, description="List so many of the most probable labels, best first."
    )
    abstain_below: Probability | dict[str, Probability] | Literal["model"] | None = Field(
        default=None,
        description=(
            "Give no label where the most probable one is less probable than this: one number, or "
            'a number for each label (one left out is always given), or "model" for the '
            "thresholds that came with the model (see `GET /v1/model`)."
        ),
    )
    proba: bool = Field(default=False, description="Tell the probability of every label.")
    coverage: bool = Field(
        default=False, description="Tell the share of the text's n-grams that the model knows."
    )
    explain: int = Field(
        default=0,
        ge=0,
        le=MOST_EXPLAINED_NGRAMS,
        description="Tell so many of the n-grams that speak most for or against the label.",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give either text, a string, or texts, a list of strings")
        return self


class LabelProbability(BaseModel):
    """A label and how probable it is."""

    label: str
    probability: Probability


class NgramWeight(BaseModel):
    """An n-gram and what it does for the label."""

    ngram: str
    weight: float = Field(
        description="What it adds to the label's logit, less the mean of what it adds to all "
        "labels' logits. Above 0 speaks for the label."
    )


class Explanation(BaseModel):
    """Why the most probable label is the most probable."""

    label: str = Field(description="The most probable label, given or not.")
    ngrams: list[NgramWeight] = Field(description="The strongest first.")
    omitted: int = Field(description="How many more known n-grams the text has.")


class Prediction(BaseModel):
    """What is said of one text. What was not asked for is not there."""

    label: str | None = Field(description="The most probable label; null where the model abstains.")
    probability: Probability = Field(description="Of the most probable label, given or not.")
    top: list[LabelProbability] = Field(
        default_factory=list, description="With `top_k`: the most probable labels, best first."
    )
    probabilities: dict[str, Probability] = Field(
        default_factory=dict, description="With `proba`: of every label."
    )
    coverage: Probability = Field(
        default=0.0,
        description="With `coverage`: share of the text's n-grams that the model knows; 0 where "
        "the text has none. Trust an answer of low coverage less.",
    )
    explanation: Explanation = Field(
        default_factory=lambda: Explanation(label="", ngrams=[], omitted=0),
        description="With `explain`.",
    )


class OnePrediction(BaseModel):
    """The answer to `text`."""

    model: str = Field(description="The name of the model that answers.")
    prediction: Prediction


class ManyPredictions(BaseModel):
    """The answer to `texts`."""

    model: str = Field(description="The name of the model that answers.")
    predictions: list[Prediction] = Field(description="One for each text, in the same order.")


class ModelInfo(BaseModel):
    """What is known of the model."""

    name: str
    labels: list[str] = Field(description="In the order of the model's classes.")
    rows: int = Field(description="N-grams that the model knows.")
    hidden: int = Field(description="Width of its hidden layer.")
    dtype: str = Field(description="Type of the numbers in its table.")
    table_bytes: int = Field(description="Size of its table.")
    activation: str
    temperature: float = Field(description="Logits are divided by it to give probabilities.")
    max_ngrams: int = Field(description="Known n-grams of a text that count.")
    ngrams: dict[str, Any] = Field(description="Which n-grams of a text are looked up.")
    thresholds: dict[str, float] = Field(
        description="Below which probability to abstain, by label, as fitted on held-out texts."
    )
    training: dict[str, Any] = Field(description="Where the model comes from.")
    version: str = Field(description="Of sparsedistill, which answers.")


class State(BaseModel):
    """Whether the service is well."""

    status: str


class FieldProblem(BaseModel):
    """What is wrong with one part of a request."""

    field: str = Field(description="Where in the body, such as `texts[3]`.")
    message: str


class Problem(BaseModel):
    """Why there is no answer."""

    code: str = Field(description="For programs: one word that does not change.")
    message: str = Field(description="For people: what is wrong and what to do.")
    fields: list[FieldProblem] = Field(default_factory=list)
    request_id: str = Field(default="", description="As in the header `X-Request-ID`.")


def request_model(settings: Settings) -> type[PredictRequest]:
    """The request as this service takes it: its limits are in the model and in the document."""
    texts = Field(
        default=None,
        max_length=settings.max_texts,
        description=PredictRequest.model_fields["texts"].description,
    )
    model: type[PredictRequest] = create_model(
        "PredictRequest",
        __base__=PredictRequest,
        __doc__=PredictRequest.__doc__,
        texts=(list[str] | None, texts),
    )
    return model
