"""The report: one HTML page with everything in it, that needs no network.

Tables are sorted and filtered by DataTables, figures drawn by plotly, both inlined once. A page without scripts still
has every table, note and failure.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from leaderboard import association, plots
from leaderboard.association import BETWEEN, DISENTANGLEMENT, RECONSTRUCTION, WITHIN
from leaderboard.sentences import SMOKE, answer, answers, named, what_is_told
from leaderboard.statistics import BETTER, EQUIVALENT, UNDECIDED, WORSE
from leaderboard.table import Leaderboard, SuiteTable, TaskTable
from leaderboard.tuning import HOW_TO_READ_TUNING, tuning, tuning_sentence
from leaderboard.writers import (
    ARROWS,
    DASH,
    HOW_TO_READ,
    HOW_TO_READ_SUITE,
    costs,
    fixed,
    p_value,
    primaries,
    probability,
    raw,
    spans,
    to_csv,
    to_json,
    verdicts,
    with_interval,
)

#: Distances of units differ where the largest is more than so many times the smallest.
UNLIKE = 1.25
#: Growth is drawn from as many sizes of training data on.
MIN_SIZES = 3


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is read, what it is sorted by (None: its text), and an interval to draw beside it.

    The interval is three shares of the cell's width (low, value, high) and where 1 lies; empty for none.
    """

    text: str
    order: float | None = None
    bar: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a table; its role is ``method``, ``reference`` or ``oracle``."""

    cells: list[Cell]
    role: str = "method"


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
    questions: Mapping[str, str] | None = None,
) -> str:
    """The page.

    Parameters
    ----------
    curves : training curves: job_id, term, epoch, value. May be empty.
    pictures : codes in two dimensions: job_id, x, y, environment, content, trained. May be empty.
    header_lines : command, date, commit and the like, shown as they are.
    questions : what each task/dataset asks, in words; a task without is called by its name.
    """
    questions = questions or {}
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
    related = association.answers(jobs)
    answered = not related.empty and related["value"].notna().any()
    if answered:
        metric = _asked_most(related)
        points = {level: association.points(jobs, metric, level) for level in (BETWEEN, WITHIN)}
        figures["disentanglement"] = plots.disentanglement(points, metric, of)
    sections = [("answers", "Answers"), *((suite["anchor"], suite["title"]) for suite in suites)]
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
        smoke=SMOKE if any(table.preset == "smoke" for table in leaderboard.tasks) else "",
        question=_question(leaderboard, questions),
        nothing="" if leaderboard.tasks else answers(leaderboard)[0],
        answers_to=_answers_to(leaderboard, questions),
        downloads=_downloads(leaderboard, header_lines),
        pairs=Markup(json.dumps(_pairs(leaderboard)).replace("<", "\\u003c")),
        about=list(header_lines),
        suites=suites,
        tasks=tasks,
        tuning=_tuning_table(tuned) if len(tuned) else None,
        tuning_sentence=tuning_sentence(tuned),
        how_to_read_tuning=_plain(HOW_TO_READ_TUNING),
        related=_related_table(related) if answered else None,
        relation=association_sentence(related),
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


def _question(leaderboard: Leaderboard, questions: Mapping[str, str]) -> str:
    """The question of the run, where all its tasks ask one and the same."""
    asked = {questions.get(table.task, "") for table in leaderboard.tasks}
    return asked.pop() if len(asked) == 1 else ""


def _answers_to(leaderboard: Leaderboard, questions: Mapping[str, str]) -> list[dict[str, Any]]:
    """A line for each suite and task: the method to use, those like it, its error and cost, and how finely it tells."""
    suites = [_line(f"suite-{suite.preset}", "", _suite_title(suite), suite) for suite in leaderboard.suites]
    tasks = [
        _line(f"task-{number}", questions.get(table.task, ""), _task_title(table), table)
        for number, table in enumerate(leaderboard.tasks, 1)
    ]
    return suites + tasks


def _line(anchor: str, asked: str, name: str, table: TaskTable | SuiteTable) -> dict[str, Any]:
    found, frame = answer(table), table.frame.set_index("method")
    baseline = f" ({table.baseline})" if isinstance(table, TaskTable) and table.baseline else ""
    tested = frame["verdict"].isin([BETTER, WORSE, EQUIVALENT, UNDECIDED]).any()
    without = f"no method beats the best simple one{baseline}" if tested else "nothing can be concluded"
    error, cost = DASH, DASH
    if found.use:
        (error,) = with_interval(frame.loc[[found.use]], "relative_error", "low", "high")
        if isinstance(table, TaskTable):
            chosen = frame.loc[[found.use]].iloc[0]
            cost = f"{raw(chosen['fit_seconds'])} s, {fixed(chosen['peak_memory_mb'], 0)} MB"
    return {
        "anchor": anchor,
        "asked": asked,
        "name": name,
        "use": found.use or without,
        "chosen": bool(found.use),
        "tied": named(found.tied) if found.tied else DASH,
        "error": error,
        "cost": cost,
        "sure": what_is_told(table.comparison.power) or DASH,
        "sentence": found.sentence,
    }


def _task_title(table: TaskTable) -> str:
    return table.task if table.preset == "default" else f"{table.task} ({table.preset})"


def _suite_title(suite: SuiteTable) -> str:
    title = f"All {len(suite.tasks)} tasks"
    return title if suite.preset == "default" else f"{title} ({suite.preset})"


def _downloads(leaderboard: Leaderboard, header_lines: Sequence[str]) -> list[dict[str, str]]:
    """The tables as files within the page."""
    tasks, suites = to_csv(leaderboard)
    contents = {
        "leaderboard.csv": ("text/csv", tasks),
        **({"leaderboard_suite.csv": ("text/csv", suites)} if leaderboard.suites else {}),
        "leaderboard.json": ("application/json", to_json(leaderboard, header_lines)),
    }
    return [
        {"name": name, "address": f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"}
        for name, (kind, text) in contents.items()
    ]


def _pairs(leaderboard: Leaderboard) -> list[dict[str, Any]]:
    """The pairs of each table, as the page shows one of them: name, methods, and text by pair."""
    suites = [_pairs_of(_suite_title(suite), suite.comparison.pairs, "") for suite in leaderboard.suites]
    tasks = [
        _pairs_of(_task_title(table), table.comparison.pairs, "draws" if len(table.draws) > 1 else "units")
        for table in leaderboard.tasks
    ]
    return [part for part in suites + tasks if part["pairs"]]


def _pairs_of(name: str, pairs: pd.DataFrame, unit: str) -> dict[str, Any]:
    needed = pairs["replicates_for_10_percent"]
    columns = [
        pairs["method"],
        pairs["other"],
        with_interval(pairs, "ratio", "low", "high"),
        pairs["p_better"].map(probability),
        pairs["verdict"],
        [f"{math.ceil(n):,} {unit}" if unit and n < 1e6 else DASH for n in needed],
    ]
    return {"name": name, "pairs": [list(row) for row in zip(*columns, strict=True)]}


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


# --- parts of the page


def _suite_part(
    leaderboard: Leaderboard, suite: SuiteTable, of: Mapping[str, plots.Style], figures: dict[str, Any]
) -> dict[str, Any]:
    compared = [t for t in leaderboard.tasks if t.preset == suite.preset and t.task in suite.tasks]
    anchor = f"suite-{suite.preset}"
    frame = suite.frame
    if compared:
        figures[anchor] = plots.profile(compared, of)
        figures[f"{anchor}-wins"] = plots.p_better(suite.comparison.pairs, list(frame["method"]))
    others = frame.assign(others=frame["relative_error"])
    columns = {
        "method": _texts(frame["method"]),
        **_compared(frame, plots.edges_of(compared) if compared else None),
        "other tasks [95 %]": _numbers(
            with_interval(others, "others", "others_low", "others_high"), frame["relative_error"]
        ),
    }
    for table in compared:
        error = frame["method"].map(table.frame.set_index("method")["relative_error"])
        columns[table.task] = _numbers(error.map(lambda value: fixed(value, 2)), error)
    columns["tasks"] = _numbers(frame["n_tasks"].astype(str), frame["n_tasks"])
    return {
        "anchor": anchor,
        "title": _suite_title(suite),
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
    silent: list[str] = []
    if not here.empty and here["score"].notna().any():
        figures[f"{anchor}-intervals"] = plots.intervals(table, of)
        figures[f"{anchor}-heat"] = plots.heat(table)
        figures[f"{anchor}-wins"] = plots.p_better(table.comparison.pairs, list(frame["method"]))
        if _spread_out(here):
            figures[f"{anchor}-distance"] = plots.distance(here, table, of)
        elif association.DISTANCE in here:
            silent.append("error against distance, as the held-out units are all as far from the training cells")
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

    columns = {"method": _texts(frame["method"]), **_compared(frame, plots.edges_of([table]))}
    for metric, better in table.primary.items():
        columns[f"{metric} {ARROWS[better]}"] = _numbers(frame[metric].map(raw), frame[metric])
    columns["coverage"] = _texts(frame["coverage"])
    columns["fit, s"] = _numbers(frame["fit_seconds"].map(raw), frame["fit_seconds"])
    columns["memory, MB"] = _numbers(frame["peak_memory_mb"].map(lambda v: fixed(v, 0)), frame["peak_memory_mb"])
    failed = leaderboard.failures
    failed = failed[failed["task"] == table.task]
    return {
        "anchor": anchor,
        "title": _task_title(table),
        "answer": answer(table).sentence,
        "open": len(leaderboard.tasks) == 1,
        "silent": silent,
        "what": (
            f"Held out: {len(table.units)} unit{'' if len(table.units) == 1 else 's'}; intervals over "
            f"{table.replicates}; {len(table.seeds)} seed{'' if len(table.seeds) == 1 else 's'}; task version "
            f"{table.version}. Primary: {primaries(table)}. Baseline: {table.baseline or 'as the task defines it'}. "
            f"{costs(table)}"
        ),
        "table": _table(columns, frame["role"]),
        "notes": table.notes,
        "failures": _folded(failed),
    }


def _spread_out(jobs: pd.DataFrame) -> bool:
    """Whether held-out units are unlike in their distance from the training cells."""
    if association.DISTANCE not in jobs:
        return False
    of_unit = jobs.groupby("unit")[association.DISTANCE].mean().dropna()
    return len(of_unit) > 2 and bool(of_unit.max() > UNLIKE * of_unit.min())


def _folded(failures: pd.DataFrame) -> list[dict[str, Any]]:
    """Failed jobs by method, status and reason: how many, and the first one's replay."""
    folded = []
    for (method, status, reason), jobs in failures.groupby(["method", "status", "reason"], sort=False):
        first = {str(name): jobs[name].iloc[0] for name in ("unit", "seed", "replay")}
        folded.append({"method": method, "status": status, "reason": reason, "n": len(jobs), **first})
    return folded


