"""What a leaderboard says, in words. Tables and sentences take their verdicts from one place, the comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaderboard.comparison import Power
from leaderboard.statistics import BETTER, EQUIVALENT, WORSE
from leaderboard.table import Leaderboard, SuiteTable, TaskTable

#: Most names that a sentence lists.
MAX_NAMES = 6
SMOKE = "Preset smoke: it shows that things run, not who is better."


@dataclass(frozen=True)
class Answer:
    """What a table says.

    Attributes
    ----------
    use
        The method to use; empty where none is shown to beat the baseline.
    tied
        The other methods that nothing is shown to beat.
    sentence
        All of it in words.
    """

    use: str
    tied: tuple[str, ...]
    sentence: str


def answers(leaderboard: Leaderboard) -> list[str]:
    """Return a line for each suite and task: what to use, what cannot be told from it, how sure that is."""
    if not leaderboard.tasks:
        return ["There are no results, so nothing can be concluded."]
    presets = {table.preset for table in leaderboard.tasks}
    return [
        *([SMOKE] if "smoke" in presets else []),
        *(f"Over {len(suite.tasks)} tasks: {answer(suite).sentence}" for suite in leaderboard.suites),
        *(f"{table.task}: {answer(table).sentence}" for table in leaderboard.tasks),
    ]


def answer(table: TaskTable | SuiteTable) -> Answer:
    """Return what a table says: the method to use, what is not told from it, what is worse, and how finely it tells."""
    methods = table.frame[(table.frame["role"] == "method") & table.frame["relative_error"].notna()]
    baseline = baseline_name(table)
    if methods.empty:
        reasons = table.frame.loc[table.frame["reason"].astype(str) != "", "reason"]
        why = str(reasons.iloc[0]) if len(reasons) else "no method has a result"
        return Answer("", (), f"nothing is compared: {why}.")
    if not (methods["verdict"] != "").any():
        first = methods.iloc[0]
        return Answer(
            "",
            (),
            f"nothing can be concluded, as there is {replicates(table)} alone; {first['method']} has the smallest "
            f"error here, {first['relative_error']:.2f} of that of {baseline}.",
        )
    better = methods[methods["verdict"] == BETTER]
    use = "" if better.empty else str(better["method"].iloc[0])
    tied = tuple(str(name) for name in methods.loc[methods["best"].astype(bool), "method"] if name != use)
    worse = list(methods.loc[methods["verdict"] == WORSE, "method"])
    parts = [_who_is_best(methods, baseline, use, tied)]
    if worse:
        parts.append(f"Worse than it: {named(worse)}." if not use else f"Worse than {baseline}: {named(worse)}.")
    return Answer(use, tied, " ".join([*parts, what_is_told(table.comparison.power)]).strip())


def baseline_name(table: TaskTable | SuiteTable) -> str:
    """Return what the baseline is called in a sentence."""
    chosen = table.baseline if isinstance(table, TaskTable) else ""
    if chosen and " in " not in chosen:
        return f"the best simple method ({chosen})"
    return "the best simple method" if isinstance(table, TaskTable) else "the tasks' best simple methods"


def replicates(table: TaskTable | SuiteTable) -> str:
    """Return over what intervals are, in words."""
    return table.replicates if isinstance(table, TaskTable) else f"{len(table.tasks)} tasks"


def what_is_told(power: Power) -> str:
    """Return how finely a table tells methods apart."""
    if not np.isfinite(power.detectable):
        return ""
    least = f"{power.detectable:.2f}" if power.detectable >= 0.01 else ".01"
    pairs = f"{power.resolved} of {power.n_pairs} pairs are told apart"
    return f"It tells a relative error of {least} or less from 1; {pairs}."


def named(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    shown, more = [str(name) for name in names[:MAX_NAMES]], len(names) - MAX_NAMES
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _who_is_best(methods: pd.DataFrame, baseline: str, use: str, tied: Sequence[str]) -> str:
    if not use:
        equal = list(methods.loc[methods["verdict"] == EQUIVALENT, "method"])
        also = f"; {named(equal)} {'does' if len(equal) == 1 else 'do'} as well within 5 %" if equal else ""
        return f"no method is shown to beat {baseline}{also}."
    first = methods[methods["method"] == use].iloc[0]
    interval = f"{first['relative_error']:.2f} [{first['low']:.2f}, {first['high']:.2f}]"
    said = f"use {use}, with {interval} of the error of {baseline}"
    return said + (f"; not told from it: {named(tied)}." if tied else "; it is told from all others.")
