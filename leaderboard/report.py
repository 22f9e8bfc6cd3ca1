"""The report: one HTML page with everything in it, that needs no network.

Tables are HTML, sorted and filtered by DataTables; figures are drawn by plotly. Both libraries, the figures and the
files to download are packed (gzip) and unpacked by the page when they are needed. A page without scripts still has
every table, note and failure.
"""

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from leaderboard import association, claims, plots
from leaderboard.association import BETWEEN, DISENTANGLEMENT, RECONSTRUCTION, WITHIN
from leaderboard.formatting import ARROWS, DASH, fixed, p_value, probability, raw, spans, verdicts, with_interval
from leaderboard.sentences import (
    LINE_COLUMNS,
    SMOKE,
    answer,
    answers,
    common_question,
    folded_skips,
    lines,
    suite_title,
    task_title,
)
from leaderboard.table import Leaderboard, SuiteTable, TaskTable
from leaderboard.tuning import HOW_TO_READ_TUNING, tuning, tuning_sentence
from leaderboard.writers import HOW_TO_READ, HOW_TO_READ_SUITE, costs, document, primaries, to_csv

if TYPE_CHECKING:
    from jinja2 import Template

#: Distances of units differ where the largest is more than so many times the smallest.
UNLIKE = 1.25
#: A plot of fewer points than this says nothing.
MIN_POINTS = 4
#: Significant digits of numbers that are drawn, of those of pairs, of which there may be many, and of other numbers.
DRAWN, PAIRED, PRECISE = 3, 3, 6


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is read, what it is sorted by (None: its text), and an interval to draw beside it.

    The interval is four shares of the cell's width: low, value, high, and where 1 lies; empty for none.
    """

    text: str
    order: float | None = None
    bar: tuple[float, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of a table; its role is ``method``, ``simple``, ``reference`` or ``oracle``."""

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
    kinds: Mapping[str, str] | None = None,
) -> str:
    """The page.

    Parameters
    ----------
    curves : training curves: job_id, term, epoch, value. May be empty.
    pictures : codes in two dimensions: job_id, x, y, environment, content, trained. May be empty.
    header_lines : command, date, commit and the like, shown as they are.
    questions : what each task/dataset asks, in words; a task without is called by its name.
    kinds : all registered methods, and whether each is a ``method`` or a ``simple`` one. Colours and markers are given
        to them, so that they are the same in every run.
    """
    questions, kinds = questions or {}, kinds or {}
    from markupsafe import Markup

    jobs = association.fit_scores(leaderboard)
    of = plots.styles(list(jobs["method"]), list(kinds))
    figures: dict[str, Any] = {}
    suites = [_suite_part(leaderboard, suite, kinds, figures) for suite in leaderboard.suites]
    tasks = [
        _task_part(leaderboard, table, jobs, curves, pictures, kinds, of, figures, number)
        for number, table in enumerate(leaderboard.tasks, 1)
    ]
    related = association.answers(jobs)
    answered = not related.empty and related["value"].notna().any()
    if answered:
        metric = _asked_most(related)
        points = {level: association.points(jobs, metric, level) for level in (BETWEEN, WITHIN)}
        if min(len(pairs) for pairs, _ in points.values()) >= MIN_POINTS:
            figures["disentanglement"] = plots.disentanglement(points, metric, of)
    boards = [*suites, *tasks]
    tuned = tuning(leaderboard)
    claimed = claims.outcomes(leaderboard)
    decided = [one for one in claimed if one.verdict != claims.NO_ROWS]
    sizes = _sizes(leaderboard.rows)
    if len(sizes):
        figures["growth"] = plots.growth(sizes, of)
    comparisons = [table.comparison for table in leaderboard.suites] + [table.comparison for table in leaderboard.tasks]
    pairs = any(len(comparison.pairs) for comparison in comparisons)
    present = {
        "Answers": ("answers", True),
        "All methods": ("ranked", bool(boards)),
        "One against another": ("pairwise", pairs),
        "What the papers claim": ("claims", bool(decided)),
        "What tuning buys": ("tuning", bool(len(tuned))),
        "Tasks": ("tasks", bool(tasks)),
        "Disentanglement and skill": ("disentanglement", answered),
        "Cost against size": ("growth", bool(len(sizes))),
        "Skipped": ("skipped", bool(len(leaderboard.skipped))),
    }

    own = files("leaderboard") / "templates"
    return template("report.html.j2").render(
        title=title,
        sections=[(anchor, name) for name, (anchor, there) in present.items() if there],
        smoke=SMOKE if any(table.preset == "smoke" for table in leaderboard.tasks) else "",
        question=common_question(leaderboard, questions),
        nothing="" if leaderboard.tasks else answers(leaderboard)[0],
        columns=LINE_COLUMNS,
        lines=list(zip(lines(leaderboard, questions), boards, strict=True)),
        boards=boards,
        pairs=pairs,
        about=list(header_lines),
        suites=suites,
        tasks=tasks,
        claims=decided,
        claims_without_rows=[one for one in claimed if one not in decided],
        claim_columns=claims.COLUMNS,
        how_to_read_claims=_plain(claims.HOW_TO_READ_CLAIMS),
        tuning=_tuning_table(tuned) if len(tuned) else None,
        tuning_sentence=tuning_sentence(tuned),
        how_to_read_tuning=_plain(HOW_TO_READ_TUNING),
        related=_related_table(related) if answered else None,
        relation=association_sentence(related),
        skipped=folded_skips(leaderboard.skipped).to_dict("records"),
        how_to_read=[_plain(line) for line in (*HOW_TO_READ, HOW_TO_READ_SUITE)],
        figures=figures,
        heights={name: int(figure.layout.height) for name, figure in figures.items()},
        css=Markup((own / "report.css").read_text()),
        js=Markup((own / "report.js").read_text()),
        table_css=Markup(_library("itables", "html/dt_bundle.css")),
        packed={
            "data": _packed(_data(leaderboard, header_lines, figures)),
            "plotly": _packed(_library("plotly", "package_data/plotly.min.js")),
            "datatables": _packed(_library("itables", "html/dt_bundle.js")),
        },
    )


