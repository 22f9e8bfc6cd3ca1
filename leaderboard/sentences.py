"""What a leaderboard says, in words. Tables and sentences take their verdicts from one place, the comparison."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaderboard.comparison import Power
from leaderboard.formatting import DASH, fixed, raw, with_interval
from leaderboard.statistics import BETTER, EQUIVALENT, WORSE
from leaderboard.table import CEILING, Leaderboard, SuiteTable, TaskTable

#: Most names that a sentence lists.
MAX_NAMES = 6
SMOKE = "Preset smoke: it shows that things run, not who is better."
#: A table that can only tell smaller relative errors than this from 1 tells nothing that occurs.
LEAST_TOLD = 0.1
#: What the columns of :class:`Line` are called.
LINE_COLUMNS = (
    "question",
    "use",
    "its error ÷ the best simple method's",
    "not told from it",
    "a fit costs",
    "how sure",
)


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


@dataclass(frozen=True)
class Line:
    """What a table says in one line, as the page and the terminal show it first.

    Attributes
    ----------
    name, question
        What the table is of, and what it asks in words; empty where that is not known.
    use
        The method to use, or that there is none.
    chosen
        Whether there is one.
    error, tied, cost
        Its relative error with its interval, the methods that it is not told from, seconds and memory of a fit.
    sure
        How finely the table tells methods apart, and what cannot be concluded.
    sentence
        All of it as a sentence.
    """

    name: str
    question: str
    use: str
    chosen: bool
    error: str
    tied: str
    cost: str
    sure: str
    sentence: str


def lines(leaderboard: Leaderboard, questions: Mapping[str, str]) -> list[Line]:
    """Return a line for each suite and task; ``questions`` say what a task/dataset asks."""
    suites = [_line(suite, suite_title(suite), "") for suite in leaderboard.suites]
    return suites + [_line(table, task_title(table), questions.get(table.task, "")) for table in leaderboard.tasks]


def common_question(leaderboard: Leaderboard, questions: Mapping[str, str]) -> str:
    """Return what all tasks of a run ask; empty where they ask different questions."""
    asked = {questions.get(table.task, "") for table in leaderboard.tasks}
    return asked.pop() if len(asked) == 1 else ""


def task_title(table: TaskTable) -> str:
    """Return what a task is called on the page; the preset is named where it is not the default."""
    return table.task if table.preset == "default" else f"{table.task} ({table.preset})"


def suite_title(suite: SuiteTable) -> str:
    """Return what a suite is called on the page."""
    title = f"All {len(suite.tasks)} tasks"
    return title if suite.preset == "default" else f"{title} ({suite.preset})"


def _line(table: TaskTable | SuiteTable, name: str, question: str) -> Line:
    found, frame = answer(table), table.frame.set_index("method")
    error, cost = DASH, DASH
    if found.use:
        (error,) = with_interval(frame.loc[[found.use]], "relative_error", "low", "high")
        chosen = frame.loc[found.use].to_dict()
        cost = f"{raw(float(chosen['fit_seconds']))} s, {fixed(float(chosen['peak_memory_mb']), 0)} MB"
    if found.use:
        use = found.use
    elif np.isfinite(table.comparison.power.detectable):
        use = f"none is shown to beat {baseline_name(table)}"
    else:
        use = "nothing can be concluded"
    told = what_is_told(table.comparison.power)
    return Line(
        name=name,
        question=question,
        use=use,
        chosen=bool(found.use),
        error=error,
        tied=named(found.tied) if found.use and found.tied else DASH,
        cost=cost,
        sure=" ".join(filter(None, [told or _capital(found.sentence), no_room(table)])),
        sentence=found.sentence,
    )


def no_room(table: TaskTable | SuiteTable) -> str:
    """Return that a table cannot show a better method, where its ceiling is no better than the baseline."""
    ceiling = table.comparison.frame["relative_error"].get(CEILING, np.nan)
    return f"The ceiling's error is {ceiling:.2f}: there is no room for a better method." if ceiling >= 1 else ""


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


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
    if isinstance(table, SuiteTable):  # a mean over some of the tasks is not like for like
        methods = methods[methods["n_tasks"] == methods["n_tasks"].max()]
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
    pairs = f"{power.resolved} of {power.n_pairs} pairs are told apart"
    if power.detectable < LEAST_TOLD:
        return f"It cannot tell even a tenth of the error from the whole; {pairs}."
    return f"It tells a relative error of {power.detectable:.2f} or less from 1; {pairs}."


def folded_skips(skipped: pd.DataFrame) -> pd.DataFrame:
    """Return skipped jobs by their reason: columns methods, tasks, reason.

    Reasons that differ by the method's own name, or by what they quote (as by the unit), are one: the first is said.
    """
    alike = [
        re.sub("'[^']*'", "''", reason.removeprefix(method))
        for method, reason in zip(skipped["method"], skipped["reason"], strict=True)
    ]
    rows = []
    for _, group in skipped.groupby(alike, sort=False):
        method, reason = group.iloc[0][["method", "reason"]]
        own = reason.removeprefix(method).strip() if group["method"].nunique() > 1 else reason
        more = group["reason"].map(lambda text: tuple(re.findall("'[^']*'", text))).nunique() - 1
        rows.append(
            {
                "methods": ", ".join(dict.fromkeys(group["method"])),
                "tasks": named(list(dict.fromkeys(group["task"]))),
                "reason": f"{own} (and {more} like it)" if more else own,
            }
        )
    return pd.DataFrame(rows, columns=["methods", "tasks", "reason"])


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
