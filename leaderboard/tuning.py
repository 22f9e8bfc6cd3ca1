"""What tuning buys: rows of one method at its defaults, tuned, and tuned on the very unit that scores it.

A row ``vae@tuned`` has a configuration of its own for each held-out unit, chosen without that unit. ``vae@oracle`` has
the configuration, of those that were tried, that is best on the unit: it is no method but an upper bound of any choice
among them. Where the oracle gains much and tuning little, the choice fails; where neither gains, the defaults are as
good as anything that was tried.
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
    "tasks: tasks) as any, each at its defaults, then each tuned. What matters more is said of the methods with a "
    "place, on these units alone: it has no interval."
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
    # a mean over fewer units, or tasks, may be of easier units: it has no place among the others
    whole = frame["n_units"] == frame["n_units"].groupby(of_table, sort=False).transform("max")
    for column, error in (("place", "default"), ("place_tuned", "tuned")):
        frame[column] = frame[error].where(whole).groupby(of_table, sort=False).rank()
    return frame


def _rows(task: str, preset: str, tables: list[TaskTable]) -> list[dict[str, object]]:
    names = dict.fromkeys(name for table in tables for name in table.comparison.frame.index)
    rows = []
    for method in [name for name in names if f"{name}{TUNED}" in names]:
        samples = [sample for table in tables if (sample := _three(table, method)) is not None]
        if not samples:
            continue
        means = statistics.average([sample.block(sample.values).means() for sample in samples])
        blocks = [sample.block(np.diff(sample.values, axis=0)) for sample in samples]
        gained = statistics.average([block.means() for block in blocks])
        low, high = gained.interval()
        n_units = len(samples) if task == ALL_TASKS else int(np.isfinite(samples[0].values[0]).any(axis=1).sum())
        row: dict[str, object] = {"task": task, "preset": preset, "method": method, "n_units": n_units}
        row |= dict(zip(("default", "tuned", "oracle"), np.exp(means.value), strict=True))
        for k, name in enumerate(("gain", "left")):
            row |= {name: np.exp(gained.value[k]), f"{name}_low": np.exp(low[k]), f"{name}_high": np.exp(high[k])}
        rows.append(row)
    return rows


def _three(table: TaskTable, method: str) -> Samples | None:
    """Return the samples of default, tuned and oracle on units that have all three; None where no unit has."""
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
    sentence = f"Tuning without the held-out unit leaves {frame['gain'].median():.2f} of the error (median of "
    sentence += f"{len(frame)} methods) on {task}, least for {best['method']} ({best['gain']:.2f})"
    sentence += f"; beyond the interval it helps {len(helped)} and harms {len(harmed)}"
    sentence += f"; {len(moved)} of {len(placed)} change places" if len(placed) > 1 else ""
    sentence += f"; the best that was tried for each unit (oracle) leaves {frame['left'].median():.2f} of that."
    return sentence + (_what_matters(placed) if len(placed) > 1 else "")


def _what_matters(methods: pd.DataFrame) -> str:
    """Say whether the choice of the method or its tuning changes the error more; factors are geometric means."""
    logs = np.log(methods["default"].to_numpy())
    choice = np.exp(np.abs(np.subtract.outer(logs, logs))[np.triu_indices(len(logs), 1)].mean())
    tuned = np.exp(np.abs(np.log(methods["gain"])).mean())
    more = "The choice of the method" if choice > tuned else "Tuning"
    return (
        f" {more} matters more: the errors of two of these methods at their defaults differ by a factor of "
        f"{choice:.2f} on average, and tuning changes an error by one of {tuned:.2f}."
    )
