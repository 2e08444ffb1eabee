"""The `tiekd` command: the method's verbs, and those that other packages add through the entry points `tiekd.cli`."""

import signal
import sys
from importlib.metadata import entry_points

import typer

from tiekd.cli import convert, data, evaluate, export, measure, predict, run, teacher
from tiekd.errors import ClusterError, ExportError, StoreError, SupersededError, UserError

USER_MISTAKE, FAILURE, INTERRUPTED, TERMINATED = 2, 1, 130, 143


def build_app() -> typer.Typer:
    """Every verb."""
    app = typer.Typer(
        help="Distributed hyperparameter and ablation studies of TIE-KD.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        rich_markup_mode=None,
    )
    app.command()(run.run)
    app.command()(run.diff)
    app.command()(evaluate.evaluate)
    app.command()(predict.predict)
    app.command()(export.export)
    app.command()(convert.convert)
    app.command()(measure.measure)
    app.add_typer(teacher.app, name="teacher")
    app.add_typer(data.app, name="data")
    for entry in sorted(entry_points(group="tiekd.commands"), key=lambda entry: entry.name):
        app.command(entry.name)(entry.load())
    return app


def main() -> None:
    """Run the command. Exit code 0: done; 2: the user's mistake, told in one line; 1: a failure of the work itself; 130 or
    143: ended by Ctrl-C or by SIGTERM, which batch systems send before they take a machine away.
    """
    terminated: list[int] = []

    def terminate(signum: int, frame: object) -> None:
        terminated.append(signum)
        raise KeyboardInterrupt  # of any other exception Ray makes exit code 1

    signal.signal(signal.SIGTERM, terminate)
    try:
        build_app()()
    except UserError as error:
        sys.exit(_say(error, USER_MISTAKE))
    except (StoreError, ClusterError, ExportError, SupersededError) as error:
        sys.exit(_say(error, FAILURE))
    except SystemExit as end:
        if end.code != INTERRUPTED:  # which Typer makes of KeyboardInterrupt
            raise
        word, code = ("terminated", TERMINATED) if terminated else ("interrupted", INTERRUPTED)
        sys.exit(_say(f"{word}; the same command goes on from the last checkpoint", code))


def _say(message: object, code: int) -> int:
    print(f"tiekd: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
