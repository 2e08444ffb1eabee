"""A report that renews itself while its stores change, served on this machine."""

import gc
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from http.server import ThreadingHTTPServer

from tiekd.errors import StoreError, UserError
from tiekd.store.run_store import RunRecord, RunStore

PAGE = "report.html"
WATCH_S = 2.0  # between looks at the stores, and between the questions of an open page
PAUSES = 4  # a pause is at least as many times as long as the CPU time before it, so that a sweep keeps its CPUs
HEADERS = {"X-Renewed": f"{WATCH_S:g}"}  # tells report.js to follow the page


def serve_renewed(server: ThreadingHTTPServer, stores: Sequence[RunStore], renew: Callable[[], object], seen: str) -> None:
    """Serve until KeyboardInterrupt, and call `renew` after each change since `seen`, the digest of the stores (see `digest`).

    What prevents one renewal is printed, and the page stays as it was.
    """
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        while True:
            started = time.process_time()
            try:
                if (found := digest(stores)) != seen:
                    seen = found
                    renew()
                    gc.unfreeze()
                    gc.collect()
            except (UserError, StoreError) as error:
                print(f"not renewed: {error}", flush=True)
            time.sleep(max(WATCH_S, PAUSES * (time.process_time() - started)))
    finally:
        server.shutdown()
        thread.join()


def digest(stores: Sequence[RunStore]) -> str:
    """Digest the studies, and the runs with their states: it changes when a run begins or ends."""
    found = hashlib.sha256()
    for store in stores:
        for name in store.studies():
            for file in ("study.json", "findings.json"):
                found.update(store.read_bytes(f"studies/{name}/{file}") or b"")
        records = list(store.runs())
        for record, status in zip(records, store.stream_each(RunRecord.status, records), strict=True):
            found.update(f"{record.run_id} {status.state} {status.cause}\n".encode())
    return found.hexdigest()
