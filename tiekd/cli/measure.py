"""`tiekd measure`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiekd.cli.options import JsonOption
from tiekd.errors import UserError, error_line, unknown
from tiekd.store.files import json_text

if TYPE_CHECKING:
    from tiekd.deploy.profile_records import Cost, Network, Runtime
    from tiekd.store.run_store import RunStore


def measure(
    store: Annotated[str, typer.Argument(metavar="STORE", help="folder or URI of the run store", show_default=False)],
    study: Annotated[str | None, typer.Option(help="only the networks of this study")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option(min=1, max=4096, help="threads on a CPU")] = 1,
    runtime: Annotated[str, typer.Option(help="pytorch, or on the CPU onnxruntime or onnxruntime-int8")] = "pytorch",
    as_json: JsonOption = False,
) -> None:
    """Measure the networks of a store: parameters, MACs, milliseconds per image, peak memory.

    Each distinct network is measured once, in a process of its own, and not again if the store holds its numbers for this
    device. `tiekd report` shows them. Keep the machine otherwise idle while it measures.

    Example: tiekd measure demo/store
    """
    from tiekd.deploy.profile_records import RUNTIMES, store_networks

    if device not in ("auto", "cpu", "cuda"):
        raise UserError(unknown("--device", device, ("auto", "cpu", "cuda")))
    if runtime not in RUNTIMES:
        raise UserError(unknown("--runtime", runtime, RUNTIMES))
    if runtime != "pytorch":
        if device == "cuda":
            raise UserError(f"--device cuda: --runtime {runtime} is measured on the CPU")
        from tiekd.deploy.onnx import require_onnx

        require_onnx()
        device = "cpu"
    run_store = _open(store)
    networks, maps_only = store_networks(run_store, study)
    if not networks:
        raise UserError(f"store {store}: no run or study with a network to measure")
    costs, failed = _measured(run_store, networks, device, threads, runtime)
    _print(networks, costs, failed, maps_only, as_json)
    if failed:
        raise typer.Exit(1)


def _open(store: str) -> "RunStore":
    from tiekd.store.run_store import RunStore

    opened = RunStore(store)
    if opened.local and not Path(opened.root).is_dir():
        raise UserError(f"store {store}: no such folder")
    opened.check_writable()
    return opened


def _measured(
    store: "RunStore", networks: "dict[str, Network]", device: str, threads: int, runtime: "Runtime"
) -> "tuple[dict[str, Cost], dict[str, str]]":
    """Measure each network that the store has no cost of; returns the costs and the causes of failures, by network."""
    from tiekd.data.progress import track
    from tiekd.deploy.profile import device_name, measure_in_subprocess
    from tiekd.deploy.profile_records import read_cost, write_cost
    from tiekd.distill.runtime import choose_device
    from tiekd.models.registry import check_network

    place = device_name(choose_device(device), threads, runtime)
    found = {identity: read_cost(store, place, identity) for identity in networks}
    failed = {}
    for identity in track([identity for identity, known in found.items() if known is None], "networks measured"):
        config = networks[identity].config
        try:
            check_network(config)
            cost = measure_in_subprocess(config, device, threads, runtime)
        except Exception as error:  # of any kind: the other networks are still measured
            failed[identity] = error_line(error)
            continue
        write_cost(store, cost)
        found[identity] = cost
    return {identity: cost for identity, cost in found.items() if cost is not None}, failed


def _print(
    networks: "dict[str, Network]", costs: "dict[str, Cost]", failed: dict[str, str], maps_only: list[str], as_json: bool
) -> None:
    if as_json:
        rows = [{"roles": networks[identity].roles, **asdict(cost)} for identity, cost in costs.items()]
        lost = [{"network": i, "name": networks[i].name, "cause": cause} for i, cause in failed.items()]
        print(json_text({"networks": rows, "failed": lost, "maps_only": maps_only}))
        return
    from rich.table import Table

    from tiekd.cli.console import make_console
    from tiekd.data.image_io import format_size

    table = Table(box=None, pad_edge=False)
    for title in ("network", "used as", "size", "params [M]", "MACs [G]", "ms/image", "quartiles", "memory [MB]"):
        table.add_column(title, justify="left" if title in ("network", "used as") else "right")
    for identity, network in networks.items():
        about = (network.name, ", ".join(network.roles))
        if identity in failed:
            table.add_row(*about, "failed")
            continue
        cost = costs[identity]
        spread = f"{cost.milliseconds_low:.4g} to {cost.milliseconds_high:.4g}"
        memory = "–" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e6:.0f}"
        numbers = (f"{cost.parameters / 1e6:.2f}", f"{cost.macs / 1e9:.3g}", f"{cost.milliseconds:.4g}", spread, memory)
        table.add_row(*about, format_size((cost.size[0], cost.size[1])), *numbers)
    for teacher in maps_only:
        table.add_row("maps only", f"teacher {teacher}")
    console = make_console()
    console.print(table)
    for cost in list(costs.values())[:1]:
        console.print(f"one image at a time on {cost.device}")
    for identity, cause in failed.items():
        console.print(f"{networks[identity].name}: {cause}", soft_wrap=True)