def template(name: str) -> "Template":
    """A page of this package to be filled in; what is filled in is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("leaderboard"), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment.get_template(name)


@lru_cache
def _library(package: str, path: str) -> str:
    return (files(package) / path).read_text(encoding="utf-8")


@lru_cache(maxsize=4)
def _packed(text: str) -> str:
    """Text that the page unpacks when it needs it: gzip in base64, which cannot end the script that it stands in."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _data(leaderboard: Leaderboard, header_lines: Sequence[str], figures: Mapping[str, Any]) -> str:
    """What the page's scripts read: the figures, and the tables as files to download."""
    tasks, suites = to_csv(leaderboard)
    board = document(leaderboard, header_lines)
    for table in (*board["suites"], *board["tasks"]):
        table["pairs"] = _rounded(table["pairs"], PAIRED)
    content = {
        "figures": {name: _rounded(figure.to_plotly_json(), DRAWN) for name, figure in figures.items()},
        "files": {"leaderboard.csv": tasks, **({"leaderboard_suite.csv": suites} if leaderboard.suites else {})},
        "board": _rounded(board, PRECISE),
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _rounded(value: Any, digits: int) -> Any:
    """JSON with floats of so many significant digits, which pack well; what is not finite is null."""
    if isinstance(value, float | np.floating):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, dict) and "bdata" in value:  # an array as plotly writes it, with all its digits
        array = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        return _rounded(array.reshape([int(n) for n in value.get("shape", "-1").split(",")]), digits)
    if isinstance(value, dict):
        return {key: _rounded(item, digits) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _rounded(value.tolist(), digits)
    if isinstance(value, list | tuple):
        return [_rounded(item, digits) for item in value]
    return int(value) if isinstance(value, np.integer) else value


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
    leaderboard: Leaderboard, suite: SuiteTable, kinds: Mapping[str, str], figures: dict[str, Any]
) -> dict[str, Any]:
    compared = [t for t in leaderboard.tasks if t.preset == suite.preset and t.task in suite.tasks]
    anchor, frame = f"suite-{suite.preset}", suite.frame
    if compared:
        figures[anchor] = plots.profile(suite, compared)
    if suite.comparison.power.n_pairs > 1:
        figures[f"{anchor}-wins"] = plots.p_better(suite.comparison.pairs, list(frame["method"]))
    others = frame.assign(others=frame["relative_error"])
    columns = {
        **_compared(frame, kinds, plots.edges_of(compared) if compared else None),
        "other tasks [95 %]": _numbers(
            with_interval(others, "others", "others_low", "others_high"), frame["relative_error"]
        ),
        **_cost(frame),
        "tasks": _numbers(frame["n_tasks"].astype(str), frame["n_tasks"]),
        **_tests(frame),
    }
    return {
        "anchor": anchor,
        "title": suite_title(suite),
        "answer": answer(suite).sentence,
        "table": _table(columns, _kinds(frame, kinds)),
        "metrics": {},
        "notes": suite.notes,
    }


