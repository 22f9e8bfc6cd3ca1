"""The report: one HTML page with everything in it, that needs no network.

Tables are sorted and filtered by DataTables, figures drawn by plotly, both inlined once. A page without scripts still
has every table, note and failure.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from leaderboard import association, plots
from leaderboard.association import BETWEEN, DISENTANGLEMENT, RECONSTRUCTION, WITHIN
from leaderboard.table import BASELINE, Leaderboard, SuiteTable, TaskTable
from leaderboard.tuning import HOW_TO_READ_TUNING, tuning, tuning_sentence
from leaderboard.writers import DASH, HOW_TO_READ, HOW_TO_READ_SUITE, fixed, p_value, raw, spans, with_interval

#: Most names that a sentence lists.
MAX_NAMES = 6
#: Growth is drawn from as many sizes of training data on.
MIN_SIZES = 3


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is read, and what it is sorted by (None: its text)."""

    text: str
    order: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    cells: list[Cell]
    reference: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    columns: list[str]
    rows: list[Row]


def to_html(
    leaderboard: Leaderboard,
    curves: pd.DataFrame,
    pictures: pd.DataFrame,
    header_lines: Sequence[str] = (),
    title: str = "Leaderboard",
) -> str:
    """The page.

    Parameters
    ----------
    curves : training curves: job_id, term, epoch, value. May be empty.
    pictures : codes in two dimensions: job_id, x, y, environment, content, trained. May be empty.
    header_lines : command, date, commit and the like, shown as they are.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    jobs = association.fit_scores(leaderboard)
    of = plots.styles(list(jobs["method"]))
    figures: dict[str, Any] = {}
    suites = [_suite_part(leaderboard, suite, of, figures) for suite in leaderboard.suites]
    tasks = [
        _task_part(leaderboard, table, jobs, curves, pictures, of, figures, number)
        for number, table in enumerate(leaderboard.tasks, 1)
    ]
    answers = association.answers(jobs) if "score" in jobs else pd.DataFrame()
    answered = not answers.empty and answers["value"].notna().any()
    if answered:
        metric = _asked_most(answers)
        points = {level: association.points(jobs, metric, level) for level in (BETWEEN, WITHIN)}
        figures["disentanglement"] = plots.disentanglement(points, metric, of)
    sections = [(suite["anchor"], suite["title"]) for suite in suites]
    tuned = tuning(leaderboard)
    sections += [("tuning", "What tuning buys")] if len(tuned) else []
    sections += [("tasks", "Tasks")] if tasks else []
    sections += [("disentanglement", "Disentanglement and skill")] if answered else []
    sizes = _sizes(leaderboard.rows)
    if len(sizes):
        figures["growth"] = plots.growth(sizes, of)
        sections.append(("growth", "Cost against size"))
    sections += [("skipped", "Skipped")] if len(leaderboard.skipped) else []

    environment = Environment(loader=PackageLoader("leaderboard"), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    own = files("leaderboard") / "templates"
    return environment.get_template("report.html.j2").render(
        title=title,
        sections=sections,
        findings=findings(leaderboard, answers),
        about=list(header_lines),
        suites=suites,
        tasks=tasks,
        tuning=_tuning_table(tuned) if len(tuned) else None,
        tuning_sentence=tuning_sentence(tuned),
        how_to_read_tuning=_plain(HOW_TO_READ_TUNING),
        answers=_answers_table(answers) if answered else None,
        answer=association_sentence(answers),
        skipped=leaderboard.skipped.to_dict("records"),
        how_to_read=[_plain(line) for line in (*HOW_TO_READ, HOW_TO_READ_SUITE)],
        figures={name: Markup(_in_script(figure.to_json())) for name, figure in figures.items()},
        heights={name: int(figure.layout.height) for name, figure in figures.items()},
        css=Markup((own / "report.css").read_text()),
        js=Markup((own / "report.js").read_text()),
        plotly_js=Markup(_library("plotly", "package_data/plotly.min.js")),
        table_js=Markup(_library("itables", "html/dt_bundle.js")),
        table_css=Markup(_library("itables", "html/dt_bundle.css")),
    )


@lru_cache
def _library(package: str, path: str) -> str:
    return _in_script((files(package) / path).read_text(encoding="utf-8"))


def _in_script(text: str) -> str:
    """Text that does not end the script that it stands in."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _plain(markdown: str) -> str:
    return markdown.replace("*", "")


# --- what the numbers say


def findings(leaderboard: Leaderboard, answers: pd.DataFrame) -> list[str]:
    """Three sentences: who beats the baseline and who is tied, what tasks resolve, what disentanglement predicts."""
    if not leaderboard.tasks:
        return ["There are no results, so nothing can be concluded."]
    return [_who_wins(leaderboard), _what_is_resolved(leaderboard), association_sentence(answers)]


def _who_wins(leaderboard: Leaderboard) -> str:
    suite = leaderboard.suites[0] if leaderboard.suites else None
    frame = suite.frame if suite is not None else leaderboard.tasks[0].frame
    where = f"over {len(suite.tasks)} tasks" if suite is not None else f"on {leaderboard.tasks[0].task}"
    methods = frame[(frame["role"] == "method") & frame["score"].notna()].sort_values("rank")
    if methods.empty:
        return f"No method has a score {where}, so none can be compared."
    better = methods[(methods["difference_low"] > 0) & (methods["p_holm"] < 0.05)]
    worse = methods[(methods["difference_high"] < 0) & (methods["p_holm"] < 0.05)]
    tested = methods["p_holm"].notna().any()
    if not tested:
        first = f"Nothing can be said against the best simple baseline {where}: there is no test with so few units"
    elif better.empty:
        first = f"No method beats the best simple baseline {where} beyond its interval"
    else:
        first = f"{_named(better['method'])} beat{'s' if len(better) == 1 else ''} the best simple baseline {where}"
    if tested and len(worse):
        first += f", {_named(worse['method'])} {'is' if len(worse) == 1 else 'are'} worse than it"
    group = str(methods["tie_group"].iloc[0])
    best, *tied = methods.loc[methods["tie_group"] == group, "method"] if group else methods["method"].iloc[:1]
    if tied:
        first += f"; not told apart from the first, {best}, {'is' if len(tied) == 1 else 'are'} {_named(tied)}"
    return first + "."


def _what_is_resolved(leaderboard: Leaderboard) -> str:
    lost = [table for table in leaderboard.tasks if not table.comparison.scored_on]
    told = {table.task: table.frame.loc[table.frame["role"] == "method", "mdd"].dropna() for table in leaderboard.tasks}
    smallest = {task: float(values.median()) for task, values in told.items() if len(values)}
    parts = []
    if smallest:
        best, last = min(smallest, key=smallest.__getitem__), max(smallest, key=smallest.__getitem__)
        parts.append(f"The smallest difference that a task can tell (80 % power) is {smallest[best]:.2f} on {best}")
        if best != last:
            parts.append(
                f"and {smallest[last]:.2f} on {last}, where the range from {plots.FLOOR} to {plots.CEILING} is 1"
            )
    else:
        parts.append("No task has enough units to say which difference it can tell")
    text = " ".join(parts)
    if lost:
        text += f"; {_named([table.task for table in lost])} resolve{'s' if len(lost) == 1 else ''} nothing"
    return text + "."


def association_sentence(answers: pd.DataFrame) -> str:
    """What the analysis of disentanglement and skill says, of the metric that most fits have."""
    if answers.empty or answers["value"].isna().all():
        return (
            "Whether disentanglement predicts out-of-distribution skill cannot be said: it needs at least three "
            "methods on a task whose true factors are known."
        )
    metric = _asked_most(answers)
    said = []
    for level in (BETWEEN, WITHIN):
        row = answers[(answers["level"] == level) & (answers["metric"] == metric)].iloc[0]
        if math.isnan(row["value"]):
            said.append(f"{level} it cannot be said")
            continue
        interval = f"[{row['low']:.2f}, {row['high']:.2f}]" if math.isfinite(row["low"]) else "no interval"
        clear = math.isfinite(row["low"]) and (row["low"] > 0 or row["high"] < 0)
        verdict = ("more" if row["value"] > 0 else "less") + " skill" if clear else "no clear relation"
        partial = f"; {row['partial']:.2f} given reconstruction" if math.isfinite(row["partial"]) else ""
        said.append(f"{level} {verdict} (r = {row['value']:.2f} {interval}{partial}, {int(row['n_points'])} points)")
    return f"Where codes are more disentangled ({metric}): {', and '.join(said)}."


def _asked_most(answers: pd.DataFrame) -> str:
    counts = answers[answers["value"].notna()].groupby("metric")["n_points"].sum()
    return str(max((m for m in DISENTANGLEMENT if m in counts.index), key=lambda m: counts[m]))


def _named(names: Sequence[str] | pd.Series) -> str:
    names = [str(name) for name in names]
    shown, more = names[:MAX_NAMES], len(names) - MAX_NAMES
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


# --- parts of the page


def _suite_part(
    leaderboard: Leaderboard, suite: SuiteTable, of: Mapping[str, plots.Style], figures: dict[str, Any]
) -> dict[str, Any]:
    tables = [table for table in leaderboard.tasks if table.preset == suite.preset]
    anchor = f"suite-{suite.preset}"
    scored = [table for table in tables if table.comparison.scored_on]
    if scored:
        figures[anchor] = plots.profile(scored, of)
        figures[f"{anchor}-wins"] = plots.wins(suite.comparison.wins, list(suite.frame["method"]))
    frame = suite.frame
    columns = {
        "method": _texts(frame["method"]),
        "mean score [95 %]": _numbers(with_interval(frame, "score", "low", "high"), frame["score"]),
        **_compared(frame),
        "IQM": _numbers(frame["iqm"].map(lambda value: fixed(value, 2)), frame["iqm"]),
    }
    for table in scored:
        score = frame["method"].map(table.frame.set_index("method")["score"])
        columns[table.task] = _numbers(score.map(lambda value: fixed(value, 2)), score)
    columns["tasks"] = _numbers(frame["n_tasks"].astype(str), frame["n_tasks"])
    return {
        "anchor": anchor,
        "title": "All tasks" if suite.preset == "default" else f"All tasks ({suite.preset})",
        "caption": "Each method on each task, with its 95 % interval.",
        "table": _table(columns, frame["role"]),
        "notes": suite.notes,
    }


def _task_part(
    leaderboard: Leaderboard,
    table: TaskTable,
    jobs: pd.DataFrame,
    curves: pd.DataFrame,
    pictures: pd.DataFrame,
    of: Mapping[str, plots.Style],
    figures: dict[str, Any],
    number: int,
) -> dict[str, Any]:
    anchor = f"task-{number}"
    here = jobs[(jobs["task"] == table.task) & (jobs["preset"] == table.preset)]
    rows = leaderboard.rows
    rows = rows[(rows["task"] == table.task) & (rows["preset"] == table.preset)]
    frame = table.frame
    if not here.empty and here["score"].notna().any():
        figures[f"{anchor}-intervals"] = plots.intervals(table, of)
        figures[f"{anchor}-heat"] = plots.heat(here, list(frame["method"]))
        figures[f"{anchor}-wins"] = plots.wins(table.comparison.wins, list(frame["method"]))
        if association.DISTANCE in here and here["unit"].nunique() > 1:
            figures[f"{anchor}-distance"] = plots.distance(here, of)
        figures[f"{anchor}-cost"] = plots.cost(table, of)
    if (rows["role"] == "reference").any() and table.primary:
        figures[f"{anchor}-references"] = plots.references(rows, table.primary)
    names = dict(zip(here["job_id"].astype(str), here["method"].astype(str), strict=True))
    first = here.sort_values(["seed", "unit"]).drop_duplicates("method")
    shown = pictures[pictures["job_id"].isin(names)]
    if not shown.empty:
        figures[f"{anchor}-codes"] = plots.embeddings(shown, names)
    of_first = curves[curves["job_id"].isin(first["job_id"])]
    if not of_first.empty:
        figures[f"{anchor}-training"] = plots.training(of_first, names, of)

    columns = {"method": _texts(frame["method"])}
    columns["score [95 %]"] = _numbers(with_interval(frame, "score", "low", "high"), frame["score"])
    columns |= _compared(frame)
    for metric, better in table.primary.items():
        columns[f"{metric} {'↑' if better == 'higher' else '↓'}"] = _numbers(frame[metric].map(raw), frame[metric])
    columns["coverage"] = _texts(frame["coverage"])
    columns["fit, s"] = _numbers(frame["fit_seconds"].map(raw), frame["fit_seconds"])
    columns["memory, MB"] = _numbers(frame["peak_memory_mb"].map(lambda v: fixed(v, 0)), frame["peak_memory_mb"])
    failed = leaderboard.failures
    metrics = ", ".join(f"{metric} ({better} is better)" for metric, better in table.primary.items())
    return {
        "anchor": anchor,
        "title": table.task if table.preset == "default" else f"{table.task} ({table.preset})",
        "verdict": _verdict(table),
        "what": (
            f"Held out, one at a time: {len(table.units)} unit{'' if len(table.units) == 1 else 's'}; "
            f"{len(table.seeds)} seed{'' if len(table.seeds) == 1 else 's'}; task version {table.version}. "
            f"Primary: {metrics or 'none'}. {BASELINE}: {table.baseline or 'as the task defines it'}."
        ),
        "table": _table(columns, frame["role"]),
        "notes": table.notes,
        "failures": failed[failed["task"] == table.task].to_dict("records"),
    }


