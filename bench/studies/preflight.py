"""Every method on every task once, in minutes: what would fail after hours fails now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.jobs.execute import estimate_of, executor_for, say_data
from bench.jobs.runner import run_jobs
from bench.keep.status import duration
from bench.keep.store import Store
from bench.options import Options
from bench.plan import make_plan
from bench.plan.cost import PREFLIGHT, Estimate
from bench.records import WHOLE, MethodSpec, Plan, Result, Status
from methods import METHODS

#: Its data are of this preset. Real data have one size only: whether they fit into memory is found with all of them.
PRESET = "smoke"
#: Minutes that a job of a preflight may take, unless the user says otherwise.
MINUTES = 10.0


@dataclass(frozen=True)
class Flown:
    """The outcome of a preflight.

    Attributes
    ----------
    plan, results
        The jobs that were tried, and how each of them ended.
    n_left, seconds, basis
        How many jobs the run itself has left, how long they may take, and how well that is known.
    """

    plan: Plan
    results: Sequence[Result]
    n_left: int
    seconds: float
    basis: str

    @property
    def failures(self) -> list[Result]:
        """The results of jobs that failed."""
        return [result for result in self.results if not result.status.final]


def preflight(options: Options, console: Console) -> Flown:
    """Try each method of a request on each of its tasks, in ``preflight`` of the out directory.

    Raises
    ------
    bench.records.PlanError, bench.keep.store.StoreError, tasks.datasets.DataError
        The request cannot be carried out.
    """
    options = replace(options, resources={"minutes": MINUTES, **options.resources})
    methods, plugins, tasks, own = options.chosen
    whole, store = Store(options.out), Store(options.out / PREFLIGHT)
    with store.lock():
        index = store.index()
        plan = first_jobs(make_plan(shortened(methods), tasks, PRESET, 1, plugins, index, own))
        to_come = options.plan(index)
        store.write_index(index)
        say_data(plan, own, console)
        executor = executor_for(options, plan.sizes, lambda: estimate_of(store, plan, options.n_workers), console)
        results = run_jobs(plan.jobs, store, executor, lambda: Estimate(store.gather().rows, plan.sizes), console)
        store.gather()
    left = [job for job in to_come.jobs if not job.skip and whole.finished(job.id) is None]
    seconds, basis = estimate_of(whole, to_come, options.n_workers).total(left, options.n_workers)
    return Flown(plan, list(results.values()), len(left), seconds, basis)


def shortened(specs: Sequence[MethodSpec]) -> list[MethodSpec]:
    """Return methods without the user's changes to keys that the smoke preset sets, such as the number of epochs."""
    return [replace(spec, changes=_without(spec.changes, METHODS[spec.name].presets.get(PRESET, {}))) for spec in specs]


def first_jobs(plan: Plan) -> Plan:
    """Return a plan with the first unit of each task, seed 0, and the skipped jobs."""
    first: dict[str, str] = {}
    for job in plan.jobs:
        if job.unit != WHOLE:
            first.setdefault(job.task, job.unit)
    once = [job for job in plan.jobs if job.unit in (WHOLE, first.get(job.task)) and job.seed == 0]
    return replace(plan, jobs=tuple(job.alone() for job in once))


def say(flown: Flown, n_workers: int, console: Console) -> None:
    """Print what would fail or be skipped, and why, a line each, and how long the run itself may take."""
    for result in flown.failures:
        job, reason = result.job, (result.reason.splitlines() or [""])[0]
        _line(console, result.status, f"{job.method} · {job.task} (job {job.id}): {reason}", "red")
    skipped: dict[tuple[str, str], list[str]] = {}
    for result in flown.results:
        if result.status == Status.SKIPPED:
            skipped.setdefault((result.job.method, result.reason), []).append(result.job.task)
    for (method, reason), tasks in skipped.items():
        _line(console, "skipped", f"{method} · {', '.join(tasks)}: {reason}", "yellow")
    for task, reason in flown.plan.absent.items():
        _line(console, "absent", f"{task}: {reason}", "yellow")
    passed = sum(result.status == Status.OK for result in flown.results)
    _line(console, "ok", f"{passed} of {len(flown.results)} crosses of method and task", "")
    time = f"about {duration(flown.seconds)}, {n_workers} jobs at a time ({flown.basis})"
    console.print(Text(f"the run itself: {flown.n_left} jobs, {time}"), soft_wrap=True)


def _line(console: Console, status: str, text: str, style: str) -> None:
    console.print(Text(f"{status:<13}  {text}"), style=style, soft_wrap=True)


def _without(changes: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if key not in keys}
