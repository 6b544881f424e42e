"""The teacher over many texts: logits in row order, as fast as the device allows.

Texts go through in blocks: while the model works on one, the next is cut into tokens in another
thread. Rows of a block are sorted by length and read in batches (``batching.py``); their logits go
back to the rows' own places. What is done can be kept in a journal, so that a killed pass goes on
where it was; a row that fails is told of with its reason and costs no other row.
"""

from __future__ import annotations

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from sparsedistill.errors import DataError, TeacherError
from sparsedistill.teacher.batching import (
    equal_length_batches,
    stretches,
    token_budget_batches,
)
from sparsedistill.teacher.checkpoint import load_classifier
from sparsedistill.teacher.encoding import (
    LONGEST,
    Encoder,
    LongTexts,
    Padding,
    Pieces,
    longest_input,
    text_sizes,
)
from sparsedistill.teacher.quiet import quiet_transformers
from sparsedistill.teacher.session import Precision, open_session
from sparsedistill.torch_threads import one_torch_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from sparsedistill.teacher.journal import Journal
    from sparsedistill.text.buffers import TextBuffer

    Floats = npt.NDArray[np.float32]
    Errors = dict[int, Exception]

Engine = Literal["torch", "openvino"]

NOT_FINITE = "the teacher's logits are not finite"

# Rows that are sorted together: enough that most lengths fill batches, few enough to hold.
_BLOCK_ROWS = 32_768
_BLOCK_SIZE = 64 << 20
# What a device is tried with, and halved till it fits.
_MOST_TOKENS = 65_536
# So many rows that the model cannot read are the model's fault, not theirs.
_MOST_ERRORS = 100
# How far padding may move a logit.
_NEAR = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}


