"""What the networks of runs cost, where `tiekd measure` has measured it."""

from collections.abc import Iterable
from dataclasses import asdict

import pandas as pd

from tiekd.deploy.profile_records import read_costs
from tiekd.store.run_store import RunStore

TYPES = {
    "network": "string",
    "name": "string",
    "device": "string",
    "parameters": "Int64",
    "macs": "Int64",
    "milliseconds": "float64",
    "milliseconds_low": "float64",
    "milliseconds_high": "float64",
    "peak_bytes": "Int64",
}


def read_network_costs(store: RunStore, networks: Iterable[str]) -> pd.DataFrame:
    """A row per network and device on which it was measured; TYPES are the columns."""
    rows = [asdict(cost) for cost in read_costs(store, networks)]
    return pd.DataFrame(rows, columns=list(TYPES)).astype(TYPES)


def costs_on_one_device(costs: pd.DataFrame) -> pd.DataFrame:
    """Costs by network, on the device on which most networks were measured: milliseconds of two devices do not compare."""
    devices = costs["device"].value_counts()
    return costs.loc[costs["device"] == (devices.index[0] if len(devices) else "")].set_index("network")
