"""Which launch computes which run, so that several launches can share a store and compute each run once.

    STORE/launches/<id>.json           a launch that goes on; written again every BEAT_S, deleted at its end
    STORE/claims/<key>.<number>.json   the launch that computes <key>, a run id; of several numbers, the highest counts

A claim is created under the next number, which only one launch can do, and deleted when its run has ended. The claim of a
launch that has ended counts no more. That of a launch which is silent for longer than STALE_S does not either: its last beat is
compared with that of the launch that asks, by the clock of the storage, since the clocks of machines differ. On the machine
where its process ran, a launch has ended when its process is gone.
"""

import contextlib
import os
import socket
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tiekd.errors import StoreError
from tiekd.store.run_store import RunStore

BEAT_S = 30.0
STALE_S = 300.0  # also longer than network disks keep old times of files
LAUNCHES, CLAIMS = "launches", "claims"


@dataclass(frozen=True)
class Launch:
    """A command that computes runs, in the process `pid` on `host`."""

    id: str
    host: str
    machine: str  # where the process's number means something
    pid: int
    started: str  # when the process has started, since numbers of processes come again
    study: str = ""
    command: tuple[str, ...] = ()
    takes_over: tuple[str, ...] = ()  # claims that do not count for it, by file name

    @classmethod
    def current(cls, study: str = "", command: Sequence[str] = (), takes_over: Sequence[str] = ()) -> "Launch":
        """A launch by this process."""
        return cls(
            uuid.uuid4().hex,
            socket.gethostname(),
            _machine(),
            os.getpid(),
            _start_of(os.getpid()),
            study,
            tuple(command),
            tuple(takes_over),
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def killed(self) -> bool:
        """Whether its process ran on this machine and is gone."""
        if self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return _start_of(self.pid) not in (self.started, "")


def _machine() -> str:
    """Identify what gives a process its number: the machine, since when it runs, and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode()}"


def _start_of(pid: int) -> str:
    """Return when a process has started, in ticks since the machine has; "ended" for one whose parent has not looked yet.

    "" if that cannot be read: the process is gone, is hidden from this user, or the system is not Linux.
    """
    try:
        state, *values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if state in "ZX" else values[18]


_LAUNCH = TypeAdapter(Launch)


def _content(launch: Launch) -> bytes:
    return _LAUNCH.dump_json(launch, exclude={"takes_over"})


def _launch(content: bytes | None) -> Launch | None:
    try:
        return _LAUNCH.validate_json(content or b"")
    except ValidationError:
        return None


class Claims:
    """The claims in a store, as a launch sees them. All methods raise StoreError if the store cannot be read or written."""

    def __init__(self, store: RunStore, launch: Launch):
        self.launch = launch
        self._store = store
        self._known: dict[tuple[str, float], Launch] = {}  # other launches, by file and its time

    def take(self, key: str) -> Launch | None:
        """Claim a key for this launch, unless another one that goes on has claimed it. Returns that one, or None."""
        found = self._claims().get(key, {})
        if holder := self._holder(found):
            return None if holder.id == self.launch.id else holder
        mine = f"{key}.{max(found, default=0) + 1:06d}.json"
        created = self._store.create(f"{CLAIMS}/{mine}", _content(self.launch))
        # Another one may have claimed another number, if what it or this launch has found was deleted meanwhile.
        others = self._claims().get(key, {})
        names = [name for name, _ in others.values() if name != mine or not created]
        holder = next((each for name in names if (each := self._read(name)) and self._counts(name, each)), None)
        if holder and created:
            self._store.delete(f"{CLAIMS}/{mine}")
        if holder:
            return holder
        return None if created else self.take(key)  # the other one has ended

    def holds(self, key: str) -> bool:
        """Whether this launch has claimed a key, and no other one since."""
        holder = self._holder(self._claims().get(key, {}))
        return holder is not None and holder.id == self.launch.id

    def release(self, key: str) -> None:
        """Delete the claim of this launch, and those before it; do nothing if another launch has taken it over."""
        found = self._claims().get(key, {})
        holder = self._holder(found)
        if holder and holder.id == self.launch.id:
            for _, (name, _) in sorted(found.items()):  # its own last: until then, it counts
                self._store.delete(f"{CLAIMS}/{name}")

    def of_others(self, keys: Collection[str]) -> set[str]:
        """Return those of some keys that other launches compute now."""
        claims, ongoing = self._claims(), self.ongoing()
        holders = {key: self._holder(found, ongoing) for key, found in claims.items() if key in keys}
        return {key for key, holder in holders.items() if holder and holder.id != self.launch.id}

    def ongoing(self) -> set[str]:
        """Return the ids of the launches that go on, by their beats."""
        beats = {name.removesuffix(".json"): time for name, time in self._store.list_files(LAUNCHES).items()}
        now = beats.get(self.launch.id, 0.0)  # by the storage's clock, and at most BEAT_S ago
        return {launch for launch, time in beats.items() if now - time <= STALE_S}

    def _claims(self) -> dict[str, dict[int, tuple[str, float]]]:
        """Return file names and times of all claims, by key and number."""
        found: dict[str, dict[int, tuple[str, float]]] = {}
        for name, time in self._store.list_files(CLAIMS).items():
            key, _, number = name.removesuffix(".json").rpartition(".")
            if number.isdecimal():
                found.setdefault(key, {})[int(number)] = name, time
        return found

    def _holder(self, found: dict[int, tuple[str, float]], ongoing: set[str] | None = None) -> Launch | None:
        """Return the launch whose claim of a key counts. With `ongoing`, for many keys, a claim is read once."""
        if not found:
            return None
        name, time = found[max(found)]
        launch = None if ongoing is None else self._known.get((name, time))
        if launch is None and (launch := self._read(name)) and launch.id != self.launch.id:
            self._known[name, time] = launch
        return launch if launch and self._counts(name, launch, ongoing) else None

    def _read(self, name: str) -> Launch | None:
        """Read a claim; None if it has been deleted, or is damaged, as by a killed process."""
        return _launch(self._store.read_bytes(f"{CLAIMS}/{name}"))

    def _counts(self, name: str, launch: Launch, ongoing: set[str] | None = None) -> bool:
        if launch.id == self.launch.id:
            return True
        if name in self.launch.takes_over or launch.killed:
            return False
        return launch.id in (self.ongoing() if ongoing is None else ongoing)


@contextlib.contextmanager
def open_launch(store: RunStore, study: str = "", command: Sequence[str] = (), take_over: bool = False) -> Iterator[Claims]:
    """Announce a launch of this process in the store until the end of the block.

    take_over: what others compute at its start is computed by this launch; they stop at the end of their epochs.
    """
    launch = Launch.current(study, command, tuple(store.list_files(CLAIMS)) if take_over else ())
    name, ended = f"{LAUNCHES}/{launch.id}.json", threading.Event()
    store.write_bytes(name, _content(launch))

    def beat() -> None:
        while not ended.wait(BEAT_S):
            with contextlib.suppress(StoreError):  # if it does not pass, the runs will meet it too
                store.write_bytes(name, _content(launch))

    claims, thread = Claims(store, launch), threading.Thread(target=beat, daemon=True)
    for silent in store.list_files(LAUNCHES).keys() - {f"{each}.json" for each in claims.ongoing()}:
        store.delete(f"{LAUNCHES}/{silent}")
    thread.start()
    try:
        yield claims
    finally:
        ended.set()
        thread.join(BEAT_S)
        with contextlib.suppress(StoreError):
            store.delete(name)


@contextlib.contextmanager
def claimed(store: RunStore, run_id: str) -> Iterator[None]:
    """Claim a run for this process until the end of the block, also from a launch that computes it now."""
    with open_launch(store, take_over=True) as claims:
        claims.take(run_id)
        try:
            yield
        finally:
            with contextlib.suppress(StoreError):
                claims.release(run_id)


def announced(store: RunStore, study: str) -> list[Launch]:
    """Return the launches of a study that go on, and those that were killed lately."""
    found = (_launch(store.read_bytes(f"{LAUNCHES}/{name}")) for name in store.list_files(LAUNCHES))
    return [launch for launch in found if launch and launch.study == study]
