"""One table per task and preset, from tidy rows: one row per (job, metric).

Rows of different presets, task versions, data or configs are never averaged together, a job that is
not ok never counts as a score, and whatever cannot be concluded is said in a note.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leaderboard.comparison import BASELINE, CEILING, FLOOR, Comparison, compare, compare_suite
from leaderboard.statistics import MIN_BOOTSTRAP_UNITS, Array, mean_of_finite

__all__ = ["BASELINE", "CEILING", "FLOOR", "Leaderboard", "SuiteTable", "TaskTable", "build"]

WHOLE_TASK = "*"  # the unit of a row that stands for a skipped method × task
#: What is added to the label of a method that was tuned (:mod:`leaderboard.tuning`).
TUNED, ORACLE = "@tuned", "@oracle"
_JOB_COLUMNS = ["job_id", "method", "task", "unit", "seed", "status", "reason", "replay"]


@dataclass(frozen=True)
class TaskTable:
    """The table of one task at one preset.

    Parameters
    ----------
    primary : the primary metrics with their better direction, "higher" or "lower".
    baseline : how often which simple method was the baseline, as text.
    comparison : the statistics behind the frame, with what does not fit into it: P(A > B) and paired differences.
    frame : one row per method and reference: method, role, one column per primary metric (raw, mean over
        seeds, then over units), the columns of :class:`~leaderboard.comparison.Comparison`, coverage (ok/planned
        jobs, or "skipped"), fit_seconds (median) and peak_memory_mb (maximum) of ok jobs. Best score first, no
        score last.
    notes : what cannot be concluded from the table, and why.
    """

    task: str
    preset: str
    version: int
    units: tuple[str, ...]
    seeds: tuple[int, ...]
    primary: dict[str, str]
    baseline: str
    comparison: Comparison
    frame: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SuiteTable:
    """The tasks of one preset together.

    Parameters
    ----------
    frame : one row per method and reference: method, role and the columns of
        :class:`~leaderboard.comparison.Comparison`, n_tasks for n_units. Best score first, no score last.
    notes : what cannot be concluded from the table, and why.
    """

    preset: str
    tasks: tuple[str, ...]
    comparison: Comparison
    frame: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Leaderboard:
    """All tables, the jobs that failed, the methods that were skipped, and every note.

    Parameters
    ----------
    rows : the rows that the tables rest on, labelled as they are there.
    suites : one for each preset with more than one task.
    failures : one row per job: method, task, unit, seed, status, reason, replay.
    skipped : one row per reason: method, task, reason.
    notes : the notes of all tables, each with its task (or "suite") and preset before it.
    """

    rows: pd.DataFrame
    tasks: list[TaskTable]
    suites: list[SuiteTable]
    failures: pd.DataFrame
    skipped: pd.DataFrame
    notes: list[str]


def build(rows: pd.DataFrame) -> Leaderboard:
    """Tables from tidy results.

    Parameters
    ----------
    rows : one row per (job, metric) with the columns job_id, role, method, config, task, task_version,
        unit, seed, preset, metric, value, primary, two_sided, better, status, reason, fit_seconds, peak_memory_mb,
        data_digest, replay and detail, and, where the cost is to be shown against the size of training data, n_cells
        and n_genes. In order of time: of two results for the same method, unit and
        seed the later one counts. May be empty, and then needs no columns.
    """
    tasks, kept = [], []
    if not rows.empty:
        for (task, preset), group in rows.groupby(["task", "preset"], sort=False):
            notes: list[str] = []
            group = _one_data_set(group, notes)
            anywhere = rows.loc[(rows["preset"] == preset) & (rows["role"] == "method"), "method"]
            if absent := sorted(set(anywhere) - set(group["method"])):
                notes.append(f"not run here, so not compared: {', '.join(absent)}")
            group = _one_job_per_cross(group, notes)
            tasks.append(_task_table(str(task), str(preset), group, notes))
            kept.append(group)
    rows = pd.concat(kept) if kept else pd.DataFrame(columns=_JOB_COLUMNS)
    jobs = rows.drop_duplicates("job_id")
    failed = ~jobs["status"].isin(["ok", "skipped"])
    suites = [
        _suite_table(preset, of_preset)
        for preset in dict.fromkeys(table.preset for table in tasks)
        if len(of_preset := [table for table in tasks if table.preset == preset]) > 1
    ]
    return Leaderboard(
        rows=rows,
        tasks=tasks,
        suites=suites,
        failures=jobs.loc[failed, _JOB_COLUMNS[1:]].reset_index(drop=True),
        skipped=jobs.loc[jobs["status"] == "skipped", ["method", "task", "reason"]]
        .drop_duplicates()
        .reset_index(drop=True),
        notes=[f"{table.task} ({table.preset}): {note}" for table in tasks for note in table.notes]
        + [f"suite ({table.preset}): {note}" for table in suites for note in table.notes]
        or ([] if tasks else ["there are no results, so nothing can be concluded"]),
    )


def _one_data_set(group: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Keep the newest task version and, within it, the data digest with the most jobs."""
    newest = group["task_version"].max()
    old = group["task_version"] != newest
    for version, rows in group[old].groupby("task_version"):
        notes.append(f"left out: {_jobs(rows)} of task version {version}, the table shows version {newest}")
    group = group[~old]
    # A job that failed before it saw the data, or was skipped, has no digest: it belongs to any.
    digest = group["data_digest"].fillna("")
    counts = group[digest != ""].groupby("data_digest", sort=False)["job_id"].nunique()
    if len(counts) < 2:
        return group
    chosen = counts[counts == counts.max()].index[-1]
    for other in counts.index.drop(chosen):
        rows = group[digest == other]
        notes.append(f"left out: {_jobs(rows)} on data {other}, the table shows data {chosen}")
    return group[digest.isin(["", chosen])]


