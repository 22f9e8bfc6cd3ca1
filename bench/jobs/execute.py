"""A run from end to end: plan, run, log, summarise."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.jobs.executors import Executor
from bench.jobs.executors.inline import InlineExecutor
from bench.jobs.executors.local import LocalExecutor
from bench.jobs.executors.slurm import SlurmExecutor
from bench.jobs.runner import run_jobs
from bench.keep.boards import header_lines, print_leaderboard, write_leaderboard
from bench.keep.status import duration
from bench.keep.store import Gathered, Store
from bench.keep.tracking import Tracker, default_uri
from bench.options import Options
from bench.plan.cost import Estimate, tried
from bench.plan.known import known_seconds
from bench.plan.resources import device_of_fits, devices, needs, share_mb, uses_gpu
from bench.records import Job, Plan, Result, Status
from methods import METHODS
from tasks.command_line import command

#: Tasks without data of which each is told what to do.
MOST_EXPLAINED = 2
#: Draws that a run of ``--minutes`` makes at most; the next ones are for development.
MOST_DRAWS = 1000


@dataclass
class Outcome:
    """The end of a run: the number of jobs by status, and the error that ended logging."""

    counts: Counter[str] = field(default_factory=Counter)
    tracking_error: str = ""

    @property
    def ok(self) -> bool:
        """Whether no job failed."""
        return all(Status(status).final for status in self.counts)


@dataclass(frozen=True)
class Done:
    """The end of a request; a dry run has no outcome."""

    plan: Plan
    store: Store
    uri: str
    outcome: Outcome | None


def carry_out(options: Options, console: Console, dry_run: bool = False) -> Done:
    """Plan the request and run it; in a dry run only print the plan.

    Raises
    ------
    bench.records.PlanError, bench.keep.store.StoreError, bench.jobs.executors.ExecutorError, tasks.datasets.DataError
        The request cannot be carried out; nothing has been run.
    """
    own = options.chosen.own  # first: what cannot be chosen makes no directory
    if not dry_run:
        for spec in options.chosen.methods:
            METHODS[spec.name].provide(lambda line: console.print(Text(line), soft_wrap=True))
    store = Store(options.out)
    with store.lock():
        index = store.index()
        plan = options.plan(index)
        store.write_index(index)
        say_data(plan, own, console)
        if dry_run:
            todo = [job for job in plan.jobs if not job.skip and store.finished(job.id) is None]
            say_plan(plan, todo, estimate_of(store, plan, options.n_workers), options, console)
            return Done(plan, store, uri_of(options), None)
        executor = executor_for(options, plan.sizes, lambda: estimate_of(store, plan, options.n_workers), console)
        if options.spend:
            plan = draw_by_draw(options, store, executor, index, console)
        return execute(plan, store, executor, options, console)


def draw_by_draw(options: Options, store: Store, executor: Executor, index: dict[str, Any], console: Console) -> Plan:
    """Run whole draws of all simulated tasks, one after another, until another one would take longer than is left.

    Returns
    -------
    Plan
        The plan of the draws that were run; all its jobs have results.
    """
    end, took = time.monotonic() + 60 * options.spend if options.spend else 0.0, 0.0
    draws = list(options.draws or range(MOST_DRAWS))
    for number in range(1, len(draws) + 1):
        clock = time.monotonic()
        if number > 1 and clock + took > end:
            return options.plan(index, draws[: number - 1])
        plan = options.plan(index, draws[:number])
        note_plan(store, plan, options)
        run_jobs(plan.jobs, store, executor, partial(estimate_of, store, plan, options.n_workers), console)
        took = time.monotonic() - clock
        said = f"draw {draws[number - 1]} ran {duration(took)}; {duration(max(end - time.monotonic(), 0.0))} left"
        console.print(said, highlight=False)
    return options.plan(index, draws)


def uri_of(options: Options) -> str:
    """Return MLflow's tracking address."""
    return options.mlflow_uri or default_uri(options.out)


def estimate_of(store: Store, plan: Plan, n_workers: int, gathered: Gathered | None = None) -> Estimate:
    """Return the estimate of the time that the jobs of a plan take, from the results that are there."""
    rows = (gathered or store.gather()).rows
    return Estimate(rows, plan.sizes, tried(store.out), known_seconds(n_workers))


def executor_for(
    options: Options, sizes: Mapping[str, float], estimate: Callable[[], Estimate], console: Console
) -> Executor:
    """Return where jobs run.

    Parameters
    ----------
    options
        The request.
    sizes
        Million values of each task's data.
    estimate
        Returns the estimate of the time that jobs take; called for SLURM alone, as it reads all results.
    console
        Console for SLURM's answers.
    """
    if options.executor == "inline":
        return InlineExecutor()
    if options.executor == "slurm":
        seconds = estimate().seconds
        return SlurmExecutor(
            {**options.slurm, "gpus": options.gpus or 0},
            lambda job: needs(job, sizes[job.task], seconds(job), options.memory_mb),
            options.minutes,
            lambda line: console.print(Text(line), soft_wrap=True),
        )
    limit_mb = options.memory_mb or share_mb(options.n_workers)
    return LocalExecutor(options.n_workers, options.minutes * 60, limit_mb, devices(options.gpus))


