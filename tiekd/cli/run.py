"""`tiekd run` and `tiekd diff`."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tiekd.cli.options import ConfigArgument, JsonOption, SetOption, StoreOption
from tiekd.cli.packaged import find_run_config
from tiekd.errors import PreemptedError, UserError, error_line
from tiekd.store.files import json_text

if TYPE_CHECKING:
    from tiekd.cli.console import RunDisplay
    from tiekd.config import RunConfig
    from tiekd.distill.runtime import LocalRuntime
    from tiekd.store.run_status import Status
    from tiekd.store.run_store import RunRecord, RunStore


def run(
    config: ConfigArgument,
    overrides: SetOption = [],  # noqa: B006 - repeatable in Typer's way
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train and evaluate one run in this process, without Ray, on the first visible GPU or on the CPU.

    Resumes from the run's last checkpoint. A finished run is not computed again. If the config names a teacher by `run`,
    `weights` or `hf`, its training and its maps come first.

    Example: tiekd run debug --set loss.sigma=0.8 --store demo/store
    """
    from tiekd.cli.console import make_console, show_run
    from tiekd.config import load_config, override
    from tiekd.config.documents import parse_overrides
    from tiekd.config.gpus import why_unusable
    from tiekd.store.run_store import RunStore

    changes = parse_overrides(overrides) | ({"execution.store": store} if store else {})
    settings = load_config(find_run_config(config), changes)
    settings = override(settings, {"execution": settings.execution.on_this_machine().model_dump(mode="json")})
    if settings.execution.workers > 1:
        raise UserError(
            f"execution.workers: `tiekd run` is one process, got {settings.execution.workers}; valid: 1, or a study of this "
            "config for `tiekd ablate`, which starts workers"
        )
    run_store = RunStore(settings.execution.store)
    run_store.check_writable()
    if reason := why_unusable():
        make_console(stderr=True).print(f"this machine's GPUs stay idle: {reason}", soft_wrap=True)
    record, status = _compute(settings, run_store, as_json)
    if as_json:
        summary = record.summary() if status.state == "done" else None
        print(json_text({"run_id": record.run_id, "state": status.state, "cause": status.cause, "summary": summary}))
    else:
        show_run(record, status)
    if status.state != "done":
        raise typer.Exit(1)


def _compute(config: "RunConfig", store: "RunStore", quiet: bool) -> tuple["RunRecord", "Status"]:
    """Compute a run, after its teacher's if that has to be trained, unless the store holds it."""
    from tiekd.cli.console import RunDisplay, make_console, show_run
    from tiekd.data.inputs import maps_to_make
    from tiekd.distill.preflight import check_ready, ready_record
    from tiekd.distill.remarks import remarks

    console = make_console(stderr=True, quiet=quiet)
    check_ready(config)
    if maps_to_make(config):
        assert config.teacher is not None
        if config.teacher_run:
            console.print(f"teacher {config.teacher.name}:")
            record, status = _compute(config.teacher_run, store, quiet)
            if status.state != "done":
                return record, status
            if not quiet:
                show_run(record, status)
        from tiekd.deploy.export_maps import make_maps

        make_maps(config)
    record = ready_record(config, store)
    if lines := remarks([config]):
        make_console(stderr=True).print(lines, soft_wrap=True)
    from tiekd.distill.run import execute
    from tiekd.distill.runtime import LocalRuntime
    from tiekd.store.claims import claimed

    with RunDisplay(quiet=quiet) as display, contextlib.ExitStack() as stack:

        def make_runtime() -> LocalRuntime:
            logged = stack.enter_context(_log_events(config, record, display)) if store.local else display
            runtime = LocalRuntime(config.execution, record, logged)
            stack.enter_context(_finish_step_on_sigterm(runtime))
            stack.enter_context(claimed(store, record.run_id))
            return runtime

        try:
            return record, execute(config, record, make_runtime)
        except PreemptedError:
            signal.raise_signal(signal.SIGTERM)
            raise


@contextlib.contextmanager
def _log_events(config: "RunConfig", record: "RunRecord", display: "RunDisplay") -> Iterator[Callable[..., None]]:
    """Yield a display that also writes TensorBoard files into the run's folder: each epoch, and at the end the outcome.

    If that fails, logging stops with a message, and the run continues.
    """
    from tiekd.cli.console import make_console
    from tiekd.config.documents import flatten
    from tiekd.store.event_log import EventLog
    from tiekd.store.run_store import PREDICTIONS

    log: EventLog | None = None
    failed = False

    def attempt(action: Callable[[], None]) -> None:
        nonlocal failed
        if failed:
            return
        try:
            action()
        except Exception as error:
            failed = True
            line = f"logging to TensorBoard stopped, the run continues: {error_line(error)}"
            make_console(stderr=True).print(line, soft_wrap=True)

    def write(row: dict[str, Any]) -> None:
        nonlocal log
        rows = [row]
        if log is None:  # after a resume, the store also has earlier epochs
            log = EventLog(Path(record.store.root) / record.folder / "tensorboard")
            table = record.epochs()
            rows = table.to_pylist() if table else rows
        for each in rows:
            log.write_epoch(each["epoch"], each)

    def show(**progress: Any) -> None:
        display(**progress)
        if progress.get("epoch"):
            attempt(lambda: write(progress["epoch"]))

    def finish() -> None:
        if log and record.status().state == "done":
            settings = flatten({name: section for name, section in config.stated.items() if name != "execution"})
            log.write_outcome(settings, record.metrics(), record.read_file(PREDICTIONS))
        if log:
            log.close()

    try:
        yield show
    finally:
        attempt(finish)


@contextlib.contextmanager
def _finish_step_on_sigterm(runtime: "LocalRuntime") -> Iterator[None]:
    """Let SIGTERM, after which a batch system takes the machine away, write a last state. A second one ends the run at once."""
    handler = signal.getsignal(signal.SIGTERM)

    def handle(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, handler)
        runtime.stop()

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="a config file, or a run's folder, URI or id", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="the other", show_default=False)],
    store: Annotated[str, typer.Option("--store", metavar="STORE", help="run store in which run ids are looked up")] = "store",
    as_json: JsonOption = False,
) -> None:
    """Print the settings in which two runs differ.

    Example: tiekd diff 1f0e9a4c7b2d3856 9c41d07be2a86f53 --store demo/store
    """
    from tiekd.config import diff as differences

    found = differences(_config_of(a, store), _config_of(b, store))
    if as_json:
        print(json_text(found))
    elif not found:
        print("the configs do not differ")
    for path, (left, right) in found.items() if not as_json else ():
        print(f"{path}: {left} -> {right}")


def _config_of(name: str, store: str) -> "RunConfig":
    from tiekd.config import load_config
    from tiekd.store.run_store import RunStore, open_run

    path = Path(name)
    if path.is_dir():
        path = path / "config.yaml"
    if path.suffix in (".yaml", ".yml"):
        return load_config(path)
    config = (open_run(name) or RunStore(store).run(name)).config()
    if config is None:
        raise UserError(f"{name!r}: expected a config file, a run's folder, or the id of a run in store {store}")
    return config
