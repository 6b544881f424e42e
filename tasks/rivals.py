"""Rivals of the DAN: the paper's BiLSTM and CNN over the teacher's subwords (section 4.1).

They learn from the texts and logits that the distilled DAN learns from, with its objective and
seeds, and are there to be compared with it: none is fine-tuned or packaged.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field, model_validator

from sparsedistill.students.registry import shape_from
from sparsedistill.students.subwords import SubwordStudent
from sparsedistill.students.tokens import teacher_embeddings
from sparsedistill.teacher.checkpoint import load_tokenizer
from sparsedistill.training.recipe import TrainingRecipe
from sparsedistill.training.subword_memory import check_subword_memory
from tasks.row_choice import choice_of
from tasks.shards import open_input, read_shard
from tasks.stage import Table, single_input
from tasks.student_examples import Setup, labelled_bags, taught_bags
from tasks.subword_examples import TokenFiles
from tasks.teacher import MODEL_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sparsedistill.students import StudentTraining
    from sparsedistill.students.subwords import Network
    from storage import ArtifactStore, Input
    from tasks.shards import TextShard
    from tasks.stage import Job, Made
    from tasks.student_config import StudentConfig

# Of embeddings that do not start as the teacher's.
_INIT_SCALE = 0.1
_TOKENS_DIRECTORY = "tokens"


class RivalConfig(Table):
    """``[[student.rivals]]``: a student over subwords to compare the DAN with."""

    architecture: Literal["bilstm", "cnn"]
    hidden: int = Field(256, ge=1, description="units; of a bilstm in each direction of a layer")
    layers: int | None = Field(None, ge=1, description="of a bilstm, 2 where not given")
    window: int | None = Field(
        None, ge=1, description="tokens that a unit of a cnn sees, 7 where not given"
    )
    epochs: int = Field(6, ge=1)
    batch_size: int = Field(128, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    max_length: int | None = Field(
        None, ge=1, description="tokens of a text that are read; the teacher's where not given"
    )
    start: Literal["teacher", "random"] = Field(
        "teacher", description="of the embeddings, which are as wide as the teacher's either way"
    )

    @model_validator(mode="after")
    def _own_sizes(self) -> RivalConfig:
        for name, value, whose in (
            ("layers", self.layers, "bilstm"),
            ("window", self.window, "cnn"),
        ):
            if value is not None and self.architecture != whose:
                raise ValueError(f"{name} is of a {whose}; a {self.architecture} has none")
        return self

    @property
    def variant(self) -> str:
        """What its artifacts are called: ``kd_bilstm``, ``kd_cnn``."""
        return f"kd_{self.architecture}"

    def network(self, *, rows: int, width: int, classes: int) -> Network:
        """Return its sizes for a teacher's embeddings and a number of labels."""
        sizes = {**self.model_dump(), "width": width, "init_scale": _INIT_SCALE}
        # Those that read tokens are all networks.
        return cast("Network", shape_from(self.architecture, sizes, rows=rows, classes=classes))

    def recipe(self, student: StudentConfig) -> TrainingRecipe:
        """Return its schedule: its own length and rate, and the course of the student's."""
        return TrainingRecipe(
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            warmup=student.warmup,
            decay=student.decay,
            patience=student.patience,
        )

    def training(self, student: StudentConfig) -> StudentTraining:
        """Return its dropout, and the student's decay and constants of Adam."""
        return replace(student.student_training(), dropout=self.dropout, feature_dropout=0.0)


def settings(rival: RivalConfig, student: StudentConfig, teacher: Made) -> dict[str, Any]:
    """Return what of the config decides a rival, beside its objective and seed."""
    network = rival.network(rows=0, width=0, classes=0).to_json()
    for given in ("rows", "width", "classes"):  # by the inputs
        del network[given]
    return {
        "architecture": rival.architecture,
        **network,
        "start": rival.start,
        "max_length": rival.max_length or teacher.statistics["max_length"],
        **asdict(rival.recipe(student)),
        **asdict(rival.training(student)),
    }


def inputs(
    texts: Sequence[TextShard],
    logits: Mapping[str, Sequence[Made]],
    splits: Mapping[str, Made],
    teacher: Made,
    *,
    labelled: bool,
) -> dict[str, tuple[Input, ...]]:
    """Return what a rival is made from.

    Args:
        texts: Shards of the corpus, then ``train``.
        logits: Of ``corpus``, ``train`` and ``dev``, in the same order.
        splits: ``train`` and ``dev`` with their labels.
        teacher: Lends tokenizer and embeddings.
        labelled: Whether the labels of ``train`` are learned from too.
    """
    taught = [*logits["corpus"], *logits["train"]]
    return {
        "dev": (splits["dev"].as_input(),),
        "texts": tuple(shard.input for shard in texts),
        "logits": tuple(one.as_input() for one in taught),
        "dev_logits": tuple(one.as_input() for one in logits["dev"]),
        "teacher": (teacher.as_input(),),
        **({"train": (splits["train"].as_input(),)} if labelled else {}),
    }


def prepare(rival: RivalConfig, job: Job, store: ArtifactStore, student: StudentConfig) -> Setup:
    """Make a rival, and the tokens that it learns from.

    Args:
        rival: Which one.
        job: Of it.
        store: Has the inputs, and room for the tokens.
        student: The table ``[student]``.

    Raises:
        ConfigError: It does not fit into the memory.
    """
    given = job.recipe.inputs
    teacher = open_input(store, single_input(job.recipe, "teacher"))
    model = teacher.directory() / MODEL_DIRECTORY
    embeddings = teacher_embeddings(model)
    rows, width = embeddings.shape
    directory = store.workspace(job.recipe) / _TOKENS_DIRECTORY
    directory.mkdir(exist_ok=True)
    files = TokenFiles(
        store=store,
        directory=directory,
        tokenizer=load_tokenizer(model),
        max_length=int(job.recipe.config["max_length"]),  # type: ignore[arg-type]
        rows=rows,
    )
    split = single_input(job.recipe, "dev")
    _, dev_tokens = files.of(split)
    dev = labelled_bags(store, split, dev_tokens, rows=rows)
    shards = [files.of(texts) for texts in given["texts"]]
    taught = taught_bags(
        store,
        shards,
        given["logits"],
        rows=rows,
        whole=True,
        train=single_input(job.recipe, "train") if "train" in given else None,
        choice=choice_of(job.recipe),
        train_shards=1,
    )
    examples = taught.examples
    network = rival.network(
        rows=rows, width=width, classes=len(read_shard(store, split).label_names)
    )
    training, lengths = rival.training(student), [bags.offsets for _, bags in shards]
    memory = check_subword_memory(
        network,
        training,
        batch_size=rival.batch_size,
        tokens_a_text=sum(len(bags.rows) for _, bags in shards) / len(examples),
        longest=max(int((one[1:] - one[:-1]).max(initial=0)) for one in lengths),
        examples=len(examples),
        threads=job.runtime["threads"],
        budget=job.runtime["memory"],
    )
    made = SubwordStudent(
        network,
        training=training,
        seed=int(job.recipe.config["seed"]),  # type: ignore[arg-type]
        threads=job.runtime["threads"],
        embeddings=embeddings if rival.start == "teacher" else None,
    )
    recipe = rival.recipe(student)
    return Setup(made, examples, dev, recipe, memory, network.classes, taught.chosen)
