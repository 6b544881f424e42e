"""The teacher over many texts: logits in row order, batches by a budget of tokens.

Rows are sorted by length, so that a batch holds rows of like length and little padding; a batch
takes as many rows as fit the token budget; the logits go back to the rows' own places. Truncation
is the tokenizer's own, which keeps the special end token.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sparsedistill.errors import DataError, TeacherError
from sparsedistill.teacher.checkpoint import load_classifier
from sparsedistill.teacher.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import torch

    Encoded = dict[str, list[npt.NDArray[np.int32]]]

Precision = Literal["float32", "bfloat16"]

_TOKENIZE_ROWS = 4096


@dataclass(frozen=True, slots=True)
class LabellingOptions:
    """How the teacher is run.

    Attributes:
        max_length: Tokens of a row that the teacher sees, special ones among them.
        token_budget: Padded tokens in a batch. Changes speed, and the last bits of the logits.
        threads: Of torch on the CPU; None leaves torch's own choice.
        device: A torch device; None takes the first GPU there is, else the CPU.
        precision: Of the products; bfloat16 is three times as fast where the processor has it,
            and moves the logits by some hundredths.
    """

    max_length: int = 512
    token_budget: int = 4096
    threads: int | None = None
    device: str | None = None
    precision: Precision = "float32"


class Teacher:
    """A fine-tuned sequence classifier, loaded once and asked often, by one thread at a time.

    Args:
        directory: As written by ``save_pretrained``: model and tokenizer.
        labels: The task's labels; logits come in this order.
        options: How it is run.

    Raises:
        TeacherError: It has no tokenizer, or its labels do not fit the task's.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        labels: Sequence[str],
        options: LabellingOptions,
        revision: str | None = None,
    ) -> None:
        import torch

        if options.threads:
            torch.set_num_threads(options.threads)
        self._options = options
        self._device = torch.device(
            options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        )
        self._tokenizer, self._model = load_classifier(directory, revision=revision)
        self._columns = label_columns(self._model.config.id2label, labels)
        self._accepted = inspect.signature(self._model.forward).parameters
        self._model.to(self._device).eval()
        self.parameters = sum(weights.numel() for weights in self._model.parameters())

    def logits(
        self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the logits of every text, float32 [rows, classes], in the order of the rows.

        Args:
            texts: Rows; an empty one is labelled like any other.
            progress: Called with the number of rows done since the last call.

        Raises:
            DataError: A logit is not finite; the message names the row.
        """
        import torch

        encoded = self._encode(texts)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]], np.int64)
        out = np.empty((len(texts), len(self._columns)), np.float32)
        low = torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._options.precision == "bfloat16"
        )
        with torch.inference_mode(), low, quiet_transformers():
            for batch in token_budget_batches(lengths, self._options.token_budget):
                out[batch] = self._batch_logits(encoded, batch)
                if progress:
                    progress(len(batch))
        if not np.isfinite(out).all():
            row = int(np.flatnonzero(~np.isfinite(out).all(axis=1))[0])
            raise DataError(
                f"the teacher's logits of row {row} are not finite: {texts[row][:80]!r}"
            )
        return out

    def _encode(self, texts: Sequence[str]) -> Encoded:
        """Return the model's inputs by name, one array a row: lists would take ten times as much.

        The attention mask is left out: padding makes it.
        """
        encoded: Encoded = {"input_ids": []}
        longest = min(self._options.max_length, self._tokenizer.model_max_length)
        for start in range(0, len(texts), _TOKENIZE_ROWS):
            part = self._tokenizer(
                list(texts[start : start + _TOKENIZE_ROWS]),
                truncation=True,
                max_length=longest,
                return_attention_mask=False,
            )
            for name, rows in part.items():
                if name in self._accepted:
                    encoded.setdefault(name, []).extend(np.array(row, np.int32) for row in rows)
        return encoded

    def _batch_logits(
        self, encoded: Encoded, batch: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        rows = {name: [values[i].tolist() for i in batch] for name, values in encoded.items()}
        padded: dict[str, torch.Tensor] = self._tokenizer.pad(
            rows, return_tensors="pt", return_attention_mask=True
        )
        inputs = {name: value.to(self._device) for name, value in padded.items()}
        logits: npt.NDArray[np.float32] = self._model(**inputs).logits.float().cpu().numpy()
        return logits[:, self._columns]


def token_budget_batches(
    lengths: npt.NDArray[np.int64], budget: int
) -> list[npt.NDArray[np.int64]]:
    """Cut the rows, longest first, into batches of at most ``budget`` padded tokens.

    Longest first, so that a budget too large for the memory shows in the first batch. A row longer
    than the budget makes a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, budget // max(int(lengths[order[start]]), 1))
        batches.append(order[start : start + size])
        start += size
    return batches


def label_columns(id2label: dict[int, str], labels: Sequence[str]) -> list[int]:
    """Return which of the teacher's outputs stands for each of the task's labels.

    Raises:
        TeacherError: The teacher has one only, or the two sets of names differ; the message shows
            both.
    """
    if len(id2label) < 2:
        raise TeacherError(
            f"the teacher has one label only, {list(id2label.values())}: it is no classifier"
        )
    by_name = {str(name): int(index) for index, name in id2label.items()}
    if set(by_name) != set(labels) or len(by_name) != len(id2label):
        raise TeacherError(
            f"the teacher's labels are {sorted(by_name)}, the task's are {sorted(labels)}; rename "
            "the labels of the data, or set id2label in the teacher's config.json"
        )
    return [by_name[label] for label in labels]