def _compared(frame: pd.DataFrame) -> dict[str, list[Cell]]:
    """The columns that tasks and suites share."""
    difference = with_interval(frame, "difference", "difference_low", "difference_high")
    return {
        f"− {BASELINE} [95 %]": _numbers(difference, frame["difference"]),
        "p (Holm)": _numbers(frame["p_holm"].map(p_value), frame["p_holm"]),
        "rank": _ranks(frame),
        "ties": _texts(frame["tie_group"]),
    }


def _verdict(table: TaskTable) -> str:
    methods = table.frame[(table.frame["role"] == "method") & table.frame["score"].notna()]
    if methods.empty:
        return "no method has a score"
    above = methods[(methods["difference_low"] > 0) & (methods["p_holm"] < 0.05)]
    best = methods.sort_values("score").iloc[-1]
    told = f"{len(above)} of {len(methods)} methods beat {BASELINE} beyond the interval"
    return f"{told}; best: {best['method']} {best['score']:.2f}"


def _sizes(rows: pd.DataFrame) -> pd.DataFrame:
    """Median seconds of fits by method and size of training data, of methods measured at enough sizes; else empty."""
    columns = ["job_id", "role", "method", "task", "preset", "status", "fit_seconds", "n_cells", "n_genes"]
    found = rows.reindex(columns=columns).drop_duplicates("job_id")
    found = found.assign(values=found["n_cells"] * found["n_genes"])
    known = (found["values"] > 0) & (found["fit_seconds"] > 0)
    found = found[(found["role"] == "method") & (found["status"] == "ok") & known]
    of_task = found.groupby(["method", "task", "preset"], as_index=False).agg(
        values=("values", "median"), seconds=("fit_seconds", "median")
    )
    return of_task[of_task.groupby("method")["values"].transform("nunique") >= MIN_SIZES]


def _tuning_table(tuned: pd.DataFrame) -> Table:
    columns = {
        "task": _texts(tuned["task"].where(tuned["preset"] == "default", tuned["task"] + " (" + tuned["preset"] + ")")),
        "method": _texts(tuned["method"]),
        **{
            name: _numbers(tuned[name].map(lambda value: fixed(value, 2)), tuned[name])
            for name in ("default", "tuned", "oracle")
        },
        **{
            f"{name} [95 %]": _numbers(with_interval(tuned, name, f"{name}_low", f"{name}_high"), tuned[name])
            for name in ("gain", "left")
        },
        "place": _numbers(spans(tuned["place"], tuned["place"]), tuned["place"]),
        "tuned place": _numbers(spans(tuned["place_tuned"], tuned["place_tuned"]), tuned["place_tuned"]),
        "units": _numbers(tuned["n_units"].astype(str), tuned["n_units"]),
    }
    return _table(columns, pd.Series(["method"] * len(tuned)))


def _answers_table(answers: pd.DataFrame) -> Table:
    columns = {
        "level": _texts(answers["level"]),
        "metric": _texts(answers["metric"]),
        "r [95 %]": _numbers(with_interval(answers, "value", "low", "high"), answers["value"]),
        f"given {RECONSTRUCTION}": _numbers(
            with_interval(answers, "partial", "partial_low", "partial_high"), answers["partial"]
        ),
        "points": _numbers(answers["n_points"].astype(str), answers["n_points"]),
        "methods or units": _numbers(answers["n_groups"].astype(str), answers["n_groups"]),
    }
    return _table(columns, pd.Series(["method"] * len(answers)))


def _texts(values: pd.Series) -> list[Cell]:
    return [Cell(DASH if pd.isna(value) else str(value)) for value in values]


def _numbers(texts: Sequence[str] | pd.Series, values: pd.Series) -> list[Cell]:
    """Cells sorted by their value; what is not defined sorts below everything."""
    return [
        Cell(text, float(value) if np.isfinite(value) else -1e300) for text, value in zip(texts, values, strict=True)
    ]


def _ranks(frame: pd.DataFrame) -> list[Cell]:
    known = frame["rank_low"].notna()
    texts = spans(frame["rank_low"].where(known, frame["rank"]), frame["rank_high"].where(known, frame["rank"]))
    return [
        Cell(text, float(rank) if np.isfinite(rank) else 1e300) for text, rank in zip(texts, frame["rank"], strict=True)
    ]


def _table(columns: Mapping[str, Sequence[Cell]], roles: pd.Series) -> Table:
    rows = zip(*columns.values(), strict=True)
    return Table(list(columns), [Row(list(r), role != "method") for r, role in zip(rows, roles, strict=True)])
