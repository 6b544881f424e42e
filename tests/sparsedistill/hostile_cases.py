"""What must hold for hostile models and texts, and a worker that goes through very many of them.

As a script it works through a range of seeds in a process of its own, so that a crash or an endless
loop costs no more than that, and has a seed:

    PYTHONPATH=.:tests python tests/sparsedistill/hostile_cases.py models SEED
"""

from __future__ import annotations

import faulthandler
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.folded_cases import NGRAMS, formula, small_model, small_vocabulary
from helpers.mutations import BASE, CONFIG, mutate_model, mutate_text

from sparsedistill import Classifier
from sparsedistill.errors import DataError, ModelFileError
from sparsedistill.model_format import save_model
from sparsedistill.text.buffers import TextBuffer

TYPES = ("float32", "float16", "int8")
# A case takes milliseconds; what takes this long does not end.
_PATIENCE = 60

TEXTS = [
    "The film was good",
    "not good, not good at all: a VERY bad film!",
    "",
    "nothing known here",
    " ".join(NGRAMS),
    "good " * 300,
    "ΟΔΟΣ film 🙂",
]


class Models:
    """Good models of every type of table, by their files, and what they answer."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.files, self.answers = [], []
        for number, table_type in enumerate(TYPES):
            directory = scratch / f"good-{number}"
            model = small_model(hidden=5).converted(table_type)
            about = {
                "training": {"a": {"b": [1, "x"]}},
                "thresholds": {"label 0": 0.5},
                "reference": {"texts": 3},
            }
            save_model(directory, model, small_vocabulary(), **about)
            self.files.append({path.name: path.read_bytes() for path in directory.iterdir()})
            self.answers.append(_answers(Classifier.load(directory, verify=True)))

    def check(self, seed: int) -> str:
        """Change a model and load it: refused by name, or it answers; returns which.

        A damaged one that is loaded with `verify` answers as it did. Else the answers may differ,
        but they are probabilities.
        """
        which = seed % len(self.files)
        files, sealed = mutate_model(self.files[which], seed)
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        try:
            for name, content in files.items():
                (directory / name).write_bytes(content)
            exact = loaded(directory, verify=True)
            found = loaded(directory, verify=False)
        finally:
            shutil.rmtree(directory)
        if exact is not None and not sealed:
            assert exact == self.answers[which], "altered answers were accepted"
        return f"{'hostile' if sealed else 'damaged'} " + (
            "refused" if found is None else "verified" if exact is not None else "loaded"
        )


def loaded(directory: Path, *, verify: bool):
    """The answers of a model; None if it is refused, or found out when it is to answer."""
    try:
        classifier = Classifier.load(directory, verify=verify)
    except ModelFileError as error:
        message = str(error)
        names = [CONFIG, "model.safetensors", "vocabulary.safetensors", "ngrams.txt.zst"]
        assert any(name in message for name in names), f"names no file: {message}"
    else:
        try:
            return _answers(classifier)
        except (ModelFileError, DataError) as error:
            message = str(error)
    assert len(message) < 1000, "a message of this length helps nobody"
    return None


def _answers(classifier: Classifier):
    """All that a model says of the texts, after a look whether it can be so."""
    classes = len(classifier.classes_)
    probabilities = classifier.predict_proba(TEXTS)
    assert probabilities.shape == (len(TEXTS), classes)
    assert np.isfinite(probabilities).all(), "not finite"
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5), "do not sum to one"
    coverage = classifier.coverage(TEXTS)
    assert ((coverage >= 0) & (coverage <= 1)).all()
    assert set(classifier.predict(TEXTS)) <= set(classifier.classes_)
    contributions = classifier.explain(TEXTS[1]).ngrams
    strings = classifier.ngrams
    known = None if strings is None else list(strings)
    assert known is None or len(known) == len(classifier.folded.index)
    return (
        classifier.classes_,
        probabilities.tobytes(),
        coverage.tobytes(),
        repr(contributions),
        known,
    )


def check_texts(classifier: Classifier, first: int, last: int) -> None:
    """Texts of a range of seeds: together, alone and by the readable formula."""
    texts = [mutate_text(seed, NGRAMS) for seed in range(first, last)]
    encoded = [text if isinstance(text, bytes) else text.encode() for text in texts]
    together = classifier.folded.logits(_buffer(encoded))
    assert np.isfinite(together).all()
    sampled = random.Random(first).sample(range(len(texts)), len(texts) // 100)
    for number, content in enumerate(encoded):
        alone = classifier.folded.logits(_buffer([content]))[0]
        assert alone.tobytes() == together[number].tobytes(), f"seed {first + number}: alone"
    strings = [number for number, text in enumerate(texts) if isinstance(text, str)]
    given = classifier.predict([texts[number] for number in strings])
    best = together[strings].argmax(axis=1)
    assert given == [classifier.classes_[c] for c in best], f"seeds {first} to {last}: as strings"
    for number in sampled:
        if isinstance(texts[number], str):
            expected = formula(classifier.folded, [texts[number]])[0]
            close = np.allclose(together[number], expected, rtol=1e-5, atol=1e-5)
            assert close, f"seed {first + number}: {together[number]} and not {expected}"
    with pytest.raises(DataError, match="surrogate"):
        classifier.predict(with_surrogate(texts, first))


def with_surrogate(texts: list[str | bytes], seed: int) -> list[str]:
    """Some of the texts, one of them with half a character of UTF-16."""
    rng = random.Random(seed)
    chosen = [text for text in texts if isinstance(text, str)][:5]
    chosen.append(rng.choice(BASE) + chr(rng.randrange(0xD800, 0xE000)))
    return chosen


def _buffer(texts: list[bytes]) -> TextBuffer:
    offsets = np.cumsum([0, *map(len, texts)])
    return TextBuffer(np.frombuffer(b"".join(texts), np.uint8), offsets)


def main(kind: str, first: str, last: str | None = None) -> int:
    """Work through the seeds; the last line of standard output is the seed in hand."""
    seeds = range(int(first), int(last or int(first) + 1))
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        models, outcomes, failed = Models(Path(scratch)), Counter(), 0
        classifier = Classifier.load(Path(scratch) / "good-0")
        faulthandler.enable()
        step = 1 if kind == "models" else 1000
        for seed in range(seeds.start, seeds.stop, step):
            sys.stdout.write(f"{seed}\n")
            sys.stdout.flush()
            faulthandler.dump_traceback_later(_PATIENCE, exit=True)
            try:
                if kind == "models":
                    outcomes[models.check(seed)] += 1
                else:
                    check_texts(classifier, seed, min(seed + step, seeds.stop))
                    outcomes["texts"] += step
            except Exception:
                failed += 1
                sys.stderr.write(f"seed {seed}:\n{traceback.format_exc(limit=-4)}\n")
        faulthandler.cancel_dump_traceback_later()
    sys.stdout.write(json.dumps(outcomes) + "\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
