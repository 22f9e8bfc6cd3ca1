"""A run from end to end: plan, execute, log, summarise."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.estimate import Estimate, tried
from bench.executors import Executor
from bench.executors.inline import InlineExecutor
from bench.executors.local import LocalExecutor
from bench.executors.slurm import SlurmExecutor, parse_settings
from bench.job import result_of
from bench.plan import Job, MethodSpec, Plan, PlanError, make_plan
from bench.progress import RunProgress, duration
from bench.resources import devices, needs, share_mb
from bench.results import header_lines, print_leaderboard, write_leaderboard
from bench.schedule import longest_first
from bench.store import Store
from bench.tracking import Tracker, default_uri


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for, as the command line and :func:`bench.run` have read it.

    Attributes
    ----------
    title, command
        How the run is called, and how it is asked for again.
    specs, plugins
        What :func:`bench.plan.choose_methods` returns.
    tasks, own
        What :func:`bench.plan.choose_tasks` and :func:`bench.plan.choose_own_tasks` return.
    time_limit, memory_limit
        Minutes and GiB of a job.
    executor, slurm
        ``local``, ``inline`` or ``slurm``, and the settings of the last.
    """

    title: str
    command: str
    specs: Sequence[MethodSpec]
    plugins: Sequence[str]
    tasks: Sequence[str]
    own: Mapping[str, str] | None
    preset: str
    seeds: int | None
    jobs: int | None
    gpus: int | None
    out: Path
    time_limit: float
    memory_limit: float | None
    executor: str
    slurm: str
    mlflow_uri: str | None

    def __post_init__(self) -> None:
        """Refuse options that do not go together.

        Raises
        ------
        bench.plan.PlanError
            It says which.
        """
        to_slurm = self.executor == "slurm"
        if self.slurm and not to_slurm:
            raise PlanError("--slurm needs --executor slurm")
        if (self.jobs or self.gpus) and to_slurm:
            raise PlanError("--jobs and --gpus are of this machine; on SLURM: --slurm array_parallelism=…,gpus=…")
        if self.gpus and self.executor == "inline":
            raise PlanError("--gpus needs --executor local: inline jobs all run in this process")
        parse_settings(self.slurm)

    @property
    def n_workers(self) -> int:
        """How many jobs run at a time."""
        if self.executor == "slurm":
            return int(parse_settings(self.slurm)["array_parallelism"])
        return self.jobs or len(os.sched_getaffinity(0))

    @property
    def uri(self) -> str:
        """MLflow's tracking address."""
        return self.mlflow_uri or default_uri(self.out)

    def plan(self, index: dict[str, Any]) -> Plan:
        """Return the plan; what is learnt of tasks is added to ``index``, as by :func:`bench.plan.make_plan`."""
        return make_plan(self.specs, self.tasks, self.preset, self.seeds, self.plugins, index, self.own)

    def executor_for(self, sizes: Mapping[str, float], estimate: Callable[[], Estimate], console: Console) -> Executor:
        """Return where jobs run.

        Parameters
        ----------
        sizes
            Million values of each task's data.
        estimate
            Returns that of the time that jobs take; called for SLURM alone, as it reads all results.
        console
            Where SLURM's answers go.
        """
        limit_mb = self.memory_limit * 1024 if self.memory_limit else None
        if self.executor == "inline":
            return InlineExecutor()
        if self.executor == "slurm":
            seconds = estimate().seconds
            return SlurmExecutor(
                parse_settings(self.slurm),
                lambda job: needs(job, sizes[job.task], seconds(job), limit_mb),
                self.time_limit,
                lambda line: console.print(Text(line), soft_wrap=True),
            )
        n_workers = self.n_workers
        return LocalExecutor(n_workers, self.time_limit * 60, limit_mb or share_mb(n_workers), devices(self.gpus))


@dataclass
class Outcome:
    """How a run ended: statuses of all its jobs, and what could not be logged."""

    counts: Counter[str] = field(default_factory=Counter)
    tracking_error: str = ""

    @property
    def ok(self) -> bool:
        """Whether no job failed."""
        return not (set(self.counts) - {"ok", "skipped"})


@dataclass(frozen=True)
class Done:
    """What became of a request; a dry run has no outcome."""

    plan: Plan
    store: Store
    uri: str
    outcome: Outcome | None


def carry_out(request: Request, console: Console, dry_run: bool = False) -> Done:
    """Plan what is asked for and run it; in a dry run only say the plan.

    Raises
    ------
    bench.plan.PlanError, bench.store.StoreError, bench.executors.ExecutorError, tasks.datasets.DataError
        It cannot be done as it is asked for; nothing has been run.
    """
    store = Store(request.out)
    with store.lock():
        index = store.index()
        plan = request.plan(index)
        store.write_index(index)
        say_data(plan, request.own, console)

        def estimate() -> Estimate:
            return Estimate(store.gather().rows, plan.sizes, tried(store.out))

        if dry_run:
            todo = [job for job in plan.jobs if not job.skip and store.finished(job.id) is None]
            say_plan(plan, todo, estimate(), request.n_workers, console)
            return Done(plan, store, request.uri, None)
        executor = request.executor_for(plan.sizes, estimate, console)
        return execute_request(request, plan, store, executor, console)


