"""The costs of networks, as far as `tiekd measure` has measured them."""

from collections.abc import Iterable
from dataclasses import asdict

import pandas as pd

from tiekd.deploy.profile_records import read_costs
from tiekd.store.run_store import RunStore

_TYPES = {
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
    """Read the measurements: one row for each network and device."""
    rows = [asdict(cost) for cost in read_costs(store, networks)]
    return pd.DataFrame(rows, columns=list(_TYPES)).astype(_TYPES)


def costs_on_one_device(costs: pd.DataFrame) -> pd.DataFrame:
    """The costs by network, on the device with the most measured networks: times on different devices cannot be compared."""
    devices = costs["device"].value_counts()
    return costs.loc[costs["device"] == (devices.index[0] if len(devices) else "")].set_index("network")
