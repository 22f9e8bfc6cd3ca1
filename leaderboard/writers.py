"""The leaderboard as text: Markdown and LaTeX for people, CSV and JSON for programs."""

import html
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from leaderboard.comparison import BASELINE, CEILING, FLOOR, STRUCTURE, Power
from leaderboard.sentences import answers, replicates
from leaderboard.table import Leaderboard, SuiteTable, TaskTable
from leaderboard.tuning import HOW_TO_READ_TUNING, tuning, tuning_sentence

DASH = "—"
ARROWS = {"higher": "↑", "lower": "↓"}
MAX_NAMES = 12
_TABLE_KEY = ["task", "preset", "task_version"]
HOW_TO_READ = (
    f"*Relative error*: a method's error divided by that of the task's best simple method ({BASELINE}) on the same "
    "held-out cells; 1 is no better, .5 is half its error. The error of a metric is its distance from its best "
    "possible value. It is the geometric mean over units, then over draws of the simulator; where a task needs both of "
    "its primary metrics, that of the metric in which the method is worse. Brackets: 95 % interval over draws, on real "
    "data over held-out units (wider there, as their fits share training cells).",
    "*Verdict* against the baseline, corrected for all comparisons of the table: *better*, *worse*, *equivalent* "
    "(surely within 5 %), else *undecided*; a method marked ● is among the best: nothing is shown to beat it. "
    f"*P(better)*: probability that the true relative error is below 1. {FLOOR}: knows nothing; {CEILING}: the best in "
    f"reach; {STRUCTURE}: is handed the true structure of the simulation. Coverage: ok jobs of planned jobs; a job "
    f"that is not ok never counts. {DASH}: not defined, see the notes below the table.",
)
HOW_TO_READ_SUITE = (
    "The geometric mean of the relative errors over the tasks that a method has. The first interval is for *these "
    "tasks*, the second for *other tasks like them* (Student's over tasks). Two methods are compared over the tasks "
    "that both have."
)


def to_markdown(leaderboard: Leaderboard, title: str, header_lines: Sequence[str] = ()) -> str:
    """The leaderboard as one Markdown page.

    Parameters
    ----------
    title, header_lines : plain text; specials of Markdown and HTML are escaped, as in names and reasons.
    """
    blocks = [f"# {escape(title)}", *map(escape, header_lines)]
    if leaderboard.tasks:
        blocks += ["\n".join(f"- {escape(line)}" for line in answers(leaderboard)), *HOW_TO_READ]
    else:
        blocks += map(escape, leaderboard.notes)
    for suite in leaderboard.suites:
        blocks += _suite_blocks(suite)
    tuned = tuning(leaderboard)
    if len(tuned):
        blocks += ["## What tuning buys", escape(tuning_sentence(tuned)), HOW_TO_READ_TUNING, _tuning_text(tuned)]
    for table in leaderboard.tasks:
        blocks += _task_blocks(table)
    for heading, frame in (("Failed", leaderboard.failures), ("Skipped", leaderboard.skipped)):
        if not frame.empty:
            text = frame.apply(lambda column: column.map(_code if column.name == "replay" else escape))
            blocks += [f"## {heading}", _pipe_table(text, ["left"] * text.shape[1])]
    return "\n\n".join(blocks) + "\n"


def frames(leaderboard: Leaderboard) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of all tasks one under the other, and those of the suites.

    Task, preset and task version stand in front; a metric that a task does not have is left empty.
    """
    long = pd.DataFrame(columns=[*_TABLE_KEY, "method"])
    if leaderboard.tasks:
        of_tasks = {(table.task, table.preset, table.version): table.frame for table in leaderboard.tasks}
        long = pd.concat(of_tasks, names=_TABLE_KEY).reset_index(level=_TABLE_KEY).reset_index(drop=True)
    suites = pd.DataFrame(columns=["preset", "method"])
    if leaderboard.suites:
        suites = pd.concat({suite.preset: suite.frame for suite in leaderboard.suites}, names=["preset"])
        suites = suites.reset_index(level="preset").reset_index(drop=True)
    return long, suites


def to_csv(leaderboard: Leaderboard) -> tuple[str, str]:
    """The two tables of :func:`frames` as CSV, with numbers in full precision."""
    tasks, suites = frames(leaderboard)
    return tasks.to_csv(index=False, lineterminator="\n"), suites.to_csv(index=False, lineterminator="\n")


def to_json(leaderboard: Leaderboard, header_lines: Sequence[str] = ()) -> str:
    """Everything in the tables, numbers in full precision; what is not defined is null."""
    tasks = [
        {
            "task": table.task,
            "preset": table.preset,
            "task_version": table.version,
            "units": list(table.units),
            "draws": list(table.draws),
            "seeds": [int(seed) for seed in table.seeds],
            "primary": table.primary,
            "two_sided": table.two_sided,
            "baseline": table.baseline,
            "methods": _records(table.frame),
            "pairs": _records(table.comparison.pairs),
            "power": _power(table.comparison.power),
            "core_seconds": _plain(table.core_seconds),
            "notes": list(table.notes),
        }
        for table in leaderboard.tasks
    ]
    suites = [
        {
            "preset": suite.preset,
            "tasks": list(suite.tasks),
            "methods": _records(suite.frame),
            "pairs": _records(suite.comparison.pairs),
            "power": _power(suite.comparison.power),
            "notes": list(suite.notes),
        }
        for suite in leaderboard.suites
    ]
    content = {
        "about": list(header_lines),
        "answers": answers(leaderboard),
        "suites": suites,
        "tasks": tasks,
        "tuning": _records(tuning(leaderboard)),
        "failures": _records(leaderboard.failures),
        "skipped": _records(leaderboard.skipped),
        "notes": leaderboard.notes,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def to_latex(leaderboard: Leaderboard, header_lines: Sequence[str] = ()) -> str:
    """One ``table`` for each suite and task, for the package booktabs; the header lines are comments."""
    blocks = ["% needs \\usepackage{booktabs}", *(f"% {' '.join(line.split())}" for line in header_lines)]
    for suite in leaderboard.suites:
        text = pd.DataFrame({"method": suite.frame["method"]})
        _add_comparison(text, suite.frame)
        blocks.append(_latex_table(text, f"All tasks ({suite.preset}).", f"suite-{suite.preset}"))
    for table in leaderboard.tasks:
        text = pd.DataFrame({"method": table.frame["method"]})
        _add_comparison(text, table.frame)
        text["coverage"] = table.frame["coverage"]
        caption = f"{table.task} ({table.preset}), {replicates(table)}, {len(table.seeds)} seeds."
        blocks.append(_latex_table(text, caption, f"{table.task}-{table.preset}"))
    return "\n\n".join(blocks) + "\n"


def _latex_table(text: pd.DataFrame, caption: str, label: str) -> str:
    text = text.map(_latex).rename(columns=_latex)
    style = text.style.hide(axis="index")
    return str(
        style.to_latex(
            hrules=True,
            column_format="l" + "r" * (text.shape[1] - 1),
            caption=_latex(caption),
            label=f"tab:{label.replace('/', '-').replace('_', '-')}",
            position="tbp",
            position_float="centering",
        )
    )


def _latex(text: Any) -> str:
    """Plain text in LaTeX."""
    text = str(text).replace("\\", r"\textbackslash ")
    text = re.sub(r"([&%$#_{}])", r"\\\1", text).replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
    return text.replace("−", "$-$").replace("–", "--").replace("—", "---").replace("<", "$<$").replace(">", "$>$")


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries of what JSON knows."""
    return [{str(key): _plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _power(power: Power) -> dict[str, Any]:
    return {name: _plain(value) for name, value in vars(power).items()}


def _plain(value: Any) -> Any:
    """A value as JSON knows it; what is not finite is null."""
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def escape(text: Any) -> str:
    """Plain text for any place in Markdown, a table cell included; NaN and None become a dash."""
    if pd.isna(text):
        return DASH
    one_line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", html.escape(one_line, quote=False))


def _task_blocks(table: TaskTable) -> list[str]:
    names = ", ".join(table.units[:MAX_NAMES])
    more = f" and {len(table.units) - MAX_NAMES} more" if len(table.units) > MAX_NAMES else ""
    text = pd.DataFrame({"method": _method_names(table.frame)})
    _add_comparison(text, table.frame)
    for metric, better in table.primary.items():
        text[f"{escape(metric)} {ARROWS[better]}"] = table.frame[metric].map(raw)
    text["coverage"] = table.frame["coverage"]
    text["fit, s"] = table.frame["fit_seconds"].map(raw)
    text["memory, MB"] = table.frame["peak_memory_mb"].map(lambda value: fixed(value, 0))
    blocks = [
        f"## {escape(table.task)} ({escape(table.preset)})",
        f"Held out: {len(table.units)} unit{'' if len(table.units) == 1 else 's'} ({escape(names or 'none')}{more}); "
        f"intervals over {table.replicates}; {len(table.seeds)} seed{'' if len(table.seeds) == 1 else 's'}; "
        f"task version {table.version}. Primary: {escape(primaries(table))}. Baseline: "
        f"{escape(table.baseline or 'as the task defines it')}. {escape(costs(table))}",
        _pipe_table(text, ["left"] + ["right"] * (text.shape[1] - 1)),
    ]
    if table.notes:
        blocks.append("\n".join(f"- {escape(note)}" for note in table.notes))
    return blocks


def primaries(table: TaskTable) -> str:
    """The primary metrics of a task, with which way is better."""
    names = [f"{metric} {ARROWS[better]}" for metric, better in table.primary.items()]
    both = " (the worse one counts)" if table.two_sided else ""
    return (", ".join(names) or "none") + both


def costs(table: TaskTable) -> str:
    """What the task tells for its cost, in words; empty where it tells nothing."""
    power = table.comparison.power
    if not np.isfinite(power.detectable):
        return ""
    hours = table.core_seconds / 3600
    spent = f" in {hours:.2f} core-hours ({power.resolved / hours:.0f} an hour)" if hours > 0 else ""
    needed = power.replicates_for_10_percent
    more = (
        f"; {np.ceil(needed):,.0f} {'draws' if len(table.draws) > 1 else 'units'} would tell .90"
        if needed < 1e6
        else ""
    )
    room = f"; room to the ceiling: {power.room:.1f} such steps" if np.isfinite(power.room) else ""
    return (
        f"Tells a relative error of {power.detectable:.2f} or less from 1{room}{more}; {power.resolved} of "
        f"{power.n_pairs} pairs told apart{spent}."
    )


def _suite_blocks(suite: SuiteTable) -> list[str]:
    notes = "\n".join(f"- {escape(note)}" for note in suite.notes)
    heading = f"## Suite ({escape(suite.preset)})"
    if suite.frame["relative_error"].isna().all():
        return [heading, notes]
    text = pd.DataFrame({"method": _method_names(suite.frame)})
    _add_comparison(text, suite.frame)
    others = suite.frame.assign(others=suite.frame["relative_error"])
    text.insert(2, "other tasks [95 %]", with_interval(others, "others", "others_low", "others_high"))
    text["tasks"] = suite.frame["n_tasks"].astype(str)
    blocks = [
        heading,
        f"{len(suite.tasks)} tasks: {escape(', '.join(suite.tasks))}.",
        HOW_TO_READ_SUITE,
        _pipe_table(text, ["left"] + ["right"] * (text.shape[1] - 1)),
    ]
    return blocks + ([notes] if notes else [])


def _tuning_text(tuned: pd.DataFrame) -> str:
    text = tuned[["task", "method"]].map(escape)
    for name in ("default", "tuned", "oracle"):
        text[name] = tuned[name].map(lambda value: fixed(value, 2))
    for name in ("gain", "left"):
        text[f"{name} [95 %]"] = with_interval(tuned, name, f"{name}_low", f"{name}_high")
    both = zip(spans(tuned["place"], tuned["place"]), spans(tuned["place_tuned"], tuned["place_tuned"]), strict=True)
    text["place"] = [one if one == DASH else f"{one} → {other}" for one, other in both]
    text["units"] = tuned["n_units"].astype(str)
    return _pipe_table(text, ["left"] * 2 + ["right"] * (text.shape[1] - 2))


def _add_comparison(text: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Add the columns that tasks and suite share."""
    text["relative error [95 %]"] = with_interval(frame, "relative_error", "low", "high")
    text["verdict"] = verdicts(frame)
    text["P(better)"] = frame["p_better"].map(probability)
    text["p"] = frame["p"].map(p_value)
    text["rank"] = spans(frame["rank_low"], frame["rank_high"])


def verdicts(frame: pd.DataFrame) -> list[str]:
    """The verdicts against the baseline; ● marks the methods that nothing is shown to beat."""
    pairs = zip(frame["verdict"], frame["best"].astype(bool), strict=True)
    return [f"{verdict}{' ●' if best else ''}".strip() or DASH for verdict, best in pairs]


def probability(value: float) -> str:
    """A probability in two decimals, never rounded to certainty."""
    return (
        DASH
        if not np.isfinite(value)
        else "> .99"
        if value > 0.99
        else "< .01"
        if value < 0.01
        else fixed(value, 2)[1:]
    )


def spans(low: pd.Series, high: pd.Series) -> list[str]:
    """From one whole number to another, or one where they are the same."""
    pairs = zip(low.astype(float), high.astype(float), strict=True)
    return [DASH if np.isnan(a) else f"{a:g}" if a == b else f"{a:g}–{b:g}" for a, b in pairs]


def p_value(value: float) -> str:
    """A p value in three decimals."""
    return "< .001" if value < 0.001 else fixed(value, 3).removeprefix("0")


def _method_names(frame: pd.DataFrame) -> list[str]:
    names = frame["method"].map(escape)
    return list(names.where(frame["role"] == "method", "*" + names + "*"))


def with_interval(frame: pd.DataFrame, value: str, low: str, high: str) -> list[str]:
    """A column of values, each with its interval where it has one."""
    jobs = []
    for centre, lower, upper in frame[[value, low, high]].itertuples(index=False):
        interval = f" [{fixed(lower, 2)}, {fixed(upper, 2)}]" if np.isfinite(lower) else ""
        jobs.append(fixed(centre, 2) + interval)
    return jobs


def fixed(value: float, digits: int) -> str:
    """A number in so many decimals."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if np.isfinite(value) else DASH


def raw(value: float) -> str:
    """Three significant digits, at most three decimals; powers of ten only where they must be, rounding noise as 0."""
    if not np.isfinite(value):
        return DASH
    size = abs(value) if abs(value) > 1e-6 else 0.0
    if size != 0 and not 1e-3 <= size < 1e6:
        return f"{value:.2e}"
    return fixed(value, 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0)


def _code(text: Any) -> str:
    if pd.isna(text) or not str(text) or "`" in str(text):
        return escape(text)
    one_line = " ".join(str(text).split())
    return "`" + one_line.replace("|", "\\|") + "`"


def _pipe_table(text: pd.DataFrame, align: list[str]) -> str:
    # Everything is formatted already: "1e5" or "007" is a name here.
    return str(text.to_markdown(index=False, disable_numparse=True, colalign=align))
