"""Bad values for every option and argument of every command: one line and exit code 2, no traceback, nothing half-written.

The cases are generated from the tree of commands, so a new option is tried without a new test. `BASES` has for every command
words with which it ends quickly: a finished run, a dry run, a store whose runs have just begun. pytest's timeout
ends a case that hangs.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.made_store import BASE, fill, write_run

from tiekd.__main__ import build_command
from tiekd.config import build
from tiekd.data.synthetic import synthesize
from tiekd.store.run_status import Status
from tiekd.store.run_store import RunStore

pytestmark = pytest.mark.slow

TEXTS = {
    "empty": "",
    "blank": " ",
    "missing": "nowhere/none",
    "folder": "folder",
    "below a file": "file/below",
    "binary": "binary.bin",
    "binary YAML": "binary.yaml",
    "NUL": "a\0b",
    "too long a name": "n" * 300,
    "over-long": "x/" * 4000,
    "proc": "/proc/none/below",
    "device": "/dev/null",
    "negative": "-1",
    "huge": "9" * 40,
    "NaN": "nan",
    "unknown scheme": "foo://host/path",
    "no URI": "http://[",
    "option-like": "a=b=c",
    "setting": "optim.epochs=true",
}
NUMBERS = {"empty": "", "text": "many", "negative": "-1", "zero": "0", "huge": "9" * 40, "NaN": "nan", "infinite": "inf"}
ALWAYS_REFUSED = ("empty", "blank", "NUL", "over-long"), ("empty", "text", "NaN", "infinite")  # texts, numbers
ONE_FRAME = " --set data.train_frames=1 --set data.test_frames=1"
# Files that the words of BASES name; {store} and others are made once.
BASES = {
    "run": "{config} --store {store}",
    "diff": "{config} {config}",
    "evaluate": "{weights} --set data.test_frames=1",
    "predict": "{weights} {image} --out out",
    "export": "{weights} --out out --format hub",
    "convert": "binary.bin --out out.safetensors",
    "measure": "{begun} --study none",
    "list": "",
    "ablate": "{study} --dry-run",
    "search": "{search}",
    "status": "{store}",
    "dpm": "{config} --out out",
    "power": "none --store {begun} --difference 0.01",
    "report": "{begun} --out out",
    "bundle": "demo --store {filled} --out out.zip",
    "view": "{store} --out out --images 1",
    "teacher export": "{config} --out out --weights {weights}/student.safetensors" + ONE_FRAME,
    "teacher import": "{config} {maps} --out out" + ONE_FRAME,
    "data check": "{kitti}",
    "data pack": "{config} --out out" + ONE_FRAME,
    "data synthesize": "out --train-frames 1 --test-frames 1 --layout nyu",
    "config show": "{config}",
    "config schema": "run",
}


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command without subcommands, by its words."""
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


COMMANDS = dict(commands(build_command()))
PARAMETERS = [
    pytest.param(name, parameter, id=f"{name} {parameter.opts[0]}")
    for name, command in COMMANDS.items()
    for parameter in command.params
    if not (parameter.is_eager or getattr(parameter, "is_flag", False))
]


def bad_values(parameter: Any) -> dict[str, str]:
    return NUMBERS if parameter.bare_type() in ("int", "float") else TEXTS


N_CASES = sum(len(bad_values(each.values[1])) + 1 for each in PARAMETERS)  # and one duplicate of each


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiekd, tiny, as_yaml, maps) -> dict[str, Any]:
    """The files that BASES name; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    document = tiny | {"loss": {"name": "si"}, "optim": {"epochs": 1, "batch_size": 4}}
    made = {"store": folder / "store", "maps": maps, "config": as_yaml(folder / "run.yaml", document)}
    made["study"] = as_yaml(folder / "study.yaml", {"name": "demo", "base": document})
    # Its last check fails, so that no accepted value starts Ray.
    lacking = document | {"teacher": {"name": "perfect", "maps": str(folder / "no-maps")}}
    made["search"] = as_yaml(
        folder / "search.yaml", {"name": "demo", "base": lacking, "search": {"space": "loss.yaml", "trials": 1}}
    )
    assert tiekd("run", made["config"], "--store", made["store"]).code == 0
    (run,) = RunStore(made["store"]).runs()
    made["weights"] = made["store"] / run.folder
    made["begun"] = folder / "begun"
    write_run(RunStore(made["begun"]), build(BASE), Status("running"), 0)
    made["filled"] = folder / "filled"
    fill(RunStore(made["filled"]), [{}], 1, {"name": "demo"})
    made["image"] = folder / "image.png"
    Image.new("RGB", (96, 64)).save(made["image"])
    made["kitti"] = folder / "kitti"
    synthesize(made["kitti"], "kitti", train_frames=1, test_frames=1)
    return made


def words_of(name: str, parameter: Any, value: str, made: dict[str, Any]) -> list[str]:
    """The words of a command with one value replaced, or added."""
    words = BASES[name].format(**made).split()
    if parameter.param_type_name == "option":
        option = max(parameter.opts, key=len)
        if option in words and not parameter.multiple:
            position = words.index(option)
            del words[position : position + 2]
        return [*name.split(), *words, f"{option}={value}"]
    arguments = [each for each in COMMANDS[name].params if each.param_type_name == "argument"]
    options = words[next((i for i, word in enumerate(words) if word.startswith("--")), len(words)) :]
    given = words[: len(words) - len(options)] + [""] * len(arguments)
    given[arguments.index(parameter)] = value
    return [*name.split(), *options, "--", *given[: max(len(words) - len(options), arguments.index(parameter) + 1)]]


def extent(*folders: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_size) for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_every_command_has_a_base():
    assert set(BASES) == set(COMMANDS)
    assert N_CASES > 900


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_bad_values(tiekd, made, in_folder, monkeypatch, name, parameter):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (in_folder / "folder").mkdir()
    (in_folder / "folder" / "other.txt").touch()
    (in_folder / "file").write_text("text")
    for file in ("binary.bin", "binary.yaml"):
        (in_folder / file).write_bytes(os.urandom(256))
    values = bad_values(parameter)
    cases = {kind: words_of(name, parameter, value, made) for kind, value in values.items()}
    good = words_of(name, parameter, values.get("missing", "0"), made)
    cases["duplicate"] = [*good, *(good[-1:] if parameter.param_type_name == "option" else [])]
    once = parameter.param_type_name == "option" and not parameter.multiple
    wrong = []
    for kind, words in cases.items():
        before = extent(in_folder, made["store"].parent)
        try:
            outcome = tiekd(*words)
        except Exception as error:
            wrong.append(f"{kind}: traceback: {type(error).__name__}: {str(error)[:200]}")
            continue
        if outcome.code not in (0, 1, 2) or "Traceback" in outcome.err:
            wrong.append(f"{kind}: {outcome}"[:300])
        if kind == "duplicate" and once and not outcome.err.endswith(": expected once, given 2 times\n"):
            wrong.append(f"{kind}: {outcome}"[:300])
        if outcome.code == 2:
            if after := extent(in_folder, made["store"].parent) ^ before:
                wrong.append(f"{kind}: half-written {sorted(after)[:3]}")
            if outcome.err.count("\n") != 1 and name != "data check":  # which lists all problems
                wrong.append(f"{kind}: more than one line: {outcome.err[:300]}")
        elif kind in ALWAYS_REFUSED[values is NUMBERS]:
            wrong.append(f"{kind}: accepted: {outcome}"[:300])
    assert wrong == []
