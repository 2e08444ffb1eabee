"""`tiekd list`: the names that configs, studies and options accept."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import typer

from tiekd.cli.options import JsonOption
from tiekd.cli.packaged import plugins
from tiekd.errors import UserError, unknown
from tiekd.store.files import json_text

Listing = Callable[[], Mapping[str, str]]


def listings() -> dict[str, Listing]:
    """What can be listed: by kind, a function that returns a description of each name."""
    from tiekd.config.quirks import QUIRKS
    from tiekd.config.specs import ALIGNMENTS, DATASETS, DPMS, LOSSES, PROTOCOLS, STUDENTS, TEACHERS

    specs: dict[str, Mapping[str, Any]] = {
        "datasets": DATASETS,
        "dpms": DPMS,
        "losses": LOSSES,
        "protocols": PROTOCOLS,
        "students": STUDENTS,
        "teachers": TEACHERS,
    }
    own: dict[str, Listing] = {kind: partial(_labels, found) for kind, found in specs.items()}
    own["alignments"] = lambda: ALIGNMENTS
    own["quirks"] = lambda: {name: quirk.released for name, quirk in QUIRKS.items()}
    return own | dict(plugins("tiekd.listings"))


def _labels(specs: Mapping[str, Any]) -> dict[str, str]:
    return {name: spec.label for name, spec in specs.items()}


def list_names(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="e.g. losses, studies; without it, the kinds")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the names that are valid: losses, students, data sets, samplers, studies ...

    Example: tiekd list losses
    """
    kinds = listings()
    if kind and kind not in kinds:
        raise UserError(unknown("kind", kind, kinds))
    found = dict(kinds[kind]()) if kind else {name: f"{len(names())} names" for name, names in sorted(kinds.items())}
    if as_json:
        print(json_text(found))
        return
    width = max(map(len, found), default=0)
    for name, description in found.items():
        print(f"{name:<{width}}  {description}".rstrip())