def execute(
    plan: Plan, store: Store, executor: Executor, options: Options, console: Console, title: str | None = None
) -> Done:
    """Run the jobs of a plan that have no result yet, log all results, and write rows and leaderboard.

    Parameters
    ----------
    title
        Name of the run in MLflow; else that of the options.
    """
    uri = uri_of(options)
    tracker = Tracker(uri, store, plan.invocation, title or options.title, options.command)
    note_plan(store, plan, options, title)
    outcome = Outcome()
    gathered: list[Gathered] = []  # one element, the current rows; empty where they may have changed

    def estimate() -> Estimate:
        gathered.append(store.gather())
        return estimate_of(store, plan, options.n_workers, gathered[0])

    def on_done(result: Result) -> None:
        outcome.counts[result.status] += 1
        tracker.log(result)

    def on_plan(todo: Sequence[Job], estimate: Estimate) -> None:
        say_plan(plan, todo, estimate, options, console)
        if todo:
            gathered.clear()

    status = "KILLED"
    try:
        run_jobs(plan.jobs, store, executor, estimate, console, on_done, on_plan)
        status = "FINISHED" if outcome.ok else "FAILED"
    finally:
        absent = [f"{task}: {reason}" for task, reason in plan.absent.items()]
        header = [*header_lines(options.command), *(f"Not run: {line}" for line in absent)]
        board, files = write_leaderboard(gathered or [store.gather()], store.out, header)
        tracker.finish(status, [store.parquet, *files], {"absent": "; ".join(absent)}, board)
        outcome.tracking_error = tracker.error
    print_leaderboard(board, console)
    return Done(plan, store, uri, outcome)


def note_plan(store: Store, plan: Plan, options: Options, title: str | None = None) -> None:
    """Store which jobs are planned, and the name of their run in MLflow."""
    run = {"invocation": plan.invocation, "name": title or options.title, "command": options.command}
    store.write_plan(plan.jobs, run)


def say_data(plan: Plan, own: Mapping[str, str] | None, console: Console) -> None:
    """Print what X was taken for, the tasks' notes on their data, and how many genes are used."""
    how = " (--n-genes)" if own else ""
    for line in (*plan.notes, *(f"{task}: {selection}{how}" for task, selection in plan.selections.items())):
        console.print(Text(line), soft_wrap=True)


def _skips(jobs: Iterable[Job]) -> list[str]:
    """Return why jobs are skipped: a sentence for all methods of which one thing is said, and its tasks."""
    methods: dict[str, dict[str, None]] = {}
    tasks: dict[str, dict[str, None]] = {}
    for job in jobs:
        if job.skip:
            said = job.skip.removeprefix(job.name)
            methods.setdefault(said, {})[job.name if said != job.skip else ""] = None
            tasks.setdefault(said, {})[job.task] = None
    return [f"{', '.join(methods[said])}{said} ({', '.join(tasks[said])})" for said in methods]


def _absences(absent: Mapping[str, str]) -> list[str]:
    """Return which tasks lack their data, and what to do; of many tasks in one sentence."""
    if len(absent) <= MOST_EXPLAINED:
        return [f"{task}: {reason}" for task, reason in absent.items()]
    how = f"`{command('data', 'fetch', 'NAME')}` fetches what `{command('data', 'list')}` calls absent"
    return [f"no data here for {', '.join(absent)}; {how}"]


def say_plan(plan: Plan, todo: Sequence[Job], estimate: Estimate, options: Options, console: Console) -> None:
    """Print the cross, the skipped jobs with reasons, the device of fits, and an estimate of time."""
    table = Table("task", "methods", "references", "units", "seeds", "jobs", "to run", box=None, pad_edge=False)
    by_task: dict[str, list[Job]] = {}
    for job in plan.jobs:
        by_task.setdefault(job.task, []).append(job)
    left = Counter(job.task for job in todo)
    for task, jobs in by_task.items():
        run = [job for job in jobs if not job.skip]
        methods = {role: len({job.method for job in run if job.role == role}) for role in ("method", "reference")}
        table.add_row(
            Text(task),
            str(methods["method"]),
            str(methods["reference"]),
            str(len({job.unit for job in run})),
            str(len({job.seed for job in run})),
            str(len(run)),
            str(left[task]),
        )
    console.print(table)
    for line in [*_skips(plan.jobs), *_absences(plan.absent)]:
        console.print(Text(f"skipped  {line}"), style="yellow", soft_wrap=True)
    if todo:
        if options.executor != "slurm" and any(uses_gpu(job) for job in todo):
            console.print(Text(device_of_fits(options.gpus)), soft_wrap=True)
        seconds, basis = estimate.total(todo, options.n_workers)
        console.print(f"about {duration(seconds)}, {options.n_workers} jobs at a time ({basis})", highlight=False)
    else:
        console.print("nothing to run: every job has its result", highlight=False)
