"""What the commands over a finished model take. Each is in a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_MODEL = "directory or URL of a packaged model, or its name on the Hugging Face hub"
_FORMATS = ("auto", "text", "jsonl", "csv", "tsv", "parquet")
_RULES = ("count", "train_count", "contribution", "order")


def add_model_commands(add: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """Add them all.

    Args:
        add: Adds a command of a name, a ``module:function`` and a summary.
    """
    _add_predict(add("predict", "flows.predict_command:predict", "label texts, in order"))
    _add_explain(
        add("explain", "flows.explain_command:explain", "show which n-grams decide a text")
    )
    _add_inspect(add("inspect", "flows.inspect_command:inspect", "say what is in a model"))
    _add_bench(add("bench", "flows.bench_command:bench", "measure a model on this machine"))
    _add_compress(add("compress", "flows.compress_command:compress", "make a model smaller"))
    _add_drift(
        add("drift", "flows.drift_command:drift", "compare texts with those a model was made on")
    )
    _add_serve(add("serve", "flows.serve_command:serve", "answer over HTTP"))


def _add_predict(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    command.add_argument(
        "files", metavar="FILE", nargs="*", help="texts; standard input if none, or for -"
    )
    _add_reading(command)
    command.add_argument(
        "--output", metavar="FILE", help="write there, compressed if it ends in .gz or .zst"
    )
    command.add_argument(
        "--output-format", choices=_FORMATS, default="auto",
        help="auto: by the name of --output, else text: one label a line",
    )  # fmt: skip
    command.add_argument("--proba", action="store_true", help="every class's probability too")
    command.add_argument("--top", type=int, metavar="K", help="the K most probable labels")
    command.add_argument("--coverage", action="store_true", help="the share of known n-grams too")
    command.add_argument(
        "--abstain-below", metavar="P",
        help="no label (an empty line, null in JSON) where it is less probable; "
        "'model': by the model's own thresholds",
    )  # fmt: skip
    command.add_argument("--no-progress", action="store_true", help="no bar on standard error")
    _add_threads(command)


def _add_explain(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    command.add_argument("text", metavar="TEXT", help="the text")
    command.add_argument("--top", type=int, default=12, metavar="N", help="n-grams to show")
    command.add_argument("--json", action="store_true", help="print everything as JSON")
    command.add_argument("--html", metavar="FILE", help="write a page with the text coloured")


def _add_inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    command.add_argument("--verify", action="store_true", help="read it all, compare checksums")
    command.add_argument("--json", action="store_true", help="print it as JSON")
    command.add_argument(
        "--ngrams", type=int, default=10, metavar="N", help="n-grams to show for each label"
    )


def _add_bench(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    command.add_argument(
        "files", metavar="FILE", nargs="*", help="texts to measure on; made up if none"
    )
    _add_reading(command)
    command.add_argument(
        "--threads", default="1,2", metavar="N,N", help="numbers of threads to try"
    )
    command.add_argument("--seconds", type=float, default=2.0, metavar="S", help="for each line")
    command.add_argument("--json", metavar="FILE", help="write the same rows there")


def _add_compress(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    command.add_argument("out", metavar="OUT", help="directory for the smaller model")
    command.add_argument("--dtype", choices=("float32", "float16", "int8"))
    command.add_argument("--width", type=int, metavar="N", help="columns of the table")
    command.add_argument("--keep-share", type=float, metavar="S", help="share of rows that stay")
    command.add_argument("--keep-by", choices=_RULES, default="contribution")
    command.add_argument("--max-size", metavar="SIZE", help="such as 20MB: the best model below it")
    command.add_argument(
        "--min-accuracy", metavar="A",
        help="the smallest model of that accuracy on --dev: 0.93, or 0.99x of the given model's",
    )  # fmt: skip
    command.add_argument("--dev", metavar="FILE", help="labelled texts that every step is tried on")
    command.add_argument("--text-column", default="text", metavar="NAME")
    command.add_argument("--label-column", default="label", metavar="NAME")
    command.add_argument(
        "--counts", metavar="DIR", help="saved vocabulary with the counts that rules need"
    )
    command.add_argument("--json", metavar="FILE", help="write the steps there too")
    _add_threads(command)


def _add_drift(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    command.add_argument("files", metavar="FILE", nargs="*", help="texts; standard input if none")
    _add_reading(command)
    command.add_argument(
        "--against", action="append", metavar="FILE",
        help="texts to compare with, in place of the model's own reference; may be repeated",
    )  # fmt: skip
    command.add_argument(
        "--fail-on", choices=("shifted", "different"), help="exit status 3 from this verdict on"
    )
    command.add_argument("--json", metavar="FILE", help="write the report there too")
    _add_threads(command)


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help=_MODEL)
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8000)
    command.add_argument("--name", help="of the model, in answers and metrics")
    command.add_argument("--workers", type=int, default=1, metavar="N", help="processes")
    command.add_argument("--max-texts", type=int, default=1024, metavar="N", help="in a request")
    command.add_argument("--max-bytes", default="4MB", metavar="SIZE", help="of a request")
    command.add_argument(
        "--max-concurrency", type=int, default=64, metavar="N",
        help="large requests at once, in each process",
    )  # fmt: skip
    command.add_argument(
        "--grace", type=int, default=30, metavar="S", help="for requests in flight when it stops"
    )
    command.add_argument(
        "--drain", type=float, default=0.0, metavar="S",
        help="go on answering so long after SIGTERM, no longer ready",
    )  # fmt: skip
    command.add_argument("--no-access-log", action="store_true", help="no line for each request")
    _add_threads(command)


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format", choices=_FORMATS, default="auto", help="of the input; auto: by the file's name"
    )
    command.add_argument("--column", default="text", metavar="NAME", help="that holds the text")


def _add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=int, default=1, metavar="N")
