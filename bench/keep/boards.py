"""The leaderboard of one or several out directories, with a header that says how it was made."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.environment import describe
from bench.keep.store import Gathered
from methods import METHODS

if TYPE_CHECKING:
    import pandas as pd

    from leaderboard import Leaderboard


def command_line() -> str:
    """Return the command as it would be typed again, with paths as they were given."""
    return "python -m bench " + shlex.join(sys.argv[1:])


def header_lines(command: str) -> list[str]:
    """Return how a leaderboard was made: command, date, commit, machine, versions."""
    environment = describe()
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    dirty = " with uncommitted changes" if environment["dirty"] else ""
    return [
        f"Command: {command}",
        f"Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"Commit: {environment['git_commit'] or 'unknown'}{dirty}",
        f"Machine: {environment['cpu']}, {environment['threads']} thread a job, Python {environment['python']}",
        f"Versions: {versions}",
    ]


def write_leaderboard(
    gathered: Sequence[Gathered],
    directory: Path,
    header: Sequence[str],
    formats: Sequence[str] = (),
    keep: Callable[[str], bool] = lambda task: True,
    title: str = "Leaderboard",
) -> tuple[Leaderboard, list[Path]]:
    """Write the leaderboard of the results of out directories.

    Parameters
    ----------
    gathered
        The results of each directory; the last result of a job counts.
    directory
        Where the files go.
    header
        Lines about how it was made.
    formats
        Some of :data:`leaderboard.FORMATS`; none stands for the usual ones.
    keep
        Whether a task/dataset is part of the leaderboard.
    title
        Title of the pages.
    """
    import leaderboard

    board = board_of(gathered, keep)
    header = [*header, *made_at(board.rows)]
    curves, pictures = _of_all([one.curves for one in gathered]), _of_all([one.pictures for one in gathered])
    files = leaderboard.write(
        board,
        directory,
        header,
        formats or leaderboard.DEFAULT_FORMATS,
        curves,
        pictures,
        questions_of(board),
        {name: "simple" if "baseline" in method.tags else "method" for name, method in METHODS.items()},
        title,
    )
    return board, files


def questions_of(board: Leaderboard) -> dict[str, str]:
    """Return the question of each task; a task that is not registered here, such as a plugin's, has none."""
    from tasks import TASKS

    names = {table.task: table.task.partition("/")[0] for table in board.tasks}
    return {label: TASKS[name].question for label, name in names.items() if name in TASKS}


def leaderboard_json(gathered: Sequence[Gathered], header: Sequence[str], keep: Callable[[str], bool]) -> str:
    """Return what :func:`write_leaderboard` writes as ``leaderboard.json``."""
    import leaderboard

    board = board_of(gathered, keep)
    return leaderboard.to_json(board, [*header, *made_at(board.rows)])


def board_of(gathered: Sequence[Gathered], keep: Callable[[str], bool] = lambda task: True) -> Leaderboard:
    """Return the leaderboard of the results of out directories; see :func:`write_leaderboard`."""
    import leaderboard

    rows = _of_all([one.rows for one in gathered]).sort_values("finished", kind="stable", ignore_index=True)
    return leaderboard.build(rows[rows["task"].map(keep)] if len(rows) else rows)


def made_at(rows: pd.DataFrame) -> list[str]:
    """Return which commits the results come from: they may be older than the command that shows them."""
    if rows.empty:
        return []
    jobs = rows.drop_duplicates("job_id")
    names = jobs["git_commit"].replace("", "unknown") + jobs["dirty"].map(
        {True: " with uncommitted changes", False: ""}
    )
    return ["Jobs made at: " + ", ".join(f"{name} ({number})" for name, number in names.value_counts().items())]


