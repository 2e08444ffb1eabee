"""The command line of a launch. The store keeps it with the study, so that a report can say how to repeat the study."""

from collections.abc import Mapping
from pathlib import Path

import yaml

from tiekd.store.claims import announced
from tiekd.store.run_store import RunStore

Argv = list[str]


def build_argv(verb: str, study: str | Path, **options: object) -> Argv:
    """Return `tiekd VERB STUDY` with its options by name; an option that is None, False or empty is left out.

    A list repeats its option. A mapping repeats it as NAME=VALUE, with the value in YAML.
    """
    argv = ["tiekd", verb, str(study)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            value = [f"{key}={_inline_yaml(each)}" for key, each in value.items()]
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is True:
                argv.append(flag)
            elif each is not None and each is not False:
                argv += [flag, str(each)]
    return argv


def _inline_yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("...\n").strip()


def launch_commands(store: RunStore, study: str, *commands: Argv) -> list[Argv]:
    """Return the commands that have launched a study, or do now, without duplicates; the given ones are the last."""
    # Announced ones first: one that has ended meanwhile has added its command to the record.
    now = [list(launch.command) for launch in announced(store, study) if launch.command]
    recorded = store.read_study(study)
    earlier = recorded.get("commands", []) if recorded else []
    others = {tuple(known): known for known in (*earlier, *now) if known not in commands}
    return [*others.values(), *commands]
