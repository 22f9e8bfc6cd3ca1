"""The one loop over jobs, for runs, preflights and tuning."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console

from bench.jobs.executors import Executor
from bench.jobs.job import result_of
from bench.jobs.progress import RunProgress
from bench.keep.store import Store
from bench.plan.cost import Estimate
from bench.plan.order import in_order
from bench.records import Job, Result, Status


def run_jobs(
    jobs: Iterable[Job],
    store: Store,
    executor: Executor,
    estimate: Callable[[], Estimate],
    console: Console,
    on_done: Callable[[Result], None] = lambda result: None,
    on_plan: Callable[[Sequence[Job], Estimate], None] = lambda todo, estimate: None,
) -> dict[str, Result]:
    """Run the jobs that have no result yet, the longest first, and return the results of all by id.

    Parameters
    ----------
    jobs
        A job that is in it twice is run once; a job with a reason to skip it gets a result that says so.
    store
        Where results are; the caller holds its lock.
    executor
        Where jobs run.
    estimate
        Returns the estimate of the time that jobs take, once the skipped ones are stored.
    console
        Where progress is shown.
    on_done
        Called once with each result: first those that are there already, then each new one when it is on disk.
    on_plan
        Called before the first job starts, with the jobs to run and the estimate.
    """
    results: dict[str, Result] = {}
    todo: list[Job] = []
    for job in {job.id: job for job in jobs}.values():
        result = store.finished(job.id)
        if result is None and job.skip:
            result = result_of(job, Status.SKIPPED, job.skip)
            store.write(result)
        if result is None:
            todo.append(job)
        else:
            results[job.id] = result
            on_done(result)
    estimated = estimate()
    on_plan(todo, estimated)
    progress = RunProgress(todo, executor.n_workers, estimated, store, console)

    def done(result: Result) -> None:
        results[result.job.id] = result
        on_done(result)
        progress.done(result)

    if todo:
        with Interruptible(), progress:
            executor.run(in_order(todo, estimated.costs(todo)), store, progress.start, done)
    return results


class Interruptible:
    """Let SIGTERM end a run as Ctrl-C does: the running jobs are ended and the state is kept.

    Signals come to the main thread alone: a run in another thread goes on until its process ends.
    """

    def __enter__(self) -> None:
        self.main = threading.current_thread() is threading.main_thread()
        if self.main:
            self.previous = signal.signal(signal.SIGTERM, self._interrupt)

    def __exit__(self, *error: object) -> None:
        if self.main:
            signal.signal(signal.SIGTERM, self.previous)

    @staticmethod
    def _interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt
