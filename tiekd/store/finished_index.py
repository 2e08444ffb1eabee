"""An index of the finished runs of an object store: their outcomes are listed, a thousand per request, and not read one by one.

    STORE/index/<run_id>/<outcome>   an empty object, whose name holds the run's status and metrics

Only what cannot change is in the index: a finished run is not computed again, unless somebody deletes its folder, and then it
leaves the index when it starts. A run that is not in the index, as one of an earlier version, is read from its folder.
"""

import base64
import binascii
import json
import zlib
from dataclasses import asdict
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from tiekd.store.documents import Metrics
from tiekd.store.run_status import Status

INDEX = "index"


class Outcome(NamedTuple):
    """How a run has ended; it has metrics if it is done."""

    status: Status
    metrics: Metrics


_OUTCOME = TypeAdapter(tuple[Status, Metrics])


def entry(run_id: str, outcome: Outcome) -> str:
    """Return the name of a run's object in the index."""
    packed = zlib.compress(json.dumps([asdict(outcome.status), outcome.metrics]).encode(), 9)
    return f"{INDEX}/{run_id}/{base64.urlsafe_b64encode(packed).decode()}"


def read_entry(name: str) -> tuple[str, Outcome] | None:
    """Return the run id and the outcome of an object in the index; None if it is neither complete nor of this version."""
    *_, run_id, packed = name.split("/")
    try:
        return run_id, Outcome(*_OUTCOME.validate_json(zlib.decompress(base64.urlsafe_b64decode(packed))))
    except (ValueError, ValidationError, binascii.Error, zlib.error):
        return None
