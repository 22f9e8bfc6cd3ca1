"""One table per task and preset, from tidy rows: one row per (job, metric).

Rows of different presets, task versions, data or configs are never averaged together, a job that is
not ok never counts as a score, and whatever cannot be concluded is said in a note.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaderboard.comparison import BASELINE, CEILING, FLOOR, STRUCTURE, Comparison, compare, compare_suite
from leaderboard.statistics import Array

__all__ = ["BASELINE", "CEILING", "FLOOR", "STRUCTURE", "Leaderboard", "SuiteTable", "TaskTable", "build"]

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
    two_sided : whether a relative error is the larger of those of the primary metrics.
    baseline : how often which simple method was the baseline, as text.
    comparison : the statistics behind the frame.
    frame : one row per method and reference: method, role, one column per primary metric (raw, mean over
        seeds, then over units), the columns of :class:`~leaderboard.comparison.Comparison`, coverage (ok/planned
        jobs, or "skipped"), fit_seconds (median) and peak_memory_mb (maximum) of ok jobs. Smallest relative error
        first, none last.
    means : raw mean of every metric, method × metric, the primary ones first; over seeds, then over units.
    better : the better direction of each of them, "higher" or "lower".
    data : beginning of the SHA-256 of the data, or of the code and settings that make them; empty where no job saw any.
    core_seconds : seconds that the jobs of the task took, one core each.
    notes : what cannot be concluded from the table, and why.
    """

    task: str
    preset: str
    version: int
    units: tuple[str, ...]
    draws: tuple[int, ...]
    seeds: tuple[int, ...]
    primary: dict[str, str]
    two_sided: bool
    baseline: str
    comparison: Comparison
    frame: pd.DataFrame
    means: pd.DataFrame
    better: dict[str, str]
    data: str
    core_seconds: float
    notes: tuple[str, ...]

    @property
    def replicates(self) -> str:
        """Over what the intervals are, in words."""
        if len(self.draws) > 1:
            return f"{len(self.draws)} draws"
        return f"{len(self.units)} unit{'' if len(self.units) == 1 else 's'}"


