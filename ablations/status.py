"""Where a store's runs stand."""

from collections import Counter, defaultdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from tiekd.display import make_console
from tiekd.store import RunStore


def read_status(store: RunStore) -> dict[str, Any]:
    """Runs by state, the runs behind each cause, and device-hours."""
    states: Counter[str] = Counter()
    causes: dict[str, list[str]] = defaultdict(list)
    seconds = 0.0
    for record in store.runs():
        status = record.status()
        states[status.state] += 1
        if status.cause:
            causes[f"{status.state}: {status.cause}"].append(record.run_id)
        seconds += status.device_seconds
    return {
        "store": store.uri,
        "runs": sum(states.values()),
        "states": dict(states),
        "causes": dict(causes),
        "device_hours": seconds / 3600,
        "studies": store.studies(),
    }


def show_status(found: dict[str, Any]) -> None:
    """Print what `read_status` found."""
    console = make_console()
    states = ", ".join(f"{count} {state}" for state, count in sorted(found["states"].items()))
    console.print(f"{found['runs']} runs: {states}; {found['device_hours']:.2f} device-hours", highlight=False)
    if found["studies"]:
        console.print(f"studies: {', '.join(found['studies'])}", highlight=False)
    if found["causes"]:
        table = Table("runs", "cause", "first run", box=None, pad_edge=False)
        for cause, runs in sorted(found["causes"].items(), key=lambda item: -len(item[1])):
            table.add_row(str(len(runs)), escape(cause), runs[0])
        console.print(table)
