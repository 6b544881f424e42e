"""A model's files, its name on the hub, and what a test looks at of a cache."""

import json
from pathlib import Path

from helpers.mutations import seal

from sparsedistill import remote

FILES = ["config.json", "model.safetensors", "ngrams.txt.zst", "vocabulary.safetensors"]
NAME = "team/student"
ROOT = Path(remote.__file__).parents[1]


def models(cache):
    return sorted(cache.glob("models/*")) if cache.exists() else []


def config_with(content, **changes):
    """`config.json` with changes, which knows the digests that it has then."""
    return seal(
        {"config.json": json.dumps({**json.loads(content["config.json"]), **changes}).encode()}
    )["config.json"]
