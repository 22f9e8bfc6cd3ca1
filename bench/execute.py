"""A run from end to end: plan, execute, log, summarise."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.cell import result_of
from bench.estimate import Estimate, tried
from bench.executors import Executor
from bench.plan import Cell, Plan
from bench.progress import RunProgress, duration
from bench.results import header_lines, print_leaderboard, write_leaderboard
from bench.schedule import longest_first
from bench.store import Store
from bench.tracking import Tracker


@dataclass
class Outcome:
    """How a run ended: statuses of all its cells, and what could not be logged."""

    counts: Counter[str] = field(default_factory=Counter)
    tracking_error: str = ""

    @property
    def ok(self) -> bool:
        """Whether no cell failed."""
        return not (set(self.counts) - {"ok", "skipped"})


def execute(
    plan: Plan, store: Store, executor: Executor, tracker: Tracker, jobs: int, console: Console, command: str
) -> Outcome:
    """Run the cells of a plan that have no result yet, log all of them, and write table and leaderboard."""
    store.write_plan(plan.cells, {"invocation": plan.invocation, "name": tracker.name, "command": command})
    outcome = Outcome()
    todo: list[Cell] = []
    for cell in plan.cells:
        result = store.finished(cell.id)
        if result is None and cell.skip:
            result = result_of(cell, "skipped", cell.skip)
            store.write(result)
        if result is None:
            todo.append(cell)
        else:
            outcome.counts[result["status"]] += 1
            tracker.log(result)
    gathered = store.gather()
    estimate = Estimate(gathered.rows, plan.sizes, tried(store.out))
    say_plan(plan, todo, estimate, jobs, console)

    def on_done(cell: Cell, result: dict[str, Any]) -> None:
        outcome.counts[result["status"]] += 1
        tracker.log(result)
        progress.done(cell, result)

    progress = RunProgress(todo, jobs, estimate, console)
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


def say_plan(plan: Plan, todo: Sequence[Cell], estimate: Estimate, jobs: int, console: Console) -> None:
    """Print the cross, what is skipped and why, and an estimate of time."""
    table = Table("task", "methods", "controls", "units", "seeds", "cells", "to run", box=None, pad_edge=False)
    by_task: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        by_task.setdefault(cell.task, []).append(cell)
    left = Counter(cell.task for cell in todo)
    for task, cells in by_task.items():
        run = [cell for cell in cells if not cell.skip]
        table.add_row(
            Text(task),
            str(len({cell.method for cell in run if cell.role == "method"})),
            str(len({cell.method for cell in run if cell.role == "control"})),
            str(len({cell.unit for cell in run})),
            str(len({cell.seed for cell in run})),
            str(len(run)),
            str(left[task]),
        )
    console.print(table)
    skips: dict[str, list[str]] = {}
    for cell in plan.cells:
        if cell.skip:
            skips.setdefault(cell.skip, []).append(cell.task)
    lines = [f"{reason} ({', '.join(tasks)})" for reason, tasks in skips.items()]
    for line in [*lines, *(f"{task}: {reason}" for task, reason in plan.absent.items())]:
        console.print(Text(f"skipped  {line}"), style="yellow", soft_wrap=True)
    if todo:
        seconds, basis = estimate.total(todo, jobs)
        console.print(f"about {duration(seconds)} with {jobs} jobs ({basis})", highlight=False)
    else:
        console.print("nothing to run: every cell has its result", highlight=False)


class Interruptible:
    """Let SIGTERM end a run as Ctrl-C does: the running cells are ended and the state is kept."""

    def __enter__(self) -> None:
        self.previous = signal.signal(signal.SIGTERM, self._interrupt)

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self.previous)

    @staticmethod
    def _interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt
