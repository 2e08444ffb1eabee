"""A launch as the words of its command: the study's record in the store keeps them, so that it can be made again."""

from pathlib import Path

from tiekd.store.run_store import RunStore

Argv = list[str]


def build_argv(verb: str, path: Path, **options: object) -> Argv:
    """`tiekd verb path` with its options by their names; those that were not given (None, False, no values) are left out."""
    found = ["tiekd", verb, str(path)]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is True:
                found.append(flag)
            elif each is not None and each is not False:
                found += [flag, str(each)]
    return found


def launch_commands(store: RunStore, study: str, command: Argv) -> list[Argv]:
    """The commands that launched a study so far, and this one; each once, the latest last."""
    before = (store.read_study(study) or {}).get("commands", [])
    return [*(known for known in before if known != command), command]
