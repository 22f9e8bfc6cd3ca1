"""Jobs in this very process, one after another: for a debugger."""

from __future__ import annotations

from collections.abc import Sequence

from bench.jobs.executors import OnDone, OnStart
from bench.jobs.job import run_stack
from bench.keep.store import Store
from bench.plan.order import stacks
from bench.records import Job


class InlineExecutor:
    """No process, no limits: a breakpoint in a method is hit, and a crash takes everything along."""

    n_workers = 1

    def run(self, jobs: Sequence[Job], store: Store, on_start: OnStart, on_done: OnDone) -> None:
        """Run all jobs here."""
        for stack in stacks(jobs):
            for job in stack:
                on_start(job)
            for result in run_stack(stack, store.fits):
                store.write(result)
                on_done(result)