@dataclass(frozen=True, slots=True)
class LabellingOptions:
    """How the teacher is run.

    Attributes:
        max_length: Tokens of a text, or of a window of it, that the teacher reads at once, special
            ones among them; no more than the model has positions for.
        long_texts: ``truncate`` cuts the end off a longer text; ``windows`` reads it in windows and
            takes the mean of their logits.
        overlap: Tokens that a window shares with the one before.
        token_budget: Tokens in a batch; None takes what is best on a CPU, and on a GPU the most
            that fits its memory.
        threads: Of the CPU; None takes torch's own choice.
        device: A torch device; None takes the first GPU there is, else the CPU.
        precision: Of the products. What bfloat16 saves and what it moves: docs/teacher.md.
        engine: ``openvino`` compiles the model for a CPU.
    """

    max_length: int = LONGEST
    long_texts: LongTexts = "truncate"
    overlap: int = 64
    token_budget: int | None = None
    threads: int | None = None
    device: str | None = None
    precision: Precision = "float32"
    engine: Engine = "torch"


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the teacher says of some texts.

    Attributes:
        logits: float32 [rows, classes]; NaN in rows that failed.
        failures: Rows that failed, and why.
    """

    logits: Floats
    failures: dict[int, str]


class Teacher:
    """A fine-tuned sequence classifier, loaded once and asked often, by one thread at a time.

    Attributes:
        parameters: How many it has.
        max_length: Tokens that it reads at once: what the options say, or what the model can.
        token_budget: Tokens in a batch.

    Args:
        directory: As written by ``save_pretrained``: model and tokenizer.
        labels: The task's labels; logits come in this order.
        options: How it is run.

    Raises:
        TeacherError: It has no tokenizer, or its labels do not fit the task's.
        ConfigError: The device has not what the options ask for.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        labels: Sequence[str],
        options: LabellingOptions,
        revision: str | None = None,
    ) -> None:
        tokenizer, model = load_classifier(directory, revision=revision)
        self.parameters = sum(weights.numel() for weights in model.parameters())
        self._columns = label_columns(model.config.id2label, labels)
        longest = self.max_length = longest_input(tokenizer, model, options.max_length)
        self._encoder = Encoder(
            tokenizer,
            accepted=inspect.signature(model.forward).parameters,
            longest=longest,
            long_texts=options.long_texts,
            overlap=options.overlap,
        )
        self._padding = Padding(tokenizer)
        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._session = open_session(
            model,
            engine=options.engine,
            device=device,
            precision=options.precision,
            threads=options.threads or torch.get_num_threads(),
        )
        self._fits: int | None = None
        self._lock = threading.Lock()
        if not self._session.equal_lengths:
            self._session.equal_lengths = self._minds_padding(_NEAR[options.precision])
        self.token_budget = (
            options.token_budget or self._session.token_budget or self._trial(longest)
        )

    def logits(
        self, texts: Sequence[str], *, progress: Callable[[int], None] | None = None
    ) -> Floats:
        """Return the logits of every text, float32 [rows, classes], in the order of the rows.

        Args:
            texts: Rows; an empty one is labelled like any other.
            progress: Called with the number of rows done since the last call.

        Raises:
            DataError: A row failed, or its logits are not finite; the message names it.
        """
        labelled = self.label(texts, progress=progress)
        for row, reason in sorted(labelled.failures.items()):
            raise DataError(f"row {row}: {reason}: {texts[row][:80]!r}")
        return labelled.logits

    def label(
        self,
        texts: Sequence[str] | TextBuffer,
        *,
        journal: Journal | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Labelled:
        """Return the logits of every text, and which texts have none and why.

        Args:
            texts: Rows; an empty one is labelled like any other.
            journal: Has what an earlier pass over the same texts did, and gets what this one does.
            progress: Called with the number of rows done since the last call.
        """
        out = np.full((len(texts), len(self._columns)), np.nan, np.float32)
        failures: dict[int, str] = {}
        blocks = stretches(text_sizes(texts), rows=_BLOCK_ROWS, size=_BLOCK_SIZE)
        with (
            quiet_transformers(),
            one_torch_thread(),
            ThreadPoolExecutor(1) as ahead,
            ThreadPoolExecutor(self._session.workers, initializer=_one_thread) as workers,
        ):
            upcoming = [
                ahead.submit(self._encoder.encode, texts[slice(*block)]) for block in blocks[:1]
            ]
            for number, (start, stop) in enumerate(blocks):
                pieces = upcoming.pop().result()
                upcoming = [
                    ahead.submit(self._encoder.encode, texts[slice(*block)])
                    for block in blocks[number + 1 : number + 2]
                ]
                answers, errors = self._block(pieces, number, workers, journal, progress)
                out[start:stop] = _means(answers, pieces, texts=stop - start)
                failures.update({start + row: why for row, why in pieces.failures.items()})
                for piece, error in errors.items():
                    failures[start + int(pieces.rows[piece])] = _told(error)
        bad = np.flatnonzero(~np.isfinite(out).all(axis=1))
        out[bad] = np.nan
        for row in bad.tolist():
            failures.setdefault(row, NOT_FINITE)
        return Labelled(out, failures)

    def _block(
        self,
        pieces: Pieces,
        number: int,
        workers: ThreadPoolExecutor,
        journal: Journal | None,
        progress: Callable[[int], None] | None,
    ) -> tuple[Floats, Errors]:
        """Return the logits of a block's pieces, float32 [pieces, classes], and what failed."""
        cut = equal_length_batches if self._session.equal_lengths else token_budget_batches
        batches = cut(pieces.lengths, self.token_budget)
        out = np.empty((len(pieces.rows), len(self._columns)), np.float32)
        last_of_row = np.diff(pieces.rows, append=-1) != 0
        errors: Errors = {}

        def answer(position: int) -> int:
            batch = batches[position]
            content = 0 if journal is None else pieces.checksum(batch)
            found = None if journal is None else journal.found(number, position, content)
            if found is None:
                found = self._answer(pieces, batch, errors)
                # What failed is tried again after a kill, or its reason would be lost.
                if journal is not None and errors.keys().isdisjoint(batch.tolist()):
                    journal.add(number, position, content, found)
            out[batch] = found
            return int(last_of_row[batch].sum())

        futures = [workers.submit(answer, position) for position in range(len(batches))]
        try:
            for future in as_completed(futures):
                done = future.result()
                if progress and done:
                    progress(done)
        finally:
            for future in futures:
                future.cancel()
        if 1 < len(errors) == len(pieces.rows):  # the model reads nothing at all
            raise next(iter(errors.values()))
        return out, errors

    def _answer(self, pieces: Pieces, batch: npt.NDArray[np.int64], errors: Errors) -> Floats:
        """Return a batch's logits; in halves, where the memory is too small or a row fails."""
        longest = int(pieces.lengths[batch].max())
        if self._fits is not None and len(batch) > 1 and longest * len(batch) > self._fits:
            return self._halves(pieces, batch, errors)
        try:
            return self._session(*self._padding.rectangle(pieces, batch))[:, self._columns]
        except Exception as error:
            full = _is_out_of_memory(error)
            if full and len(batch) == 1:
                raise TeacherError(
                    f"the memory is too small for one text of {longest} tokens; set a smaller "
                    "[teacher] max_length"
                ) from error
            if len(batch) == 1:
                errors[int(batch[0])] = error
                if len(errors) > _MOST_ERRORS:
                    raise
                return np.full((1, len(self._columns)), np.nan, np.float32)
        if full:
            half = longest * len(batch) // 2
            with self._lock:
                self._fits = half if self._fits is None else min(self._fits, half)
        return self._halves(pieces, batch, errors)

    def _halves(self, pieces: Pieces, batch: npt.NDArray[np.int64], errors: Errors) -> Floats:
        half = len(batch) // 2
        parts = (batch[:half], batch[half:])
        return np.concatenate([self._answer(pieces, part, errors) for part in parts])

    def _minds_padding(self, near: float) -> bool:
        """Return whether a row's logits move by more than this when it is padded.

        Some models have positions that count from the first padded token, or no mask at all.
        """
        pieces = self._encoder.encode(["a", "a b c d e f g"])
        rows = np.arange(len(pieces.rows))
        together = self._session(*self._padding.rectangle(pieces, rows))
        alone = [self._session(*self._padding.rectangle(pieces, rows[i : i + 1])) for i in rows]
        return not np.allclose(together, np.concatenate(alone), rtol=near, atol=near)

    def _trial(self, longest: int) -> int:
        """Return how many tokens fit into a batch, by trying."""
        budget = max(_MOST_TOKENS, longest)
        one = self._encoder.encode(["a"])
        while True:
            # As many as all workers together hold.
            rows = max(1, budget // longest) * self._session.workers
            # The one text's first token, over and over: what counts is the size.
            inputs = {
                name: np.full((rows, longest), values[0], np.int64)
                for name, values in one.inputs.items()
            }
            try:
                self._session(inputs, None)
            except Exception as error:
                if not _is_out_of_memory(error) or budget <= longest:
                    raise
                budget //= 2
            else:
                return budget


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


def _means(logits: Floats, pieces: Pieces, *, texts: int) -> Floats:
    """Return the mean of each text's windows, float32 [texts, classes]; NaN where it has none.

    Args:
        logits: Of every piece, float32 [pieces, classes].
        pieces: Says whose they are.
        texts: How many there are.
    """
    out = np.full((texts, logits.shape[1]), np.nan, np.float32)
    if len(logits):
        firsts = np.flatnonzero(np.diff(pieces.rows, prepend=-1))
        counts = np.diff(firsts, append=len(logits))
        sums = np.add.reduceat(logits, firsts, axis=0)
        out[pieces.rows[firsts]] = sums / counts[:, None].astype(np.float32)
    return out


def _told(error: Exception) -> str:
    return f"the teacher cannot read it ({type(error).__name__}: {error!s:.200})"


def _one_thread() -> None:
    torch.set_num_threads(1)


def _is_out_of_memory(error: Exception) -> bool:
    said = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "allocate memory" in said)
    )
