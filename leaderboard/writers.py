"""The leaderboard as text: Markdown and LaTeX for people, CSV and JSON for programs."""

import html
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from leaderboard import claims
from leaderboard.comparison import BASELINE, CEILING, FLOOR, STRUCTURE, Power
from leaderboard.formatting import ARROWS, DASH, fixed, p_value, probability, raw, spans, verdicts, with_interval
from leaderboard.sentences import answers, folded_skips, replicates
from leaderboard.table import Leaderboard, SuiteTable, TaskTable
from leaderboard.tuning import HOW_TO_READ_TUNING, tuning, tuning_sentence

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
    blocks += _claim_blocks(claims.outcomes(leaderboard))
    tuned = tuning(leaderboard)
    if len(tuned):
        blocks += ["## What tuning buys", escape(tuning_sentence(tuned)), HOW_TO_READ_TUNING, _tuning_text(tuned)]
    for table in leaderboard.tasks:
        blocks += _task_blocks(table)
    for heading, frame in (("Failed", leaderboard.failures), ("Skipped", folded_skips(leaderboard.skipped))):
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
    """Everything in the tables as JSON, numbers in full precision; undefined values are null."""
    return json.dumps(document(leaderboard, header_lines), indent=1, allow_nan=False) + "\n"


def document(leaderboard: Leaderboard, header_lines: Sequence[str] = ()) -> dict[str, Any]:
    """What :func:`to_json` writes, as dictionaries and lists."""
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
            "data": table.data,
            "methods": _records(table.frame),
            "metrics": {
                str(metric): {"better": table.better[str(metric)], "means": _values(table.means[metric])}
                for metric in table.means
            },
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
    return {
        "about": list(header_lines),
        "answers": answers(leaderboard),
        "suites": suites,
        "tasks": tasks,
        "claims": claims.as_records(claims.outcomes(leaderboard)),
        "tuning": _records(tuning(leaderboard)),
        "failures": _records(leaderboard.failures),
        "skipped": _records(leaderboard.skipped),
        "notes": leaderboard.notes,
    }


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
    """Rows as dictionaries of types that JSON has."""
    return [{str(key): _plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _values(column: pd.Series) -> dict[str, Any]:
    return {str(name): _plain(value) for name, value in column.items()}


def _power(power: Power) -> dict[str, Any]:
    return {name: _plain(value) for name, value in vars(power).items()}


def _plain(value: Any) -> Any:
    """A value as a type that JSON has; a number that is not finite is null."""
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
    _add_cost(text, table.frame)
    blocks = [
        f"## {escape(table.task)} ({escape(table.preset)})",
        f"Held out: {len(table.units)} unit{'' if len(table.units) == 1 else 's'} ({escape(names or 'none')}{more}); "
        f"intervals over {table.replicates}; {len(table.seeds)} seed{'' if len(table.seeds) == 1 else 's'}; "
        f"task version {table.version}{f', data {table.data}' if table.data else ''}. Primary: "
        f"{escape(primaries(table))}. Baseline: "
        f"{escape(table.baseline or 'as the task defines it')}. {escape(costs(table))}",
        _pipe_table(text, ["left"] + ["right"] * (text.shape[1] - 1)),
    ]
    if table.notes:
        blocks.append("\n".join(f"- {escape(note)}" for note in table.notes))
    return blocks


def primaries(table: TaskTable) -> str:
    """The primary metrics of a task, with which way is better."""
    names = [f"{metric} {ARROWS[better]}" for metric, better in table.primary.items()]
    two_sided = " (the worse one counts)" if table.two_sided else ""
    return (", ".join(names) or "none") + two_sided


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
    _add_cost(text, suite.frame)
    blocks = [
        heading,
        f"{len(suite.tasks)} tasks: {escape(', '.join(suite.tasks))}.",
        HOW_TO_READ_SUITE,
        _pipe_table(text, ["left"] + ["right"] * (text.shape[1] - 1)),
    ]
    return blocks + ([notes] if notes else [])


def _claim_blocks(found: Sequence[claims.Outcome]) -> list[str]:
    """What the papers claim, where a claim has rows."""
    decided = [one for one in found if one.verdict != claims.NO_ROWS]
    if not decided:
        return []
    cells = [
        (
            f"{one.sentence} ({one.claim.source})",
            one.verdict,
            "; ".join(one.effects),
            "; ".join(one.on),
            one.claim.decides,
        )
        for one in decided
    ]
    text = pd.DataFrame(cells, columns=list(claims.COLUMNS)).map(escape)
    absent = [f"- {escape(one.sentence)} {_code(one.claim.command)}" for one in found if one not in decided]
    blocks = ["## What the papers claim", claims.HOW_TO_READ_CLAIMS, _pipe_table(text, ["left"] * len(claims.COLUMNS))]
    return [*blocks, "No rows:", "\n".join(absent)] if absent else blocks


def _tuning_text(tuned: pd.DataFrame) -> str:
    text = tuned[["task", "method"]].map(escape)
    for name in ("default", "tuned", "oracle"):
        text[name] = tuned[name].map(lambda value: fixed(value, 2))
    for name in ("gain", "left"):
        text[f"{name} [95 %]"] = with_interval(tuned, name, f"{name}_low", f"{name}_high")
    places = zip(spans(tuned["place"], tuned["place"]), spans(tuned["place_tuned"], tuned["place_tuned"]), strict=True)
    text["place"] = [default if default == DASH else f"{default} → {tuned_place}" for default, tuned_place in places]
    text["units"] = tuned["n_units"].astype(str)
    return _pipe_table(text, ["left"] * 2 + ["right"] * (text.shape[1] - 2))


def _add_comparison(text: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Add the columns that tasks and suite share."""
    text["relative error [95 %]"] = with_interval(frame, "relative_error", "low", "high")
    text["verdict"] = verdicts(frame)
    text["P(better)"] = frame["p_better"].map(probability)
    text["p"] = frame["p"].map(p_value)
    text["rank"] = spans(frame["rank_low"], frame["rank_high"])


def _add_cost(text: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Add coverage and cost."""
    text["coverage"] = frame["coverage"]
    text["fit, s"] = frame["fit_seconds"].map(raw)
    text["memory, MB"] = frame["peak_memory_mb"].map(lambda value: fixed(value, 0))


def _method_names(frame: pd.DataFrame) -> list[str]:
    names = frame["method"].map(escape)
    return list(names.where(frame["role"] == "method", "*" + names + "*"))


def _code(text: Any) -> str:
    if pd.isna(text) or not str(text) or "`" in str(text):
        return escape(text)
    one_line = " ".join(str(text).split())
    return "`" + one_line.replace("|", "\\|") + "`"


def _pipe_table(text: pd.DataFrame, align: list[str]) -> str:
    # Everything is formatted already: "1e5" or "007" is a name here.
    return str(text.to_markdown(index=False, disable_numparse=True, colalign=align))
