"""The command line. Parsing only: each command's work is imported when it is asked for.

The commands over a finished model need the base install alone: nothing here imports the pipeline.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from flows.model_arguments import add_model_commands

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
    from collections.abc import Callable, Sequence

_EXTRAS = {
    "prefect_dask": "dask",
    "s3fs": "s3",
    "huggingface_hub": "hub",
}
_OURS = {"dashboards", "flows", "sparsedistill", "storage", "tasks"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0: done. 1: it could not be done, and the message says why. 2: the command line is wrong.
    3: texts have drifted (see `drift_command`). 130: interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # What a terminal of few characters cannot show becomes a question mark, not an error.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    options = _options(arguments)
    # Before torch is loaded: its threads would spin while they wait, and two runs on the same
    # cores (or a run beside anything busy) would be ten times slower than one after the other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status: int = _command(options.module, options.function)(options)
    except ModuleNotFoundError as error:
        return _needs_extra(error, options.module)
    except KeyboardInterrupt:
        # Only a run keeps what it has done so far.
        more = "; run the same command again to go on" if options.function == "distill" else ""
        print(f"interrupted{more}", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        if not _is_ours(error):
            raise
        # Messages quote what is in files, which must not get to command the terminal.
        from dashboards.format import clean

        print(f"error: {clean(error)}", file=sys.stderr)  # noqa: T201
        return 1
    return status


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse hands files that come after an option to nobody (bpo-14191).
    if rest and "files" in options and not any(len(one) > 1 and one[0] == "-" for one in rest):
        options.files += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _command(module: str, function: str) -> Callable[[argparse.Namespace], Any]:
    command: Callable[[argparse.Namespace], Any] = getattr(import_module(module), function)
    return command


def _is_ours(error: Exception) -> bool:
    """Return whether an error's message is for the user: the project's own, or of the system."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _OURS


def _needs_extra(error: ModuleNotFoundError, module: str) -> int:
    package = (error.name or "").partition(".")[0]
    if package in _OURS:
        raise error
    rest = "serve" if module == "flows.serve_command" else "pipeline"
    extra = _EXTRAS.get(package, rest)
    print(  # noqa: T201
        f"error: this command needs {package}: pip install 'sparsedistill[{extra}]'",
        file=sys.stderr,
    )
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparsedistill",
        description="Distil a slow text classifier into a fast one, and use it.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_pipeline_commands(commands)
    add_model_commands(lambda name, target, summary: _add(commands, name, target, summary))
    _add_store_commands(commands)
    return parser


def _add(commands: Commands, name: str, target: str, summary: str) -> argparse.ArgumentParser:
    """Add a command whose work is ``module:function``."""
    module, _, function = target.partition(":")
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(module=module, function=function)
    return command


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "config", metavar="CONFIG", help="TOML file, such as experiments/sst2.toml"
    )
    command.add_argument(
        "--set", metavar="TABLE.KEY=VALUE", action="append", default=[], dest="overrides",
        help="set one key of the configuration (may be repeated)",
    )  # fmt: skip
    command.add_argument("--data", metavar="DIR", help="in place of the configuration's data root")


def _add_pipeline_commands(commands: Commands) -> None:
    distill = _add(commands, "distill", "flows.run_commands:distill", "run a whole distillation")
    _add_config(distill)
    distill.add_argument("--out", metavar="DIR", help="results go here (runs/<name> by default)")
    distill.add_argument(
        "--no-prefect", action="store_true", help="same stages, in order, in this process"
    )
    plan = _add(
        commands, "plan", "flows.run_commands:plan", "say what a run would do; runs nothing"
    )
    _add_config(plan)
    plan.add_argument("--json", action="store_true", help="print the plan as JSON")
    plan.add_argument(
        "--no-measure", action="store_false", dest="measure",
        help="do not try the teacher on some rows of the corpus",
    )  # fmt: skip
    tune = _add(
        commands, "tune", "flows.tune_command:tune", "find a student's settings by short runs"
    )
    _add_config(tune)
    tune.add_argument("--minutes", type=float, default=10.0, help="for all runs (10)")
    tune.add_argument("--learning-rates", type=float, nargs="+", metavar="RATE")
    tune.add_argument("--batch-sizes", type=int, nargs="+", metavar="TEXTS")
    tune.add_argument("--widths", type=int, nargs="+", metavar="COLUMNS")
    tune.add_argument(
        "--examples",
        type=int,
        default=50_000,
        metavar="TEXTS",
        help="of the shortest runs (50,000)",
    )
    tune.add_argument("--json", metavar="FILE", help="write all runs there")
    report = _add(commands, "report", "flows.run_commands:report", "draw a report page again")
    report.add_argument("summary", metavar="SUMMARY", help="summary.json of a run")
    report.add_argument("--out", metavar="FILE", default="report.html", help="page to write")
    report.add_argument(
        "--markdown", action="store_true", help="print the table of results instead"
    )


def _add_store_commands(commands: Commands) -> None:
    store = commands.add_parser("store", help="look into the artifact store")
    actions = store.add_subparsers(required=True, metavar="ACTION")
    for name, summary, takes in (
        ("ls", "list artifacts", "kind"),
        ("show", "print a manifest", "artifact"),
        ("verify", "read everything and compare checksums", "kind"),
        ("lineage", "show what an artifact was made from", "artifact"),
    ):
        action = _add(actions, name, f"flows.store_commands:{name}", summary)
        action.add_argument("--store", metavar="URL", default=".sparsedistill/store")
        if takes == "kind":
            action.add_argument("kind", metavar="KIND", nargs="?", help="only this kind")
        else:
            action.add_argument("artifact", metavar="KIND/KEY", help="the key may be cut short")
        if name == "verify":
            action.add_argument(
                "--remove", action="store_true", help="remove what is damaged, to be made again"
            )


if __name__ == "__main__":
    sys.exit(main())
