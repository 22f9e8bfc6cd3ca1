"""A run from end to end: plan, execute, log, summarise."""

from __future__ import annotations

import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.cell import result_of
from bench.environment import describe
from bench.estimate import Estimate, tried
from bench.executors import Executor
from bench.plan import Cell, Plan
from bench.progress import RunProgress, duration
from bench.schedule import longest_first
from bench.store import Gathered, Store
from bench.tracking import Tracker

if TYPE_CHECKING:
    import pandas as pd

    from leaderboard import Leaderboard


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


def header_lines(command: str) -> list[str]:
    """Return how a leaderboard was made: command, date, commit, machine, versions."""
    environment = describe()
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    dirty = " with uncommitted changes" if environment["dirty"] else ""
    return [
        f"Command: {command}",
        f"Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"Commit: {environment['git_commit'] or 'unknown'}{dirty}",
        f"Machine: {environment['cpu']}, {environment['threads']} thread a cell, Python {environment['python']}",
        f"Versions: {versions}",
    ]


def write_leaderboard(
    gathered: Sequence[Gathered],
    directory: Path,
    header: Sequence[str],
    formats: Sequence[str] = (),
    keep: Callable[[str], bool] = lambda task: True,
) -> tuple[Leaderboard, list[Path]]:
    """Write the leaderboard of the results of out directories.

    Parameters
    ----------
    gathered
        Of a cell that is in several of them the last result counts.
    directory
        Where to.
    header
        Lines about how it was made.
    formats
        Of :data:`leaderboard.FORMATS`; none stands for the usual ones.
    keep
        Whether a task/dataset is to be in it.
    """
    import leaderboard

    rows = _of_all([one.rows for one in gathered]).sort_values("finished", kind="stable", ignore_index=True)
    board = leaderboard.build(rows[rows["task"].map(keep)] if len(rows) else rows)
    header = [*header, *_made_at(board.rows)]
    curves, pictures = _of_all([one.curves for one in gathered]), _of_all([one.pictures for one in gathered])
    return board, leaderboard.write(board, directory, header, formats or leaderboard.DEFAULT_FORMATS, curves, pictures)


def _made_at(rows: pd.DataFrame) -> list[str]:
    """Return which commits the results come from: they may be older than the command that shows them."""
    if rows.empty:
        return []
    cells = rows.drop_duplicates("cell_id")
    names = cells["git_commit"].replace("", "unknown") + cells["dirty"].map(
        {True: " with uncommitted changes", False: ""}
    )
    return ["Cells made at: " + ", ".join(f"{name} ({number})" for name, number in names.value_counts().items())]


def _of_all(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put the rows of several out directories together; of a cell that is in several the last one's."""
    import pandas as pd

    kept: list[pd.DataFrame] = []
    seen: set[str] = set()
    for frame in reversed(frames):
        kept.insert(0, frame[~frame["cell_id"].isin(seen)])
        seen.update(frame["cell_id"])
    return pd.concat(kept)


def print_leaderboard(board: Leaderboard, console: Console) -> None:
    """Print one table a task: score with its interval, difference to the best simple baseline, rank, coverage, cost."""
    for one in board.tasks:
        arrows = ", ".join(f"{name} {'↑' if better == 'higher' else '↓'}" for name, better in one.primary.items())
        table = Table(title=f"{one.task} ({one.preset}): {arrows}", title_justify="left", box=None, pad_edge=False)
        for heading in ("method", "score", "95 % interval", "− N1", "p", "rank", *one.primary, "cells", "fit s", "MB"):
            table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=heading == "method")
        for row in one.frame[one.frame["coverage"] != "skipped"].to_dict("records"):
            table.add_row(
                Text(str(row["method"]), style="italic" if row["role"] == "control" else ""),
                _number(row["score"]),
                _interval(row["low"], row["high"]),
                _number(row["difference"]),
                _number(row["p_holm"]),
                _rank(row),
                *(_number(row[name]) for name in one.primary),
                str(row["coverage"]),
                _number(row["fit_seconds"], 1),
                _number(row["peak_memory_mb"], 0),
            )
        console.print(table)
        console.print()
    for note in board.notes:
        console.print(Text(f"note  {note}"), style="dim", soft_wrap=True)


def _rank(row: dict[Any, Any]) -> str:
    """The interval of the rank, or the rank where there is none, and the tie group."""
    low, high = (row[f"rank_{end}"] if row["rank_low"] == row["rank_low"] else row["rank"] for end in ("low", "high"))
    if low != low:
        return "—"
    return f"{low:g}" + (f" to {high:g}" if high != low else "") + (f" {row['tie_group']}" if row["tie_group"] else "")


def _number(value: float, digits: int = 3) -> str:
    return "—" if value != value or value in (float("inf"), float("-inf")) else f"{value:.{digits}f}"


def _interval(low: float, high: float) -> str:
    return "—" if low != low or high != high else f"{low:.3f} to {high:.3f}"


class Interruptible:
    """Let SIGTERM end a run as Ctrl-C does: the running cells are ended and the state is kept."""

    def __enter__(self) -> None:
        self.previous = signal.signal(signal.SIGTERM, self._interrupt)

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self.previous)

    @staticmethod
    def _interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt


def command_line() -> str:
    """Return the command as it would be typed again, with paths as they were given."""
    return "python -m bench " + shlex.join(sys.argv[1:])
