"""Checkpoints that cannot become the teacher of the tiny task, each with what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from helpers.tiny_bert import write_tiny_bert
from helpers.tiny_task import LABELS, WORDS
from safetensors.numpy import load_file, save_file

TAKEN: Mapping[str, Any] = {"finetune": False, "epochs": 1}
TUNED: Mapping[str, Any] = {"finetune": True, "epochs": 1}


@dataclass(frozen=True)
class Bad:
    """How a good checkpoint is spoiled.

    Attributes:
        spoil: Given the directory of a good one.
        says: Parts of the message, in this order.
        settings: ``[teacher]``, beside the checkpoint.
        labels: Of the good one's head; none is an encoder.
    """

    spoil: Callable[[Path], None]
    says: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=lambda: TAKEN)
    labels: tuple[str, ...] = LABELS

    def write(self, directory: Path) -> Path:
        """Write the spoiled checkpoint."""
        write_tiny_bert(directory, WORDS, labels=self.labels)
        self.spoil(directory)
        return directory


def nothing(directory: Path) -> None:
    """It is bad as it is."""
    del directory


def configured(**settings: object) -> Callable[[Path], None]:
    """Other settings in config.json."""

    def spoil(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return spoil


def without_tokenizer(directory: Path) -> None:
    """Model only."""
    for path in directory.glob("tokenizer*"):
        path.unlink()


def of_a_larger_tokenizer(directory: Path) -> None:
    """A tokenizer that knows more than the model."""
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["unheard"] = max(vocabulary.values()) + 1
    path.write_text(json.dumps(content))


def pickled(directory: Path) -> None:
    """Weights in a file that can run code."""
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def without_weights(directory: Path) -> None:
    """No weights at all."""
    (directory / "model.safetensors").unlink()


def weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    """Other weights in the file."""

    def spoil(directory: Path) -> None:
        path = directory / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return spoil


def not_a_number(tensors: dict[str, Any]) -> dict[str, Any]:
    """One value of one layer."""
    name = next(name for name in tensors if name.endswith("layer.1.output.dense.weight"))
    values = tensors[name].copy()
    values[3, 4] = np.nan
    return {**tensors, name: values}


def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
    """As another architecture calls its layers."""
    return {name.replace("encoder.layer", "transformer.block"): v for name, v in tensors.items()}


def narrower(tensors: dict[str, Any]) -> dict[str, Any]:
    """Half of a layer."""
    name = next(name for name in tensors if name.endswith("layer.0.intermediate.dense.weight"))
    return {**tensors, name: tensors[name][:32].copy()}


BAD = {
    "other labels": Bad(
        nothing,
        (
            "teacher's labels are ['no', 'perhaps', 'yes']",
            "task's are ['garden', 'kitchen', 'railway']",
            '[teacher] label_names = { "no" = "...", "perhaps" = "...", "yes" = "..." }',
        ),
        labels=("no", "perhaps", "yes"),
    ),
    "labels of another case": Bad(
        nothing,
        (
            "teacher's labels are ['GARDEN', 'KITCHEN', 'RAILWAY']",
            "task's are ['garden', 'kitchen', 'railway']",
            '{ "RAILWAY" = "railway", "KITCHEN" = "kitchen", "GARDEN" = "garden" }',
        ),
        labels=("RAILWAY", "KITCHEN", "GARDEN"),
    ),
    "default label names": Bad(
        nothing,
        (
            "teacher's labels are ['LABEL_0', 'LABEL_1', 'LABEL_2']",
            "task's are ['garden', 'kitchen', 'railway']",
            '"LABEL_0" = "..."',
        ),
        labels=("LABEL_0", "LABEL_1", "LABEL_2"),
    ),
    "fewer labels": Bad(
        nothing,
        ("teacher's labels are ['garden', 'kitchen']", "['garden', 'kitchen', 'railway']"),
        labels=LABELS[:2],
    ),
    "one label": Bad(
        nothing, ("one label only, ['garden']", "is no classifier"), labels=LABELS[:1]
    ),
    "a label name that is none of the teacher's": Bad(
        nothing,
        ("label_names has 'gardn', which is no label of the teacher", str(sorted(LABELS))),
        {**TAKEN, "label_names": {"gardn": "garden"}},
    ),
    "a label name that is none of the task's": Bad(
        nothing,
        ("label_names has 'garden' stand for 'gardn'", "no label of the task", str(list(LABELS))),
        {**TAKEN, "label_names": {"garden": "gardn"}},
    ),
    "no tokenizer": Bad(without_tokenizer, ("has no tokenizer",)),
    "no tokenizer to fine-tune with": Bad(without_tokenizer, ("has no tokenizer",), TUNED, ()),
    "another model's tokenizer": Bad(
        of_a_larger_tokenizer, ("the tokenizer of", "the tokenizer of another model"), TUNED, ()
    ),
    "a masked language model": Bad(
        configured(architectures=["BertForMaskedLM"]),
        ("is a BertForMaskedLM, a model of another task", "finetune = true"),
    ),
    "a tagger of tokens": Bad(
        configured(architectures=["BertForTokenClassification"]),
        ("is a BertForTokenClassification", "...ForSequenceClassification"),
    ),
    "an encoder without a head": Bad(
        configured(id2label=dict(enumerate(LABELS)), architectures=["BertModel"]),
        ("is a BertModel, a model of another task", "finetune = true"),
        labels=(),
    ),
    "an unnamed encoder without a head": Bad(
        configured(id2label=dict(enumerate(LABELS)), architectures=None),
        ("no fine-tuned classifier: it lacks", "classifier.weight", "finetune = true"),
        labels=(),
    ),
    "a regression": Bad(
        configured(problem_type="regression"), ("problem_type 'regression'", "gives a number")
    ),
    "several labels a text": Bad(
        configured(problem_type="multi_label_classification"),
        ("problem_type 'multi_label_classification'", "several labels"),
    ),
    "a newer transformers": Bad(
        configured(model_type="octobert", transformers_version="9.1.0"),
        ("model_type 'octobert', which the installed transformers", "saved by transformers 9.1.0",
         "Upgrade transformers"),
        TUNED,
        (),
    ),
    "an older name with newer parts": Bad(
        configured(hidden_act="octelu", transformers_version="99.1.0"),
        ("cannot be loaded", "saved by transformers 99.1.0, installed is", "upgrade transformers"),
    ),
    "a model of images": Bad(
        configured(model_type="vit"),
        ("model_type 'vit', of which transformers has no sequence classifier",),
        TUNED,
        (),
    ),
    "no model_type": Bad(configured(model_type=None), ("states no model_type",), TUNED, ()),
    "pickled weights": Bad(
        pickled, ("its weights in pytorch_model.bin only", "can run code", "safetensors"), TUNED, ()
    ),
    "no weights": Bad(without_weights, ("has no *.safetensors",)),
    "another architecture's weights": Bad(
        weights(renamed),
        ("lacks 32 weights", "encoder.layer.0.attention", "and 29 more", "another architecture"),
        TUNED,
        (),
    ),
    "a layer of another size": Bad(
        weights(narrower),
        ("lacks 1 weights", "layer.0.intermediate.dense.weight", "another architecture or size"),
        TUNED,
        (),
    ),
    "weights that are no numbers": Bad(
        weights(not_a_number), ("layer.1.output.dense.weight that are not finite",)
    ),
    "no numbers to fine-tune from": Bad(
        weights(not_a_number), ("layer.1.output.dense.weight that are not finite",), TUNED, ()
    ),
    "longer texts than it has positions for": Bad(
        nothing, ("reads 64 tokens at most", "max_length = 64 or less, in place of 80"),
        {**TUNED, "max_length": 80}, (),
    ),
    "windows that would not move": Bad(
        nothing, ("windows of 16 tokens cannot overlap by 14", "a smaller [teacher] overlap"),
        {**TUNED, "max_length": 16, "long_texts": "windows", "overlap": 14}, (),
    ),
}  # fmt: skip