def _one_job_per_cross(group: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Tell configs under one label apart, then keep the last of several jobs that are the same cross."""
    group = group.copy()
    tuned = group["method"].str.endswith((TUNED, ORACLE))  # each unit has its own configuration
    tried = group[(group["role"] == "method") & (group["status"] != "skipped") & ~tuned]
    for method, rows in tried.groupby("method", sort=False):
        configs = rows["config"].unique()
        if len(configs) > 1:
            for number, config in enumerate(configs, 1):
                label = f"{method} (config {number})"
                group.loc[(group["method"] == method) & (group["config"] == config), "method"] = label
                notes.append(f"{label} is {config}")
    cross = ["method", "unit", "seed"]
    superseded = group["job_id"] != group.groupby(cross, sort=False)["job_id"].transform("last")
    if superseded.any():
        jobs = _jobs(group[superseded])
        notes.append(f"left out: {jobs} with a later result for the same method, unit and seed")
    return group[~superseded]


def _task_table(task: str, preset: str, group: pd.DataFrame, notes: list[str]) -> TaskTable:
    primary = group[group["primary"].astype(bool)].drop_duplicates("metric").set_index("metric")["better"]
    planned = group[~((group["status"] == "skipped") & (group["unit"] == WHOLE_TASK))]
    units = tuple(sorted(planned["unit"].unique()))
    seeds = tuple(sorted(planned["seed"].unique()))
    roles = {str(method): str(jobs["role"].iloc[0]) for method, jobs in group.groupby("method", sort=False)}
    values, tried = _values(group, list(roles), list(units), list(seeds), list(primary.index), notes)
    found = compare(values, tried, roles, units, dict(primary), bool(group["two_sided"].any()))
    notes += found.notes
    _say_what_is_missing(found, values, notes)
    raw = pd.DataFrame(
        {metric: mean_of_finite(mean_of_finite(values[..., k], 2), 1) for k, metric in enumerate(primary.index)},
        index=list(roles),
    )

    records = []
    for method, jobs in group.drop_duplicates("job_id").groupby("method", sort=False):
        ok = jobs[jobs["status"] == "ok"]
        n_planned = planned.loc[planned["method"] == method, "job_id"].nunique()
        records.append(
            {"method": method, "role": roles[str(method)]}
            | raw.loc[str(method)].to_dict()
            | found.frame.loc[str(method)].to_dict()
            | {
                "coverage": f"{len(ok)}/{n_planned}" if n_planned else "skipped",
                "fit_seconds": ok["fit_seconds"].median(),
                "peak_memory_mb": ok["peak_memory_mb"].max(),
                "n_ok": len(ok),
            }
        )
    frame = pd.DataFrame(records).sort_values(
        ["score", "n_ok", "coverage", "method"], ascending=[False, False, True, True], na_position="last"
    )
    _say_what_is_thin(frame, list(primary.index), len(seeds), notes)
    chosen = group[(group["method"] == BASELINE) & (group["status"] == "ok")].drop_duplicates("job_id")
    counts = chosen.loc[chosen["detail"].fillna("") != "", "detail"].value_counts()
    return TaskTable(
        task=task,
        preset=preset,
        version=int(group["task_version"].iloc[0]),
        units=units,
        seeds=seeds,
        primary={str(metric): str(better) for metric, better in primary.items()},
        baseline=", ".join(f"{name} in {count} of {len(chosen)} jobs" for name, count in counts.items()),
        comparison=found,
        frame=frame.drop(columns="n_ok").reset_index(drop=True),
        notes=tuple(notes),
    )


def _suite_table(preset: str, tables: list[TaskTable]) -> SuiteTable:
    roles = {str(row.method): str(row.role) for table in tables for row in table.frame.itertuples()}
    found = compare_suite({table.task: table.comparison for table in tables}, roles)
    frame = found.frame.rename(columns={"n_units": "n_tasks"}).rename_axis("method").reset_index()
    frame.insert(1, "role", frame["method"].map(roles))
    frame = frame.sort_values(["score", "method"], ascending=[False, True], na_position="last", ignore_index=True)
    notes = list(found.notes)
    some = frame[(frame["n_tasks"] > 0) & (frame["n_tasks"] < len(found.scored_on))]
    if len(some):
        each = ", ".join(f"{method} ({n})" for method, n in zip(some["method"], some["n_tasks"], strict=True))
        notes.append(
            f"scored on fewer than {len(found.scored_on)} tasks, so that the score is not like for like with the "
            f"others' and the rank is over the tasks that each pair shares: {each}"
        )
    return SuiteTable(preset, found.scored_on, found, frame, tuple(notes))


def _values(
    group: pd.DataFrame, methods: list[str], units: list[str], seeds: list[int], metrics: list[str], notes: list[str]
) -> tuple[Array, NDArray[np.bool_]]:
    """Values (n_methods, n_units, n_seeds, n_metrics), NaN where there is none, and which jobs were tried."""
    place = {name: pd.Index(labels) for name, labels in (("method", methods), ("unit", units), ("seed", seeds))}
    tried = np.zeros([len(index) for index in place.values()], dtype=bool)
    run = group[group["status"] != "skipped"]
    tried[tuple(index.get_indexer(pd.Index(run[name])) for name, index in place.items())] = True
    ok = group[(group["status"] == "ok") & group["metric"].isin(metrics)]
    values = np.full((*tried.shape, len(metrics)), np.nan)
    at = [index.get_indexer(pd.Index(ok[name])) for name, index in place.items()]
    values[(*at, pd.Index(metrics).get_indexer(pd.Index(ok["metric"])))] = ok["value"].astype(float)
    values[~np.isfinite(values)] = np.nan
    undefined = ok[~np.isfinite(ok["value"].astype(float))]
    for (method, metric), rows in undefined.groupby(["method", "metric"], sort=False):
        n_jobs = int(((ok["method"] == method) & (ok["metric"] == metric)).sum())
        notes.append(f"{metric} of {method} is undefined in {len(rows)} of {n_jobs} ok jobs")
    return values, tried


def _say_what_is_missing(found: Comparison, values: Array, notes: list[str]) -> None:
    """Notes on methods that are scored on less than the others, and on few units."""
    if not found.scored_on:
        return
    n_units = int(found.frame["n_units"].max())
    for m, (method, row) in enumerate(found.frame.iterrows()):
        if not np.isfinite(values[m]).any():
            continue  # its coverage says so
        if row["reason"]:
            notes.append(f"{method} has no score: {row['reason']}")
        elif row["n_units"] < n_units:
            notes.append(
                f"{method} is scored on {row['n_units']} of {n_units} units: its score is not like for like with the "
                "others', its rank is over the units that each pair shares"
            )
    if n_units == 1:
        notes.append("one unit: no interval, and nothing can be said about units not tried")
    elif 1 < n_units < MIN_BOOTSTRAP_UNITS:
        notes.append(f"{n_units} units, too few for a bootstrap: Student intervals on the linearised score")


def _say_what_is_thin(frame: pd.DataFrame, metrics: list[str], n_seeds: int, notes: list[str]) -> None:
    methods = frame[frame["role"] == "method"]
    done = methods[methods["n_ok"] > 0]
    if done.empty:
        notes.append("no method has an ok job: nothing is compared")
    elif len(done) == 1:
        notes.append("one method has ok jobs: it is compared with the references only")
    else:
        for metric in metrics:
            if done[metric].count() > 1 and done[metric].nunique() == 1:
                notes.append(f"{metric} is the same for all methods: it tells none apart")
    if n_seeds == 1:
        notes.append("one seed: the spread over seeds is not known")


def _jobs(rows: pd.DataFrame) -> str:
    count = rows["job_id"].nunique()
    return f"{count} job{'' if count == 1 else 's'}"
