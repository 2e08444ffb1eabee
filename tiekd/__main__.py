"""The `tiekd` command: this package's verbs, and those that other packages add (tiekd/cli/packaged.py)."""

import errno
import logging
import math
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tiekd.cli import config, convert, data, evaluate, export, listing, measure, predict, run, teacher
from tiekd.cli.console import safe_streams
from tiekd.cli.packaged import plugins
from tiekd.errors import (
    ClusterError,
    DivergedError,
    ExportError,
    StoreError,
    SupersededError,
    UserError,
    os_error_reason,
    printable,
    shorten,
)

USER_MISTAKE, FAILURE, INTERRUPTED, TERMINATED = 2, 1, 130, 143
MAX_TEXT, MAX_MESSAGE = 4096, 2000  # characters
# What the system says of a path that the user gave, if no check before did.
_PATH_ERRORS = "ENAMETOOLONG ENOENT ENOTDIR EISDIR EACCES EPERM EEXIST ENOTEMPTY EINVAL ELOOP EROFS ENXIO"
PATH_ERRORS = {getattr(errno, name) for name in _PATH_ERRORS.split()}
# What the system says when it has no room, or a device fails.
SYSTEM_ERRORS = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "ESTALE", "EMFILE", "ENFILE")}
GROUPS = {
    "Train": ("run", "ablate", "search", "status", "diff"),
    "Read results": ("report", "bundle", "power", "view", "evaluate", "predict", "measure"),
    "Data and teachers": ("data", "teacher", "dpm"),
    "Weights": ("export", "convert"),
    "Look up": ("list", "config"),
}
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # click's own, of whichever click Typer brings


class StderrHandler(logging.Handler):
    """Writes to what stderr is at the time, which progress bars replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(printable(self.format(record)), file=sys.stderr)


class GroupedCommands(TyperGroup):
    """A group whose help lists its commands under the headings of GROUPS."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        left = dict(self.commands)
        for heading, names in [*GROUPS.items(), ("More", tuple(left))]:
            rows = [(name, left.pop(name).get_short_help_str(100)) for name in names if name in left]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


@cache
def build_command() -> Any:
    """Build the command `tiekd` with all its verbs, once per process: it takes 50 ms, and the tests run it 2,500 times."""
    app = typer.Typer(
        cls=GroupedCommands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for verb in (run.run, run.diff, evaluate.evaluate, predict.predict, export.export, convert.convert, measure.measure):
        app.command()(verb)
    app.command("list")(listing.list_names)
    for name, group in (("teacher", teacher.app), ("data", data.app), ("config", config.app)):
        app.add_typer(group, name=name)
    for name, verb in plugins("tiekd.commands"):
        app.command(name)(verb)
    command = typer.main.get_command(app)
    check_values(command)
    return command


def check_values(command: Any) -> None:
    """Make a command and its subcommands refuse values that no option or argument can use, and options that are given twice."""
    for subcommand in getattr(command, "commands", {}).values():
        check_values(subcommand)
    command.make_parser = partial(_make_parser, command.make_parser)
    for parameter in command.params:
        parameter.process_value = partial(_process_value, parameter, parameter.process_value)


def _make_parser(make: Callable[[Any], Any], context: Any) -> Any:
    """Make the parser of a command. It refuses an option that is given twice, of which click would take the last value."""
    parser = make(context)
    parse = parser.parse_args

    def parse_args(args: list[str]) -> Any:
        values, rest, order = parse(args)
        options = (each for each in order if each.param_type_name == "option" and not each.multiple)
        given = Counter(each for each in options if not each.is_eager)
        if repeated := next((each for each, times in given.items() if times > 1), None):
            raise UserError(
                f"{'/'.join([*repeated.opts, *repeated.secondary_opts])}: expected once, given {given[repeated]} times"
            )
        return values, rest, order

    parser.parse_args = parse_args
    return parser


def _process_value(parameter: Any, process: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    """Convert a parameter's text. Refuses an empty text, NUL, an over-long text, and numbers that are not finite."""
    source = context.get_parameter_source(parameter.name)
    given = source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
    name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar or parameter.name.upper()
    for text in value if isinstance(value, list | tuple) else [value]:
        if given and isinstance(text, str):
            if len(text) > MAX_TEXT:
                raise UserError(f"{name}: expected at most {MAX_TEXT} characters, got {len(text)}")
            if not text.strip() or "\0" in text:
                raise UserError(f"{name}: expected a value, got {text!r}")
    result = process(context, value)
    if given and isinstance(result, float) and not math.isfinite(result):
        raise UserError(f"{name}: expected a finite number, got {value}")
    if any(isinstance(each, Path) for each in (result if isinstance(result, list) else [result])) and "://" in str(value):
        raise UserError(f"{name}: expected a file or folder of this machine, got the URI {shorten(str(value))}")
    return result


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tiekd {version('tiekd')}")
        raise typer.Exit


def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="log each step to stderr")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="log errors only")] = False,
) -> None:
    """Ablation studies and hyperparameter searches of TIE-KD, knowledge distillation for monocular depth estimation."""
    logger = logging.getLogger("tiekd")
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        handler = StderrHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)


@safe_streams()
def main() -> None:
    """Run the command and exit.

    Exit code 0: done. 2: the user's mistake, in one line. 1: a failure of the work itself. 130: interrupted by Ctrl-C.
    143: terminated by SIGTERM, which batch systems send before they take a machine away.
    """
    terminated: list[int] = []

    def terminate(signum: int, frame: object) -> None:
        terminated.append(signum)
        raise KeyboardInterrupt  # of any other exception Ray makes exit code 1

    signal.signal(signal.SIGTERM, terminate)
    try:
        code = build_command()(prog_name="tiekd", standalone_mode=False) or 0
    except UsageError as error:
        sys.exit(_usage(error))
    except UserError as error:
        sys.exit(_say(error, USER_MISTAKE))
    except OSError as error:
        known = error.errno in SYSTEM_ERRORS or (error.filename is not None and error.errno in PATH_ERRORS)
        if not known:
            raise
        place = "" if error.filename is None else f"{shorten(str(error.filename))}: "
        sys.exit(_say(f"{place}{os_error_reason(error)}", FAILURE if error.errno in SYSTEM_ERRORS else USER_MISTAKE))
    except (StoreError, ClusterError, DivergedError, ExportError, SupersededError) as error:
        sys.exit(_say(error, FAILURE))
    if code == INTERRUPTED:  # which Typer makes of KeyboardInterrupt
        word, code = ("terminated", TERMINATED) if terminated else ("interrupted", INTERRUPTED)
        _say(f"{word}; rerun the same command to resume from the last checkpoint", code)
    sys.exit(code)


def _usage(error: Any) -> int:
    """Report a command line that cannot be understood; without any arguments, that is the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return USER_MISTAKE
    message = error.format_message().rstrip(".")
    if setting := next((word for word in sys.argv[1:] if re.match(r"[a-z_]+(\.[a-z_0-9]+)+=", word) and word in message), None):
        message += f"; did you mean --set {setting}?"
    path = error.ctx.command_path if error.ctx else "tiekd"
    return _say(f"{message} (see `{path} --help`)", USER_MISTAKE)


def _say(message: object, code: int) -> int:
    print(f"tiekd: {shorten(str(message), MAX_MESSAGE)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
