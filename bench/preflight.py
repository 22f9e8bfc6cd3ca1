"""Every method on every task once, in minutes: what would fail after hours fails now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.estimate import Estimate
from bench.execute import Interruptible
from bench.executors import Executor
from bench.job import result_of
from bench.plan import WHOLE, Job, MethodSpec, Plan
from bench.progress import RunProgress
from bench.store import FINISHED, Store
from methods import METHODS

#: Its data are of this preset. Real data have one size only: whether they fit into memory is found with all of them.
PRESET = "smoke"


def shortened(specs: Sequence[MethodSpec]) -> list[MethodSpec]:
    """Return methods without the user's changes to what the smoke preset sets, such as the number of epochs."""
    return [replace(one, changes=_without(one.changes, METHODS[one.name].presets.get(PRESET, {}))) for one in specs]


def first_jobs(plan: Plan) -> Plan:
    """Return a plan with the first unit of each task, seed 0, and what is skipped."""
    first: dict[str, str] = {}
    for job in plan.jobs:
        if job.unit != WHOLE:
            first.setdefault(job.task, job.unit)
    once = [job for job in plan.jobs if job.unit in (WHOLE, first.get(job.task)) and job.seed == 0]
    return replace(plan, jobs=tuple(replace(job, replicas=()) for job in once))


def preflight(plan: Plan, store: Store, executor: Executor, n_workers: int, console: Console) -> list[dict[str, Any]]:
    """Run the jobs of a plan that have no result yet and return the results of all; the caller holds the lock."""
    results: list[dict[str, Any]] = []
    todo: list[Job] = []
    for job in plan.jobs:
        result = result_of(job, "skipped", job.skip) if job.skip else store.finished(job.id)
        if result is None:
            todo.append(job)
        else:
            results.append(result)

    def on_done(job: Job, result: dict[str, Any]) -> None:
        results.append(result)
        progress.done(job, result)

    progress = RunProgress(todo, n_workers, Estimate(store.gather().rows, plan.sizes), console)
    with Interruptible(), progress:
        executor.run(todo, store, progress.start, on_done)
    store.gather()
    return results


def failures(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the results of jobs that failed."""
    return [result for result in results if result["status"] not in FINISHED]


def say(results: Sequence[dict[str, Any]], plan: Plan, console: Console) -> None:
    """Print what would fail or be skipped, and why, a line each."""
    for result in failures(results):
        job, reason = result["job"], (result["reason"].splitlines() or [""])[0]
        _line(console, result["status"], f"{job['method']} · {job['task']} (job {job['id']}): {reason}", "red")
    skipped: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result["status"] == "skipped":
            skipped.setdefault((result["job"]["method"], result["reason"]), []).append(result["job"]["task"])
    for (method, reason), tasks in skipped.items():
        _line(console, "skipped", f"{method} · {', '.join(tasks)}: {reason}", "yellow")
    for task, reason in plan.absent.items():
        _line(console, "absent", f"{task}: {reason}", "yellow")
    passed = sum(result["status"] == "ok" for result in results)
    _line(console, "ok", f"{passed} of {len(results)} crosses of method and task", "")


def _line(console: Console, status: str, text: str, style: str) -> None:
    console.print(Text(f"{status:<13}  {text}"), style=style, soft_wrap=True)


def _without(changes: Any, keys: Any) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if key not in keys}
