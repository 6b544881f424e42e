"""``explain``: which n-grams decide a text, in the terminal, as JSON or as a page."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from dashboards.explanation import render_explanation
from flows.explanation_text import render
from flows.output_files import open_output, print_json
from sparsedistill.classifier import Classifier
from sparsedistill.errors import ConfigError
from sparsedistill.remote_sources import shown_name

if TYPE_CHECKING:
    import argparse


def explain(options: argparse.Namespace) -> int:
    """Print what every n-gram adds to every label, or write it as a page."""
    if options.top < 1:
        raise ConfigError(f"--top must be at least 1, not {options.top}")
    classifier = Classifier.from_pretrained(options.model)
    explanation = classifier.explain(options.text).to_json()
    if options.html:
        model = str(classifier.training.get("name") or shown_name(options.model))
        page = render_explanation(explanation, model=model, top=options.top)
        with open_output(options.html, option="--html") as sink:
            sink.write(page.encode())
    if options.json:
        print_json(explanation)
    elif not options.html:
        width = shutil.get_terminal_size().columns
        shown = render(explanation, top=options.top, colour=has_colours(), width=width)
        print(shown, end="")  # noqa: T201
    return 0


def has_colours() -> bool:
    """Whether what is printed is for a terminal that shows colours (see no-color.org)."""
    unwanted = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not unwanted