@dataclass(frozen=True)
class SuiteTable:
    """The tasks of one preset together.

    Parameters
    ----------
    frame : one row per method and reference: method, role and the columns of
        :class:`~leaderboard.comparison.Comparison`, n_tasks for n_units, coverage over all tasks, and the median of the
        tasks' fit_seconds and the maximum of their peak_memory_mb. Smallest relative error first, none last.
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
        unit, draw, seed, preset, metric, value, primary, two_sided, one_fit, better, best, status, reason,
        fit_seconds, peak_memory_mb, started, finished, data_digest, replay and detail, and, where the cost is to be
        shown against the size of training data, n_cells and n_genes. In order of time: of two results for the same
        method, unit and seed the later one counts. May be empty, and then needs no columns.
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
    suites = []
    for preset in dict.fromkeys(table.preset for table in tasks):
        suite = _suite_table(preset, [table for table in tasks if table.preset == preset])
        if len(suite.tasks) > 1:  # of a run that has only begun few tasks have errors
            suites.append(suite)
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
    # a job that failed before it saw the data, or was skipped, has no digest: it belongs to every digest
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
    of_metric = group[group["primary"].astype(bool)].drop_duplicates("metric").set_index("metric")
    primary = {str(metric): str(better) for metric, better in of_metric["better"].items()}
    planned = group[~((group["status"] == "skipped") & (group["unit"] == WHOLE_TASK))]
    draw_of = planned.drop_duplicates("unit").set_index("unit")["draw"]
    units = tuple(sorted(draw_of.index, key=lambda unit: (-1 if pd.isna(draw_of[unit]) else draw_of[unit], unit)))
    draws = tuple(None if pd.isna(draw_of[unit]) else int(draw_of[unit]) for unit in units)
    seeds = tuple(sorted(planned["seed"].unique()))
    roles = {str(method): str(jobs["role"].iloc[0]) for method, jobs in group.groupby("method", sort=False)}
    values = _values(group, list(roles), list(units), list(seeds), list(primary), notes)
    best = of_metric["best"].astype(float)
    unbounded = [metric for metric in primary if not np.isfinite(best[metric])]
    if unbounded:
        notes.append(f"{', '.join(unbounded)} has no best possible value, so that nothing is known of errors")
        best = best.drop(unbounded)
    scored = [metric for metric in primary if metric in best.index]
    errors = np.abs(values[..., [list(primary).index(metric) for metric in scored]] - best[scored].to_numpy(float))
    two_sided, one_fit = bool(group["two_sided"].any()), bool(group["one_fit"].any())
    found = compare(errors, roles, units, draws, scored, two_sided, one_fit)
    notes += found.notes
    _say_what_is_missing(found, values, notes)
    _say_what_was_cut_short(group, notes)
    means = _means(group, list(roles), list(primary))
    directions = group.drop_duplicates("metric").set_index("metric")["better"]
    digests = group.loc[group["data_digest"].fillna("") != "", "data_digest"]

    records = []
    for method, jobs in group.drop_duplicates("job_id").groupby("method", sort=False):
        ok = jobs[jobs["status"] == "ok"]
        n_planned = planned.loc[planned["method"] == method, "job_id"].nunique()
        records.append(
            {"method": method, "role": roles[str(method)]}
            | means.loc[str(method), list(primary)].to_dict()
            | found.frame.loc[str(method)].to_dict()
            | {
                "coverage": f"{len(ok)}/{n_planned}" if n_planned else "skipped",
                "fit_seconds": ok["fit_seconds"].median(),
                "peak_memory_mb": ok["peak_memory_mb"].max(),
                "n_ok": len(ok),
            }
        )
    frame = pd.DataFrame(records).sort_values(
        ["relative_error", "n_ok", "coverage", "method"], ascending=[True, False, True, True], na_position="last"
    )
    _say_what_is_thin(frame, list(primary), found, len(seeds), one_fit, notes)
    chosen = group[(group["method"] == BASELINE) & (group["status"] == "ok")].drop_duplicates("job_id")
    counts = chosen.loc[chosen["detail"].fillna("") != "", "detail"].value_counts()
    shares = [f"{name} in {n} of {len(chosen)} jobs" for name, n in counts.items()]
    return TaskTable(
        task=task,
        preset=preset,
        version=int(group["task_version"].iloc[0]),
        units=units,
        draws=tuple(sorted({draw for draw in draws if draw is not None})),
        seeds=seeds,
        primary=primary,
        two_sided=two_sided,
        baseline=", ".join(shares) if len(shares) > 1 else "".join(map(str, counts.index)),
        comparison=found,
        frame=frame.drop(columns="n_ok").reset_index(drop=True),
        means=means,
        better={metric: str(directions[metric]) for metric in means.columns},
        data=str(digests.iloc[0])[:12] if len(digests) else "",
        core_seconds=_seconds(group),
        notes=tuple(notes),
    )


def _suite_table(preset: str, tables: list[TaskTable]) -> SuiteTable:
    roles = {str(row.method): str(row.role) for table in tables for row in table.frame.itertuples()}
    found = compare_suite({table.task: table.comparison for table in tables}, roles)
    frame = found.frame.rename(columns={"n_units": "n_tasks"}).rename_axis("method").reset_index()
    frame.insert(1, "role", frame["method"].map(roles))
    jobs = pd.concat([table.frame for table in tables]).groupby("method")
    frame["coverage"] = frame["method"].map(jobs["coverage"].agg(_coverage))
    frame["fit_seconds"] = frame["method"].map(jobs["fit_seconds"].median())
    frame["peak_memory_mb"] = frame["method"].map(jobs["peak_memory_mb"].max())
    frame = frame.sort_values(["relative_error", "method"], na_position="last", ignore_index=True)
    notes = list(found.notes)
    tasks = tuple(str(task) for task in found.units.columns)
    some = frame[(frame["role"] == "method") & (frame["n_tasks"] > 0) & (frame["n_tasks"] < len(tasks))]
    if len(some):
        each = ", ".join(f"{method} ({n})" for method, n in zip(some["method"], some["n_tasks"], strict=True))
        notes.append(
            f"on fewer than {len(tasks)} tasks, so that the mean is not like for like with the others'; verdicts are "
            f"over the tasks that each pair shares: {each}"
        )
    return SuiteTable(preset, tasks, found, frame, tuple(notes))


def _coverage(of_tasks: pd.Series) -> str:
    """Coverage of several tasks together: ok jobs of planned jobs where any were planned."""
    pairs = [map(int, text.split("/")) for text in of_tasks if text != "skipped"]
    ok, planned = (sum(numbers) for numbers in zip(*pairs, strict=True)) if pairs else (0, 0)
    return f"{ok}/{planned}" if planned else "skipped"


def _values(
    group: pd.DataFrame, methods: list[str], units: list[str], seeds: list[int], metrics: list[str], notes: list[str]
) -> Array:
    """Values (n_methods, n_units, n_seeds, n_metrics), NaN where there is none."""
    place = {name: pd.Index(labels) for name, labels in (("method", methods), ("unit", units), ("seed", seeds))}
    ok = group[(group["status"] == "ok") & group["metric"].isin(metrics)]
    values = np.full((*(len(index) for index in place.values()), len(metrics)), np.nan)
    at = [index.get_indexer(pd.Index(ok[name])) for name, index in place.items()]
    values[(*at, pd.Index(metrics).get_indexer(pd.Index(ok["metric"])))] = ok["value"].astype(float)
    values[~np.isfinite(values)] = np.nan
    undefined = ok[~np.isfinite(ok["value"].astype(float))]
    for (method, metric), rows in undefined.groupby(["method", "metric"], sort=False):
        n_jobs = int(((ok["method"] == method) & (ok["metric"] == metric)).sum())
        notes.append(f"{metric} of {method} is undefined in {len(rows)} of {n_jobs} ok jobs")
    return values


def _means(group: pd.DataFrame, methods: list[str], primary: list[str]) -> pd.DataFrame:
    """Raw mean of every metric over seeds, then over units: method × metric, the primary ones first."""
    ok = group[(group["status"] == "ok") & np.isfinite(group["value"].astype(float))]
    of_unit = ok.groupby(["method", "metric", "unit"], as_index=False)["value"].mean()
    means = of_unit.pivot_table(index="method", columns="metric", values="value")
    secondary = sorted(set(means.columns) - set(primary))
    return means.reindex(index=methods, columns=[*primary, *secondary])


def _seconds(group: pd.DataFrame) -> float:
    """Seconds between start and end of all jobs, which have a core each."""
    jobs = group.drop_duplicates("job_id")
    started, finished = (pd.to_datetime(jobs[name], utc=True, format="ISO8601") for name in ("started", "finished"))
    return float((finished - started).dt.total_seconds().sum())


def _say_what_is_missing(found: Comparison, values: Array, notes: list[str]) -> None:
    """Notes on methods that have fewer units than others."""
    n_units = int(found.frame["n_units"].max())
    for m, (method, row) in enumerate(found.frame.iterrows()):
        if not np.isfinite(values[m]).any() or not n_units:
            continue  # its coverage says so
        if row["reason"]:
            notes.append(f"{method} has no relative error: {row['reason']}")
        elif row["n_units"] < n_units:
            notes.append(
                f"{method} has {row['n_units']} of {n_units} units: its relative error is not like for like with the "
                "others', its verdicts are over the units that each pair shares"
            )


def _say_what_was_cut_short(group: pd.DataFrame, notes: list[str]) -> None:
    """A note on the fits that did not converge."""
    if "warnings" not in group:
        return
    jobs = group[(group["role"] == "method") & (group["status"] == "ok")].drop_duplicates("job_id")
    cut = jobs["warnings"].fillna("").astype(str) != ""
    counts = cut.groupby(jobs["method"]).agg(["sum", "size"])
    listed = [f"{method} ({row['sum']} of {row['size']})" for method, row in counts.iterrows() if row["sum"]]
    if listed:
        notes.append(f"fits that still improved when their training ended, or warned otherwise: {', '.join(listed)}")


def _say_what_is_thin(
    frame: pd.DataFrame, metrics: list[str], found: Comparison, n_seeds: int, one_fit: bool, notes: list[str]
) -> None:
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
    if found.power.replicates == 1:
        notes.append("one replicate: no interval and no verdict, and nothing can be said about what was not tried")
    elif found.samples is not None and len(set(found.samples.draws)) == 1 and found.samples.draws[0] is not None:
        notes.append("one draw: what another draw would give is not in the intervals, which are over its units")
    elif one_fit and n_seeds == 1 and found.samples is not None and len(set(found.samples.draws)) == 1:
        notes.append("one seed, and all units from one fit: what another fit would give is not in the intervals")


def _jobs(rows: pd.DataFrame) -> str:
    count = rows["job_id"].nunique()
    return f"{count} job{'' if count == 1 else 's'}"
