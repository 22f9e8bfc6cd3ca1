"""Jobs in this very process, one after another: for a debugger."""

from __future__ import annotations

from collections.abc import Sequence

from bench.executors import OnDone, OnStart
from bench.job import run_jobs
from bench.plan import Job
from bench.schedule import passes
from bench.store import Store


class InlineExecutor:
    """No process, no limits: a breakpoint in a method is hit, and a crash takes everything along."""

    def run(self, jobs: Sequence[Job], store: Store, on_start: OnStart, on_done: OnDone) -> None:
        """Run all jobs here."""
        for together in passes(jobs):
            for job in together:
                on_start(job)
            for job, result in zip(together, run_jobs(together, store.fits), strict=True):
                store.write(result)
                on_done(job, result)
