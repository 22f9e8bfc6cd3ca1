"""What a run can tell, and what more draws would: relative errors that are told from 1, pairs, and their price."""

import numpy as np
import pandas as pd

from leaderboard.table import Leaderboard, TaskTable

COLUMNS = (
    "task", "preset", "replicates", "detectable", "room", "replicates_for_10_percent", "resolved", "pairs",
    "core_seconds", "pairs_per_core_hour",
)  # fmt: skip
HOW_TO_READ = (
    "tells: the relative error nearest to 1 that is told from 1 with 80 % power after correction for all comparisons; "
    "room: how many such steps lie between the baseline and the ceiling; for .90: replicates that would tell a "
    "relative error of .90."
)


def power(leaderboard: Leaderboard) -> pd.DataFrame:
    """One row for each task: :data:`COLUMNS`; NaN where nothing is known, as with one replicate."""
    return pd.DataFrame([_row(table) for table in leaderboard.tasks], columns=list(COLUMNS))


def _row(table: TaskTable) -> dict[str, object]:
    found, hours = table.comparison.power, table.core_seconds / 3600
    return {
        "task": table.task,
        "preset": table.preset,
        "replicates": table.replicates,
        "detectable": found.detectable,
        "room": found.room,
        "replicates_for_10_percent": found.replicates_for_10_percent,
        "resolved": found.resolved,
        "pairs": found.n_pairs,
        "core_seconds": table.core_seconds,
        "pairs_per_core_hour": found.resolved / hours if hours > 0 else np.nan,
    }


def forecast(leaderboard: Leaderboard, minutes: float, n_workers: int) -> pd.DataFrame:
    """What a run of some minutes would tell, from the spread and the seconds of the draws so far.

    Whole draws are added, the same number for all simulated tasks. A pair counts as told apart where its difference, if
    it stays, is beyond the critical |t| with the errors of so many draws.

    Returns
    -------
    pandas.DataFrame
        Columns task, draws, detectable, resolved and pairs, of the tasks that have two draws or more.
    """
    drawn = [table for table in leaderboard.tasks if len(table.draws) > 1]
    a_draw = sum(table.core_seconds / len(table.draws) for table in drawn)
    once = sum(table.core_seconds for table in leaderboard.tasks if not table.draws)
    left = minutes * 60 * n_workers - once
    n_draws = max(int(left // a_draw), 1) if drawn and a_draw > 0 else 0
    return pd.DataFrame(
        [_forecast(table, n_draws) for table in drawn], columns=["task", "draws", "detectable", "resolved", "pairs"]
    )


def _forecast(table: TaskTable, n_draws: int) -> dict[str, object]:
    found = table.comparison.power
    ratio = np.sqrt(len(table.draws) / n_draws)  # of the errors then to the errors now
    told = np.abs(np.log(table.comparison.pairs["ratio"])) > table.comparison.pairs["least"] * ratio
    return {
        "task": table.task,
        "draws": n_draws,
        "detectable": np.exp(np.log(found.detectable) * ratio),
        "resolved": int(told.sum()),
        "pairs": found.n_pairs,
    }
