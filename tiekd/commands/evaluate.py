"""`tiekd evaluate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tiekd.commands.run import JsonOption, SetOption


def evaluate(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS", help="student.safetensors, or a run's folder", show_default=False)
    ],
    data: Annotated[Path | None, typer.Option(help="root of the data set [default: the run's]")] = None,
    protocol: Annotated[str | None, typer.Option(help="evaluation protocol [default: the run's]")] = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Score a trained student on the test frames of a data set.

    Example: tiekd evaluate demo/store/runs/1f0e9a4c7b2d3856 --protocol none
    """

    from tiekd.checkpoint import load_student
    from tiekd.config import override
    from tiekd.data import open_frames
    from tiekd.display import make_console, show_metrics
    from tiekd.documents import parse_overrides
    from tiekd.evaluate import evaluate as evaluate_student
    from tiekd.metrics import mean_metrics
    from tiekd.runtime import choose_device

    student, config = load_student(weights / "student.safetensors" if weights.is_dir() else weights)
    changes = parse_overrides(overrides)
    if data is not None:
        changes["data.root"] = str(data)
    if protocol is not None:
        changes["evaluation.protocol"] = protocol
    config = override(config, changes)
    source = open_frames(config.data, "test")
    source.check()
    device = choose_device(config.execution.device)
    rows = evaluate_student(student.to(device), config, source, device, range(len(source)))
    measured = sum(row["n_valid"] > 0 for row in rows)
    if as_json:
        print(json.dumps({"protocol": config.evaluation.protocol, "n_images": measured, "metrics": mean_metrics(rows)}))
        return
    show_metrics(make_console(), mean_metrics(rows), config.evaluation.protocol, measured)
    if measured < len(rows):
        print(f"{len(rows) - measured} of {len(rows)} images have no valid ground truth and are not averaged")
