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
from leaderboard.sentences import answer, answers
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
    verdicts,
    with_interval,
)

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
    related = association.answers(jobs)
    answered = not related.empty and related["value"].notna().any()
    if answered:
        metric = _asked_most(related)
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
        findings=[*answers(leaderboard), *([association_sentence(related)] if answered else [])],
        about=list(header_lines),
        suites=suites,
        tasks=tasks,
        tuning=_tuning_table(tuned) if len(tuned) else None,
        tuning_sentence=tuning_sentence(tuned),
        how_to_read_tuning=_plain(HOW_TO_READ_TUNING),
        answers=_answers_table(related) if answered else None,
        answer=association_sentence(related),
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
        **_compared(frame),
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
        figures[f"{anchor}-heat"] = plots.heat(table)
        figures[f"{anchor}-wins"] = plots.p_better(table.comparison.pairs, list(frame["method"]))
        if association.DISTANCE in here and here["unit"].nunique() > 1:
            figures[f"{anchor}-distance"] = plots.distance(here, table, of)
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

    columns = {"method": _texts(frame["method"]), **_compared(frame)}
    for metric, better in table.primary.items():
        columns[f"{metric} {ARROWS[better]}"] = _numbers(frame[metric].map(raw), frame[metric])
    columns["coverage"] = _texts(frame["coverage"])
    columns["fit, s"] = _numbers(frame["fit_seconds"].map(raw), frame["fit_seconds"])
    columns["memory, MB"] = _numbers(frame["peak_memory_mb"].map(lambda v: fixed(v, 0)), frame["peak_memory_mb"])
    failed = leaderboard.failures
    return {
        "anchor": anchor,
        "title": table.task if table.preset == "default" else f"{table.task} ({table.preset})",
        "verdict": answer(table),
        "what": (
            f"Held out: {len(table.units)} unit{'' if len(table.units) == 1 else 's'}; intervals over "
            f"{table.replicates}; {len(table.seeds)} seed{'' if len(table.seeds) == 1 else 's'}; task version "
            f"{table.version}. Primary: {primaries(table)}. Baseline: {table.baseline or 'as the task defines it'}. "
            f"{costs(table)}"
        ),
        "table": _table(columns, frame["role"]),
        "notes": table.notes,
        "failures": failed[failed["task"] == table.task].to_dict("records"),
    }


def _compared(frame: pd.DataFrame) -> dict[str, list[Cell]]:
    """The columns that tasks and suites share."""
    return {
        "relative error [95 %]": _numbers(
            with_interval(frame, "relative_error", "low", "high"), frame["relative_error"]
        ),
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


def _table(columns: Mapping[str, Sequence[Cell]], roles: pd.Series) -> Table:
    rows = zip(*columns.values(), strict=True)
    return Table(list(columns), [Row(list(r), role != "method") for r, role in zip(rows, roles, strict=True)])