def _task_part(
    leaderboard: Leaderboard,
    table: TaskTable,
    jobs: pd.DataFrame,
    curves: pd.DataFrame,
    pictures: pd.DataFrame,
    kinds: Mapping[str, str],
    of: Mapping[str, plots.Style],
    figures: dict[str, Any],
    number: int,
) -> dict[str, Any]:
    anchor, frame = f"task-{number}", table.frame
    here = jobs[(jobs["task"] == table.task) & (jobs["preset"] == table.preset)]
    methods = frame[(frame["role"] == "method") & frame["relative_error"].notna()]
    silent: list[str] = []
    if len(methods):
        figures[f"{anchor}-intervals"] = plots.intervals(table, of)
        if len(table.units) > 1:
            figures[f"{anchor}-heat"] = plots.heat(table)
        else:
            silent.append("errors by held-out unit, as there is one")
        if table.comparison.power.n_pairs > 1:
            figures[f"{anchor}-wins"] = plots.p_better(table.comparison.pairs, list(frame["method"]))
        else:
            silent.append("the probabilities of all pairs, as there is one pair at most")
        if _spread_out(here):
            figures[f"{anchor}-distance"] = plots.distance(here, table, of)
        elif association.DISTANCE in here:
            silent.append("error against distance, as the held-out units are all as far from the training cells")
        if (methods["fit_seconds"] > 0).sum() >= MIN_POINTS:
            figures[f"{anchor}-cost"] = plots.cost(table, of)
        else:
            silent.append(f"error against cost, as fewer than {MIN_POINTS} methods have both")
    names = dict(zip(here["job_id"].astype(str), here["method"].astype(str), strict=True))
    first = here.sort_values(["seed", "unit"]).drop_duplicates("method")
    shown = pictures[pictures["job_id"].isin(names)]
    if not shown.empty:
        figures[f"{anchor}-codes"] = plots.embeddings(shown, names)
    of_first = curves[curves["job_id"].isin(first["job_id"])]
    if not of_first.empty:
        figures[f"{anchor}-training"] = plots.training(of_first, names, of)

    columns = _compared(frame, kinds, plots.edges_of([table]))
    for metric, better in table.primary.items():
        columns[f"{metric} {ARROWS[better]}"] = _numbers(frame[metric].map(raw), frame[metric])
    columns |= {**_cost(frame), **_tests(frame)}
    failed = leaderboard.failures
    return {
        "anchor": anchor,
        "title": task_title(table),
        "answer": answer(table).sentence,
        "open": len(leaderboard.tasks) == 1,
        "silent": silent,
        "what": (
            f"Held out: {len(table.units)} unit{'' if len(table.units) == 1 else 's'}; intervals over "
            f"{table.replicates}; {len(table.seeds)} seed{'' if len(table.seeds) == 1 else 's'}; task version "
            f"{table.version}{f', data {table.data}' if table.data else ''}. Primary: {primaries(table)}. "
            f"Baseline: {table.baseline or 'as the task defines it'}. {costs(table)}"
        ),
        "table": _table(columns, _kinds(frame, kinds)),
        "metrics": {metric: ARROWS[better] for metric, better in table.better.items()},
        "notes": table.notes,
        "failures": _folded(failed[failed["task"] == table.task]),
    }


def _spread_out(jobs: pd.DataFrame) -> bool:
    """Whether held-out units are unlike in their distance from the training cells."""
    if association.DISTANCE not in jobs:
        return False
    of_unit = jobs.groupby("unit")[association.DISTANCE].mean().dropna()
    return len(of_unit) >= MIN_POINTS and bool(of_unit.max() > UNLIKE * of_unit.min())


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


def _kinds(frame: pd.DataFrame, kinds: Mapping[str, str]) -> pd.Series:
    """What each row is: ``method``, ``simple`` (a simple method), ``reference`` or ``oracle``."""
    registered = frame["method"].str.partition("@")[0].map(lambda name: kinds.get(name, "method"))
    return registered.where(frame["role"] == "method", frame["role"])


def _compared(
    frame: pd.DataFrame, kinds: Mapping[str, str], edges: tuple[float, float] | None
) -> dict[str, list[Cell]]:
    """The first columns of tasks and suites; ``edges`` are those of the axis of the bars."""
    numbers = _numbers(with_interval(frame, "relative_error", "low", "high"), frame["relative_error"])
    if edges is not None:
        ends = zip(frame["relative_error"], frame["low"], frame["high"], strict=True)
        numbers = [
            replace(cell, bar=_bar(value, low, high, edges))
            for cell, (value, low, high) in zip(numbers, ends, strict=True)
        ]
    return {
        "method": _texts(frame["method"]),
        "kind": _texts(_kinds(frame, kinds)),
        "relative error [95 %]": numbers,
        "verdict": _texts(pd.Series(verdicts(frame))),
        "P(better)": _numbers(frame["p_better"].map(probability), frame["p_better"]),
    }


def _cost(frame: pd.DataFrame) -> dict[str, list[Cell]]:
    return {
        "fit, s": _numbers(frame["fit_seconds"].map(raw), frame["fit_seconds"]),
        "memory, MB": _numbers(frame["peak_memory_mb"].map(lambda v: fixed(v, 0)), frame["peak_memory_mb"]),
        "coverage": _texts(frame["coverage"]),
    }


def _tests(frame: pd.DataFrame) -> dict[str, list[Cell]]:
    return {
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
    return of_task[of_task.groupby("method")["values"].transform("nunique") >= MIN_POINTS]


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
