"""The jobs of a launch, and when each may begin: a teacher's run, then its maps, then the runs of its students."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ablations.planning.plan import Plan, PlannedMaps
from tiekd.config import ExecutionConfig


@dataclass(frozen=True)
class Job:
    """A run to compute."""

    key: str  # its run id
    document: dict[str, Any]  # its config
    needs: tuple[str, ...] = ()  # keys of the jobs that have to be done before it
    failed: float = 0.0  # when the failure was recorded that makes it be computed again; a later one is another launch's


@dataclass(frozen=True, kw_only=True)
class MapsJob(Job):
    """A share of a teacher's maps to make; `document` is the config of a run that reads them."""

    share: int
    n_shares: int


def make_jobs(plan: Plan, slots: int, execution: ExecutionConfig) -> list[Job]:
    """Return the jobs of a plan, each after those that it needs; maps are made in as many shares as there are slots.

    All are computed as `execution` says.
    """
    how = {"execution": execution.model_dump(mode="json")}
    shares = {maps.maps_id: _shares(maps, plan, slots, how) for maps in plan.maps_to_make}
    jobs: dict[str, Job] = {}
    for planned in plan.to_compute:
        assert planned.run_id is not None
        makes = shares.get(planned.maps_id or "", [])
        jobs |= {job.key: job for job in makes}
        document, needs = planned.cell.config.document() | how, tuple(job.key for job in makes)
        failed = planned.status.updated if planned.status.state == "failed" else 0.0
        jobs[planned.run_id] = Job(planned.run_id, document, needs, failed)
    return list(jobs.values())


def _shares(maps: PlannedMaps, plan: Plan, slots: int, how: dict[str, Any]) -> list[MapsJob]:
    n_shares = min(max(slots, 1), maps.n_blocks)
    waits_for = [run_id for run_id in [maps.run_id] if run_id in {c.run_id for c in plan.to_compute}]
    return [
        MapsJob(
            key=f"maps/{maps.maps_id}/{share}",
            document=maps.config.document() | how,
            needs=tuple(run_id for run_id in waits_for if run_id),
            share=share,
            n_shares=n_shares,
        )
        for share in range(n_shares)
    ]


class JobQueue:
    """Which job may begin next. A job whose need has failed never begins. Jobs that another launch computes are put aside."""

    def __init__(self, jobs: Sequence[Job]):
        self._waiting = {job.key: job for job in jobs}
        self._unmet = {job.key for job in jobs}  # not done, whether waiting, begun, aside or failed
        self._begun: dict[str, Job] = {}
        self._aside: dict[str, Job] = {}

    @property
    def finished(self) -> bool:
        """Whether each job has ended, or needs one that has failed. One that has begun may still be put aside, and back."""
        return not (self._aside or self._begun or self._next())

    @property
    def aside(self) -> list[Job]:
        """The jobs that another launch computes."""
        return list(self._aside.values())

    def begin(self) -> str | None:
        """Return the key of the next job that may begin now; None if all that are left wait for others."""
        key = self._next()
        if key is not None:
            self._begun[key] = self._waiting.pop(key)
        return key

    def put_aside(self, key: str) -> None:
        """Note that another launch computes a job that has begun."""
        self._aside[key] = self._begun.pop(key)

    def put_back(self, key: str) -> None:
        """Let a job that was put aside begin before all others."""
        self._waiting = {key: self._aside.pop(key)} | self._waiting

    def end(self, key: str, done: bool) -> None:
        """Note that a job has ended, here or in another launch."""
        self._begun.pop(key, None)
        self._aside.pop(key, None)
        if done:
            self._unmet.discard(key)

    def _next(self) -> str | None:
        return next((key for key, job in self._waiting.items() if self._unmet.isdisjoint(job.needs)), None)