def _of_all(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the rows of several out directories; where several have a job, the last one counts."""
    import pandas as pd

    kept: list[pd.DataFrame] = []
    seen: set[str] = set()
    for frame in reversed(frames):
        kept.insert(0, frame[~frame["job_id"].isin(seen)])
        seen.update(frame["job_id"])
    return pd.concat(kept)


def print_power(told: pd.DataFrame, to_come: pd.DataFrame | None, console: Console) -> None:
    """Print how small a difference each task can tell, and what a longer or shorter run could."""
    from leaderboard.power import HOW_TO_READ

    def shown(value: float, form: str = ".2f") -> str:
        return "—" if value != value else format(value, form)

    table = Table(box=None, pad_edge=False)
    for heading in ("task", "over", "tells", "room", "for .90", "pairs told", "core-seconds", "pairs a core-hour"):
        table.add_column(heading, justify="left" if heading in ("task", "over") else "right")
    for row in told.to_dict("records"):
        table.add_row(
            Text(f"{row['task']} ({row['preset']})"),
            row["replicates"],
            shown(row["detectable"]),
            shown(row["room"], ".1f"),
            shown(row["replicates_for_10_percent"], ",.0f"),
            f"{row['resolved']} of {row['pairs']}",
            shown(row["core_seconds"], ",.0f"),
            shown(row["pairs_per_core_hour"], ",.0f"),
        )
    console.print(table)
    console.print(Text(HOW_TO_READ), style="dim", soft_wrap=True)
    if to_come is None:
        return
    if to_come.empty:
        console.print("no task has two draws, so that nothing can be said of more", highlight=False)
    for row in to_come.to_dict("records"):
        pairs = f"{row['resolved']} of {row['pairs']} pairs"
        text = f"{row['task']}: {row['draws']} draws would tell {shown(row['detectable'])}, and {pairs}"
        console.print(Text(text), soft_wrap=True)


def print_leaderboard(board: Leaderboard, console: Console) -> None:
    """Print what the page shows first, a table for each task, and what cannot be concluded."""
    from leaderboard.formatting import ARROWS, probability, verdicts, with_interval
    from leaderboard.sentences import LINE_COLUMNS, SMOKE, answers, common_question, lines
    from leaderboard.tuning import tuning, tuning_sentence

    questions = questions_of(board)
    asked = common_question(board, questions)
    said = answers(board) if not board.tasks else [SMOKE] if any(one.preset == "smoke" for one in board.tasks) else []
    for text in filter(None, [asked, *said]):
        console.print(Text(text), style="bold", soft_wrap=True)
    if board.tasks:
        first = Table(*LINE_COLUMNS, box=None, pad_edge=False)
        for line in lines(board, questions):
            what = line.name if line.question in ("", asked) else f"{line.question} ({line.name})"
            cells = what, line.use, line.error, line.tied, line.cost, line.sure
            first.add_row(*map(Text, cells), style="bold" if line.chosen else "")
        console.print(first)
    console.print()
    for one in board.tasks:
        table = Table(title=f"{one.task} ({one.preset})", title_justify="left", box=None, pad_edge=False)
        primary = [f"{metric} {ARROWS[better]}" for metric, better in one.primary.items()]
        for heading in ("method", "relative error [95 %]", "verdict", "P(better)", *primary, "jobs", "fit s", "MB"):
            table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=heading == "method")
        frame = one.frame[one.frame["coverage"] != "skipped"]
        columns = with_interval(frame, "relative_error", "low", "high"), verdicts(frame)
        for row, error, verdict in zip(frame.to_dict("records"), *columns, strict=True):
            table.add_row(
                Text(str(row["method"]), style="" if row["role"] == "method" else "italic"),
                error,
                verdict,
                probability(row["p_better"]),
                *(_number(row[name]) for name in one.primary),
                str(row["coverage"]),
                _number(row["fit_seconds"], 1),
                _number(row["peak_memory_mb"], 0),
            )
        console.print(table)
        console.print()
    if tuned := tuning_sentence(tuning(board)):
        console.print(Text(tuned), soft_wrap=True)
    for note in board.notes:
        console.print(Text(f"note  {note}"), style="dim", soft_wrap=True)


def print_claims(board: Leaderboard, console: Console) -> None:
    """Print what the papers claim and what the rows say of it; for a claim without rows, what gives them."""
    from leaderboard.claims import COLUMNS, HOW_TO_READ_CLAIMS, NO_ROWS, outcomes

    for one in outcomes(board):
        console.print(Text(f"{one.verdict}: {one.sentence}"), style="bold", soft_wrap=True)
        console.print(Text(f"    source: {one.claim.source}"), style="dim", soft_wrap=True)
        if one.evidence:
            console.print(Text(f"    {COLUMNS[2]}: {'; '.join(one.effects)}"), soft_wrap=True)
            console.print(Text(f"    {COLUMNS[3]} {'; '.join(one.on)}"), soft_wrap=True)
        console.print(Text(f"    {COLUMNS[4]}: {one.claim.decides}"), style="dim", soft_wrap=True)
        if one.verdict == NO_ROWS:
            console.print(Text(f"    rows: {one.claim.command}"), soft_wrap=True)
    console.print(Text(HOW_TO_READ_CLAIMS.replace("*", "")), style="dim", soft_wrap=True)


def _number(value: float, digits: int = 3) -> str:
    return "—" if value != value or value in (float("inf"), float("-inf")) else f"{value:.{digits}f}"
