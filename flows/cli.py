"""The command line. Parsing only: each command's work is imported when it is asked for.

The commands over a finished model need the base install alone: nothing here imports the pipeline.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import contextmanager
from importlib import import_module
from signal import SIG_DFL, SIGTERM, default_int_handler, getsignal, signal
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, TypeAlias

from flows.environment import environment_by_default
from flows.model_arguments import add_model_commands

if TYPE_CHECKING:
    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
    from collections.abc import Callable, Iterator, Sequence

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
    with environment_by_default(OMP_WAIT_POLICY="PASSIVE"), _ended_by_sigterm():
        return _run(options)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the command as Ctrl-C does, with all that it has started."""
    if current_thread() is not main_thread() or getsignal(SIGTERM) is not SIG_DFL:
        yield
        return
    signal(SIGTERM, default_int_handler)
    try:
        yield
    finally:
        signal(SIGTERM, SIG_DFL)


def _run(options: argparse.Namespace) -> int:
    """Run a command and say what went wrong; returns as `main`."""
    try:
        status: int = _command(options.module, options.function)(options)
    except ModuleNotFoundError as error:
        return _needs_extra(error, options.module)
    except KeyboardInterrupt:
        # Only a run keeps what it has done so far.
        goes_on = options.function in ("distill", "run")
        more = "; run the same command again to go on" if goes_on else ""
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
        from tasks.redaction import crossed_out

        print(f"error: {clean(crossed_out(str(error)))}", file=sys.stderr)  # noqa: T201
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
    _add_redistill_commands(commands)
    add_model_commands(lambda name, target, summary: _add(commands, name, target, summary))
    _add_store_commands(commands)
    _add_up_command(commands)
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
    _add_settings(command)


def _add_settings(command: argparse.ArgumentParser) -> None:
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
    _add_log(distill)
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


def _add_log(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--log", metavar="FILE", help="append the log of the run there, a JSON object a line"
    )


def _add_redistill_commands(commands: Commands) -> None:
    again = _add(
        commands, "redistill", "flows.redistill_commands:run",
        "distil again what has changed, and make the new model the current one if it is not worse",
    )  # fmt: skip
    _add_config(again)
    again.add_argument("--out", metavar="DIR", help="of the current model (runs/<name> by default)")
    again.add_argument(
        "--no-prefect", action="store_true", help="same stages, in order, in this process"
    )
    again.add_argument("--force", action="store_true", help="run although nothing has changed")
    _add_log(again)
    side = _add(
        commands, "compare", "flows.compare_command:run",
        "run several configurations as far as they are not made, and put them side by side",
    )  # fmt: skip
    side.add_argument("configs", metavar="CONFIG", nargs="+", help="TOML files, two or more")
    _add_settings(side)
    side.add_argument("--out", metavar="DIR", default="runs/comparison", help="(runs/comparison)")
    side.add_argument(
        "--no-prefect", action="store_true", help="same stages, in order, in this process"
    )
    for name, summary in (
        ("current", "show which model of a run is the current one, and how it became so"),
        ("promote", "make the model of a finished run the current one"),
        ("rollback", "make the model before the current one current again"),
    ):
        function = "show" if name == "current" else name
        command = _add(commands, name, f"flows.current_commands:{function}", summary)
        command.add_argument("name", metavar="CONFIG|NAME", help="TOML file, or name of the run")
        command.add_argument("--store", metavar="URL", help="in place of the configuration's")
        if name != "current":
            command.add_argument("--out", metavar="DIR", help="deliver the model there")
        if name == "promote":
            command.add_argument(
                "--report", metavar="KEY", help="of the run; the newest of that name if not given"
            )
        if name == "rollback":
            command.add_argument(
                "--to", type=int, metavar="NUMBER", help="the decision to go back to"
            )


def _add_store_commands(commands: Commands) -> None:
    store = commands.add_parser("store", help="look into the artifact store")
    actions = store.add_subparsers(required=True, metavar="ACTION")
    for name, summary, takes in (
        ("ls", "list artifacts", "kind"),
        ("show", "print a manifest", "artifact"),
        ("verify", "read everything, compare checksums, have what is damaged made again", "kind"),
        ("lineage", "show what an artifact was made from", "artifact"),
    ):
        action = _add(actions, name, f"flows.store_commands:{name}", summary)
        action.add_argument("--store", metavar="URL", default=".sparsedistill/store")
        if takes == "kind":
            action.add_argument("kind", metavar="KIND", nargs="?", help="only this kind")
        else:
            action.add_argument("artifact", metavar="KIND/KEY", help="the key may be cut short")
    _add_gc(actions)


def _add_gc(actions: Commands) -> None:
    gc = _add(actions, "gc", "flows.store_commands:gc", "free what no kept run needs")
    gc.add_argument("--store", metavar="URL", default=".sparsedistill/store")
    gc.add_argument("--delete", action="store_true", help="remove it; else only say what it is")
    gc.add_argument(
        "--keep-runs", type=_at_least_one, default=3, metavar="N",
        help="how many finished runs of each name to keep, the latest ones (3)",
    )  # fmt: skip
    gc.add_argument(
        "--older-than", default="1d", metavar="TIME",
        help="keep what is younger: 12h, 1d, 0 (1d)",
    )  # fmt: skip
    gc.add_argument(
        "--unfinished", default="14d", metavar="TIME",
        help="keep for that long what runs that did not end well have made (14d)",
    )  # fmt: skip


def _at_least_one(given: str) -> int:
    try:
        number = int(given)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{given!r}: give a whole number, 1 or more")
    return number


def _add_up_command(commands: Commands) -> None:
    up = _add(
        commands, "up", "flows.up_command:up",
        "start a Prefect server and serve runs of configurations: on demand, on a schedule, and "
        "when a corpus has changed; until Ctrl-C",
    )  # fmt: skip
    up.add_argument("configs", metavar="CONFIG", nargs="+", help="TOML files")
    up.add_argument(
        "--cron", default="0 3 * * 0", metavar="FIELDS",
        help="when to re-distil, in five fields ('0 3 * * 0': Sundays at three)",
    )  # fmt: skip
    up.add_argument("--timezone", default="UTC", metavar="ZONE", help="of --cron (UTC)")
    up.add_argument(
        "--watch", type=float, default=15.0, metavar="MINUTES",
        help="between two looks at a corpus (15)",
    )  # fmt: skip
    up.add_argument(
        "--runs", type=_at_least_one, default=1, metavar="N", help="that compute at a time (1)"
    )
    up.add_argument("--port", type=int, default=4200, help="of a server that is started here")
    up.add_argument(
        "--notify", action="append", default=[], metavar="URL",
        help="webhook that is told of failed runs, or a Prefect block as type/name (may be "
        "repeated; $SPARSEDISTILL_NOTIFY keeps a secret URL out of the list of processes)",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
