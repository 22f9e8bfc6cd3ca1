"""What tuning buys: rows of one method at its defaults, tuned, and tuned on the very unit that scores it.

A row ``vae@tuned`` has a configuration of its own for each held-out unit, chosen without that unit; ``vae@oracle`` has
the one that is best on it, of those that were tried, so that it is an upper bound of any choice among them, not a
method. Where the oracle gains much and tuning little, it is the choice that fails; where neither gains, the defaults
are as good as anything that was tried.
"""

import numpy as np
import pandas as pd

from leaderboard import statistics
from leaderboard.table import ORACLE, TUNED, Leaderboard

COLUMNS = (
    "task", "preset", "method", "n_units", "default", "tuned", "gain", "gain_low", "gain_high", "oracle", "left",
    "left_low", "left_high", "place", "place_tuned",
)  # fmt: skip
#: The task of the rows that are means over tasks.
ALL_TASKS = "all tasks"
HOW_TO_READ_TUNING = (
    "*default*, *tuned*, *oracle*: scores on the units that have all three; *gain*: tuned − default, *left*: oracle − "
    "tuned, paired by unit, with 95 % intervals over units (for all tasks over data sets). *place*: by score among the "
    "methods that were tuned on as many units (for all tasks: tasks) as any, each at its defaults, then each tuned."
)


def tuning(leaderboard: Leaderboard) -> pd.DataFrame:
    """One row for each task (or all of them, of one preset) and method that was tuned there.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS`; the means over tasks first. Empty where nothing was tuned.
    """
    rows = []
    for table in leaderboard.tasks:
        rows += _compared(table.task, table.preset, table.comparison.unit_scores, None)
    for suite in leaderboard.suites:
        scores = suite.comparison.unit_scores
        if scores.columns.nlevels > 1:
            sets = {task: task.partition("/")[2] or task for task in scores.columns.get_level_values(0)}
            by_task = scores.T.groupby(level=0, sort=False).mean().T
            rows = _compared(ALL_TASKS, suite.preset, by_task, sets) + rows
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    of_table = [frame["task"], frame["preset"]]
    # a mean over fewer units, or tasks, may be of easier ones: it has no place among the others
    whole = frame["n_units"] == frame["n_units"].groupby(of_table, sort=False).transform("max")
    for column, score in (("place", "default"), ("place_tuned", "tuned")):
        frame[column] = frame[score].where(whole).groupby(of_table, sort=False).rank(ascending=False)
    return frame


def _compared(task: str, preset: str, scores: pd.DataFrame, sets: dict[str, str] | None) -> list[dict[str, object]]:
    """Rows from scores, methods × units; ``sets`` groups units that are no independent replicates."""
    rows = []
    for method in [str(name) for name in scores.index if f"{name}{TUNED}" in scores.index]:
        three = scores.reindex([method, method + TUNED, method + ORACLE]).dropna(axis=1)
        if three.empty:
            continue
        default, tuned, oracle = three.to_numpy(float)
        row: dict[str, object] = {"task": task, "preset": preset, "method": method, "n_units": three.shape[1]}
        row |= {"default": default.mean(), "tuned": tuned.mean(), "oracle": oracle.mean()}
        groups = np.array([sets[str(name)] if sets else str(name) for name in three.columns])
        for name, difference in (("gain", tuned - default), ("left", oracle - tuned)):
            means = pd.Series(difference).groupby(groups).agg(["sum", "count"]).to_numpy(float)
            found = statistics.ratio_of_means(means[:, [0]], means[:, [1]])
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    return rows


def tuning_sentence(frame: pd.DataFrame) -> str:
    """What tuning buys, in a sentence; of all tasks where there is more than one."""
    if frame.empty:
        return ""
    task = str(frame["task"].iloc[0])  # all tasks, where there are several
    frame = frame[frame["task"] == task]
    gained, lost = frame[frame["gain_low"] > 0], frame[frame["gain_high"] < 0]
    best = frame.sort_values("gain").iloc[-1]
    placed = frame.dropna(subset=["place"])
    moved = placed[placed["place"] != placed["place_tuned"]]
    said = f"Tuning without the held-out unit gains {frame['gain'].median():+.2f} (median of {len(frame)} methods) on "
    said += f"{task}, most for {best['method']} ({best['gain']:+.2f})"
    said += f"; beyond the interval it helps {len(gained)} and harms {len(lost)}"
    said += f"; {len(moved)} of {len(placed)} change places" if len(placed) > 1 else ""
    return said + f"; the best that was tried for each unit (oracle) is {frame['left'].median():+.2f} further."
