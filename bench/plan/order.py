"""The order of jobs: draw by draw, the longest first, and jobs that need the same fit not at the same time."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence

from bench.records import Job


def stacks(jobs: Iterable[Job]) -> list[list[Job]]:
    """Return jobs that one process runs in one list, in order of the first; any other job in a list alone.

    One process runs jobs whose fits are stacked, and a method on all units of a draw, inner ones too, which share data
    and often a fit.
    """
    together: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        together.setdefault(_together(job), []).append(job)
    return list(together.values())


def _together(job: Job) -> tuple[object, ...]:
    if job.draw is None and job.n_stacked == 1:
        return (job.id,)
    unit = job.stack_units or (job.unit if job.draw is None else job.draw)
    config = json.dumps(job.config, sort_keys=True)
    return job.task, job.preset, job.role, job.method, config, unit, job.stack or job.seed


def in_order(jobs: Iterable[Job], seconds: Mapping[str, float]) -> list[Job]:
    """Return jobs draw by draw; of a draw the references first, then by the seconds of their stacks, the longest first.

    So a run that is broken off has whole draws, with what methods are compared with. Equal ones stay in their order.
    """

    def place(stack: list[Job]) -> tuple[int, bool, float]:
        first = stack[0]
        return first.draw or 0, first.role != "reference", -sum(seconds[job.id] for job in stack)

    return [job for stack in sorted(stacks(jobs), key=place) for job in stack]


def makespan(seconds: Iterable[float], n_workers: int) -> float:
    """Return when the last of some workers ends, each of which takes the next piece of work when it is free."""
    ends = [0.0] * n_workers
    for duration in seconds:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


class Turns:
    """Says which of the waiting stacks is to start, so that a worker seldom waits for a fit that another makes.

    Units of a task, and tasks on one data set, may need the same fit, such as a fit to all cells.
    Only the data can tell. Stacks that may have the same method, configuration, draw of a data set, and seed. The
    first of them starts alone; its fits are then on disk.
    """

    def __init__(self) -> None:
        self._made: set[str] = set()

    def next(self, waiting: Sequence[list[Job]], running: Iterable[list[Job]]) -> list[Job] | None:
        """Return the first waiting stack whose fits nobody is making, else the first; None where none waits."""
        making = {_fit(jobs[0]) for jobs in running} - self._made
        return next((jobs for jobs in waiting if _fit(jobs[0]) not in making), waiting[0] if waiting else None)

    def done(self, jobs: list[Job]) -> None:
        """Note that a stack has ended."""
        self._made.add(_fit(jobs[0]))


def _fit(job: Job) -> str:
    if job.role == "reference":
        return job.id
    return json.dumps([job.data_digest, job.draw, job.name, job.config, job.stack or job.seed], sort_keys=True)
