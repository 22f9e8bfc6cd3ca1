"""Where jobs run. An executor takes jobs and reports each one's result, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from bench.keep.store import Store
from bench.records import Job, Result

#: Called when a job starts.
OnStart = Callable[[Job], None]
#: Called with a job's result when it ends, after the result is on disk.
OnDone = Callable[[Result], None]


class ExecutorError(Exception):
    """Jobs cannot be run as was asked; the message says why and what to do."""


class Executor(Protocol):
    """Runs jobs; every job ends with a result on disk, however it ends."""

    #: Jobs at a time.
    n_workers: int

    def run(self, jobs: Sequence[Job], store: Store, on_start: OnStart, on_done: OnDone) -> None:
        """Run all jobs and return when the last has ended."""