def execute_request(request: Request, plan: Plan, store: Store, executor: Executor, console: Console) -> Done:
    """Execute the plan of a request, under the title and at the MLflow address that the request gives."""
    tracker = Tracker(request.uri, store, plan.invocation, request.title, request.command)
    outcome = execute(plan, store, executor, tracker, request.n_workers, console, request.command)
    return Done(plan, store, request.uri, outcome)


def execute(
    plan: Plan, store: Store, executor: Executor, tracker: Tracker, n_workers: int, console: Console, command: str
) -> Outcome:
    """Run the jobs of a plan that have no result yet, log all of them, and write table and leaderboard."""
    store.write_plan(plan.jobs, {"invocation": plan.invocation, "name": tracker.name, "command": command})
    outcome = Outcome()
    todo: list[Job] = []
    for job in plan.jobs:
        result = store.finished(job.id)
        if result is None and job.skip:
            result = result_of(job, "skipped", job.skip)
            store.write(result)
        if result is None:
            todo.append(job)
        else:
            outcome.counts[result["status"]] += 1
            tracker.log(result)
    gathered = store.gather()
    estimate = Estimate(gathered.rows, plan.sizes, tried(store.out))
    say_plan(plan, todo, estimate, n_workers, console)

    def on_done(job: Job, result: dict[str, Any]) -> None:
        outcome.counts[result["status"]] += 1
        tracker.log(result)
        progress.done(job, result)

    progress = RunProgress(todo, n_workers, estimate, console)
    status = "KILLED"
    try:
        if todo:
            with Interruptible(), progress:
                executor.run(longest_first(todo, estimate.costs(todo)), store, progress.start, on_done)
        status = "FINISHED" if outcome.ok else "FAILED"
    finally:
        if todo:
            gathered = store.gather()
        header = header_lines(command) + [f"Not run: {task}: {reason}" for task, reason in plan.absent.items()]
        board, files = write_leaderboard([gathered], store.out, header)
        tracker.finish(
            status, [store.parquet, *files], {"absent": "; ".join(f"{k}: {v}" for k, v in plan.absent.items())}
        )
        outcome.tracking_error = tracker.error
    print_leaderboard(board, console)
    return outcome


def say_data(plan: Plan, own: Mapping[str, str] | None, console: Console) -> None:
    """Print what X was taken for, what tasks say of their data, and how many genes are used."""
    how = " (--n-genes)" if own else ""
    for line in (*plan.notes, *(f"{task}: {selection}{how}" for task, selection in plan.selections.items())):
        console.print(Text(line), soft_wrap=True)


def say_plan(plan: Plan, todo: Sequence[Job], estimate: Estimate, n_workers: int, console: Console) -> None:
    """Print the cross, what is skipped and why, and an estimate of time."""
    table = Table("task", "methods", "references", "units", "seeds", "jobs", "to run", box=None, pad_edge=False)
    by_task: dict[str, list[Job]] = {}
    for job in plan.jobs:
        by_task.setdefault(job.task, []).append(job)
    left = Counter(job.task for job in todo)
    for task, jobs in by_task.items():
        run = [job for job in jobs if not job.skip]
        table.add_row(
            Text(task),
            str(len({job.method for job in run if job.role == "method"})),
            str(len({job.method for job in run if job.role == "reference"})),
            str(len({job.unit for job in run})),
            str(len({job.seed for job in run})),
            str(len(run)),
            str(left[task]),
        )
    console.print(table)
    skips: dict[str, list[str]] = {}
    for job in plan.jobs:
        if job.skip:
            skips.setdefault(job.skip, []).append(job.task)
    lines = [f"{reason} ({', '.join(tasks)})" for reason, tasks in skips.items()]
    for line in [*lines, *(f"{task}: {reason}" for task, reason in plan.absent.items())]:
        console.print(Text(f"skipped  {line}"), style="yellow", soft_wrap=True)
    if todo:
        seconds, basis = estimate.total(todo, n_workers)
        console.print(f"about {duration(seconds)} with {n_workers} workers ({basis})", highlight=False)
    else:
        console.print("nothing to run: every job has its result", highlight=False)


class Interruptible:
    """Let SIGTERM end a run as Ctrl-C does: the running jobs are ended and the state is kept.

    Signals come to the main thread alone: a run in another one goes on until its process ends.
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
