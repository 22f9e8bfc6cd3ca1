"""The leaderboard as Markdown for people and as CSV for programs."""

import html
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leaderboard.statistics import MIN_BOOTSTRAP_UNITS, N_RESAMPLES
from leaderboard.table import BASELINE, CEILING, FLOOR, Leaderboard, TaskTable

DASH = "—"
MAX_NAMES = 12
_TABLE_KEY = ["task", "preset", "task_version"]
HOW_TO_READ = (
    f"Score: every primary metric scaled so that {FLOOR} is 0 and {CEILING} is 1 (ratio of means over "
    "held-out units, not clipped), then averaged over the primary metrics; differences are on the same "
    "scale and paired by unit. Brackets: 95 % interval over held-out units, from a paired bootstrap "
    f"({N_RESAMPLES} resamples, expanded percentiles), Student's below {MIN_BOOTSTRAP_UNITS} units, none "
    "with one. Coverage: ok cells of planned cells; a cell that is not ok never counts as a score. "
    f"{DASH}: not defined, see the notes below the table."
)


def to_markdown(leaderboard: Leaderboard, title: str, header_lines: Sequence[str] = ()) -> str:
    """The leaderboard as one Markdown page.

    Parameters
    ----------
    title, header_lines : plain text; specials of Markdown and HTML are escaped, as in names and reasons.
    """
    blocks = [f"# {escape(title)}", *map(escape, header_lines)]
    if leaderboard.tasks:
        blocks.append(HOW_TO_READ)
    else:
        blocks += map(escape, leaderboard.notes)
    for table in leaderboard.tasks:
        blocks += _task_blocks(table)
    for heading, frame in (("Failed", leaderboard.failures), ("Skipped", leaderboard.skipped)):
        if not frame.empty:
            text = frame.apply(lambda column: column.map(_code if column.name == "replay" else escape))
            blocks += [f"## {heading}", _pipe_table(text, ["left"] * text.shape[1])]
    return "\n\n".join(blocks) + "\n"


def write(leaderboard: Leaderboard, directory: str | Path, header_lines: Sequence[str] = ()) -> tuple[Path, Path]:
    """Write ``leaderboard.md`` and ``leaderboard.csv``, each replaced whole or not at all.

    The CSV holds the tables of all tasks one under the other, numbers in full precision, with the task and
    the preset in front; a metric that a task does not have is left empty.

    Returns
    -------
    paths : of the Markdown and of the CSV file.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    long = pd.DataFrame(columns=[*_TABLE_KEY, "method"])
    if leaderboard.tasks:
        frames = {(table.task, table.preset, table.version): table.frame for table in leaderboard.tasks}
        long = pd.concat(frames, names=_TABLE_KEY).reset_index(level=_TABLE_KEY)
    markdown, csv = directory / "leaderboard.md", directory / "leaderboard.csv"
    _write_atomically(markdown, to_markdown(leaderboard, "Leaderboard", header_lines))
    _write_atomically(csv, long.to_csv(index=False, lineterminator="\n"))
    return markdown, csv


def escape(text: Any) -> str:
    """Plain text for any place in Markdown, a table cell included; NaN and None become a dash."""
    if pd.isna(text):
        return DASH
    one_line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", html.escape(one_line, quote=False))


def _task_blocks(table: TaskTable) -> list[str]:
    names = ", ".join(table.units[:MAX_NAMES])
    more = f" and {len(table.units) - MAX_NAMES} more" if len(table.units) > MAX_NAMES else ""
    arrows = {metric: "↑" if better == "higher" else "↓" for metric, better in table.primary.items()}
    metrics = ", ".join(f"{metric} {arrow}" for metric, arrow in arrows.items())
    chosen = f" (chosen: {escape(table.baseline)})" if table.baseline else ""
    text = pd.DataFrame({"method": _method_names(table.frame)})
    for metric, arrow in arrows.items():
        text[f"{escape(metric)} {arrow}"] = table.frame[metric].map(_raw)
    text["score [95 %]"] = _with_interval(table.frame, "score", "low", "high")
    difference = ("difference", "difference_low", "difference_high")
    text[f"score − {BASELINE} [95 %]"] = _with_interval(table.frame, *difference)
    text["coverage"] = table.frame["coverage"]
    text["fit, s"] = table.frame["fit_seconds"].map(_raw)
    text["memory, MB"] = table.frame["peak_memory_mb"].map(lambda value: _fixed(value, 0))
    blocks = [
        f"## {escape(table.task)} ({escape(table.preset)})",
        f"Held out, one at a time: {len(table.units)} unit{'' if len(table.units) == 1 else 's'}"
        f" ({escape(names or 'none')}{more}); {len(table.seeds)} seed{'' if len(table.seeds) == 1 else 's'}; "
        f"task version {table.version}. Primary: {escape(metrics)}.",
        _pipe_table(text, ["left"] + ["right"] * (text.shape[1] - 1)),
        f"*Controls*: {FLOOR} = information-free, scaled 0; {CEILING} = ceiling, scaled 1; "
        f"{BASELINE} = strongest simple baseline{chosen}.",
    ]
    if table.notes:
        blocks.append("\n".join(f"- {escape(note)}" for note in table.notes))
    return blocks


def _method_names(frame: pd.DataFrame) -> list[str]:
    names = frame["method"].map(escape)
    return list(names.where(frame["role"] != "control", "*" + names + "*"))


def _with_interval(frame: pd.DataFrame, value: str, low: str, high: str) -> list[str]:
    cells = []
    for centre, lower, upper in frame[[value, low, high]].itertuples(index=False):
        interval = f" [{_fixed(lower, 2)}, {_fixed(upper, 2)}]" if np.isfinite(lower) else ""
        cells.append(_fixed(centre, 2) + interval)
    return cells


def _fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}" if np.isfinite(value) else DASH


def _raw(value: float) -> str:
    """Three significant digits, at most three decimals; powers of ten only where they must be, rounding noise as 0."""
    if not np.isfinite(value):
        return DASH
    size = abs(value) if abs(value) > 1e-6 else 0.0
    if size != 0 and not 1e-3 <= size < 1e6:
        return f"{value:.2e}"
    return _fixed(value, 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0)


def _code(text: Any) -> str:
    if pd.isna(text) or not str(text) or "`" in str(text):
        return escape(text)
    one_line = " ".join(str(text).split())
    return "`" + one_line.replace("|", "\\|") + "`"


def _pipe_table(text: pd.DataFrame, align: list[str]) -> str:
    # Everything is formatted already: "1e5" or "007" is a name here.
    return str(text.to_markdown(index=False, disable_numparse=True, colalign=align))


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