def _bar(value: float, low: float, high: float, edges: tuple[float, float]) -> tuple[float, ...]:
    """Low, value, high and 1 as shares of a logarithmic axis with these edges; empty without a value."""
    if not np.isfinite(value):
        return ()
    ends = [value if not np.isfinite(x) else x for x in (low, value, high)]
    shares = (np.log(np.clip([*ends, 1.0], *edges)) - np.log(edges[0])) / np.log(edges[1] / edges[0])
    return tuple(round(float(share), 3) for share in shares)


def _compared(frame: pd.DataFrame, edges: tuple[float, float] | None) -> dict[str, list[Cell]]:
    """The columns that tasks and suites share; ``edges`` are those of the axis of the bars."""
    numbers = _numbers(with_interval(frame, "relative_error", "low", "high"), frame["relative_error"])
    if edges is not None:
        ends = zip(frame["relative_error"], frame["low"], frame["high"], strict=True)
        numbers = [
            replace(cell, bar=_bar(value, low, high, edges))
            for cell, (value, low, high) in zip(numbers, ends, strict=True)
        ]
    return {
        "relative error [95 %]": numbers,
        "verdict": _texts(pd.Series(verdicts(frame))),
        "P(better)": _numbers(frame["p_better"].map(probability), frame["p_better"]),
        "p": _numbers(frame["p"].map(p_value), frame["p"]),
        "rank": _numbers(spans(frame["rank_low"], frame["rank_high"]), frame["rank_low"]),
    }


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


def _related_table(answers: pd.DataFrame) -> Table:
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


def _table(columns: Mapping[str, Sequence[Cell]], roles: pd.Series) -> Table:
    rows = zip(*columns.values(), strict=True)
    return Table(list(columns), [Row(list(r), role) for r, role in zip(rows, roles, strict=True)])
