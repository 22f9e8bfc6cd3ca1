"""What tuning buys: rows of one method at its defaults, tuned, and tuned on the very unit that scores it.

A row ``vae@tuned`` has a configuration of its own for each held-out unit, chosen without that unit; ``vae@oracle`` has
the one that is best on it, of those that were tried, so that it is an upper bound of any choice among them, not a
method. Where the oracle gains much and tuning little, it is the choice that fails; where neither gains, the defaults
are as good as anything that was tried.
"""

import numpy as np
import pandas as pd

from leaderboard import statistics
from leaderboard.comparison import Samples
from leaderboard.table import ORACLE, TUNED, Leaderboard, TaskTable

COLUMNS = (
    "task", "preset", "method", "n_units", "default", "tuned", "gain", "gain_low", "gain_high", "oracle", "left",
    "left_low", "left_high", "place", "place_tuned",
)  # fmt: skip
#: The task of the rows that are means over tasks.
ALL_TASKS = "all tasks"
HOW_TO_READ_TUNING = (
    "*default*, *tuned*, *oracle*: relative errors on the units that have all three; *gain*: error of tuned ÷ default, "
    "*left*: oracle ÷ tuned, paired by unit, with 95 % intervals as in the task's table (for all tasks: geometric "
    "means over these tasks). *place*: by relative error among the methods that were tuned on as many units (for all "
    "tasks: tasks) as any, each at its defaults, then each tuned."
)


def tuning(leaderboard: Leaderboard) -> pd.DataFrame:
    """One row for each task (or all of them, of one preset) and method that was tuned there.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS`; the means over tasks first. Empty where nothing was tuned.
    """
    rows = [row for table in leaderboard.tasks for row in _rows(table.task, table.preset, [table])]
    for suite in leaderboard.suites:
        rows = _rows(ALL_TASKS, suite.preset, [t for t in leaderboard.tasks if t.preset == suite.preset]) + rows
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    of_table = [frame["task"], frame["preset"]]
    # a mean over fewer units, or tasks, may be of easier ones: it has no place among the others
    whole = frame["n_units"] == frame["n_units"].groupby(of_table, sort=False).transform("max")
    for column, error in (("place", "default"), ("place_tuned", "tuned")):
        frame[column] = frame[error].where(whole).groupby(of_table, sort=False).rank()
    return frame


def _rows(task: str, preset: str, tables: list[TaskTable]) -> list[dict[str, object]]:
    names = dict.fromkeys(name for table in tables for name in table.comparison.frame.index)
    rows = []
    for method in [name for name in names if f"{name}{TUNED}" in names]:
        three = [one for table in tables if (one := _three(table, method)) is not None]
        if not three:
            continue
        means = statistics.average([one.block(one.values).means() for one in three])
        differences = [np.stack([one.values[1] - one.values[0], one.values[2] - one.values[1]]) for one in three]
        blocks = [one.block(both) for one, both in zip(three, differences, strict=True)]
        found = statistics.average([block.means() for block in blocks])
        low, high = found.interval()
        n_units = len(three) if task == ALL_TASKS else int(np.isfinite(three[0].values[0]).any(axis=1).sum())
        row: dict[str, object] = {"task": task, "preset": preset, "method": method, "n_units": n_units}
        row |= dict(zip(("default", "tuned", "oracle"), np.exp(means.value), strict=True))
        for k, name in enumerate(("gain", "left")):
            row |= {name: np.exp(found.value[k]), f"{name}_low": np.exp(low[k]), f"{name}_high": np.exp(high[k])}
        rows.append(row)
    return rows


def _three(table: TaskTable, method: str) -> Samples | None:
    """Return the samples of default, tuned and oracle where all three are; None where there are none."""
    names, samples = list(table.comparison.frame.index), table.comparison.samples
    if samples is None or not {method + TUNED, method + ORACLE, method} <= set(names):
        return None
    values = samples.values[[names.index(method + end) for end in ("", TUNED, ORACLE)]]
    values = np.where(np.isfinite(values).all(axis=0), values, np.nan)
    return Samples(values, samples.draws, samples.one_fit) if np.isfinite(values).any() else None


def tuning_sentence(frame: pd.DataFrame) -> str:
    """What tuning buys, in a sentence; of all tasks where there is more than one."""
    if frame.empty:
        return ""
    task = str(frame["task"].iloc[0])  # all tasks, where there are several
    frame = frame[frame["task"] == task]
    helped, harmed = frame[frame["gain_high"] < 1], frame[frame["gain_low"] > 1]
    best = frame.sort_values("gain").iloc[0]
    placed = frame.dropna(subset=["place"])
    moved = placed[placed["place"] != placed["place_tuned"]]
    said = f"Tuning without the held-out unit leaves {frame['gain'].median():.2f} of the error (median of {len(frame)} "
    said += f"methods) on {task}, least for {best['method']} ({best['gain']:.2f})"
    said += f"; beyond the interval it helps {len(helped)} and harms {len(harmed)}"
    said += f"; {len(moved)} of {len(placed)} change places" if len(placed) > 1 else ""
    return said + f"; the best that was tried for each unit (oracle) leaves {frame['left'].median():.2f} of that."
