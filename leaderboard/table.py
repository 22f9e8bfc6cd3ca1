"""One table per task and preset, from tidy rows: one row per (cell, metric).

Rows of different presets, task versions, data or configs are never averaged together, a cell that is
not ok never counts as a score, and whatever cannot be concluded is said in a note.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaderboard import statistics
from leaderboard.statistics import UNDEFINED, Array, Estimate

FLOOR, BASELINE, CEILING = "N0", "N1", "P"
WHOLE_TASK = "*"  # the unit of a row that stands for a skipped method × task
_CELL_COLUMNS = ["cell_id", "method", "task", "unit", "seed", "status", "reason", "replay"]


@dataclass(frozen=True)
class TaskTable:
    """The table of one task at one preset.

    Parameters
    ----------
    primary : the primary metrics with their better direction, "higher" or "lower".
    baseline : how often N1 chose which simple baseline, as text.
    frame : one row per method and control: method, role, one column per primary metric (raw, mean over
        seeds, then over units), score, low, high, difference, difference_low, difference_high (to N1),
        coverage (ok/planned cells, or "skipped"), units (that the score rests on), fit_seconds (median)
        and peak_memory_mb (maximum) of ok cells. Best score first, no score last.
    notes : what cannot be concluded from the table, and why.
    """

    task: str
    preset: str
    version: int
    units: tuple[str, ...]
    seeds: tuple[int, ...]
    primary: dict[str, str]
    baseline: str
    frame: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Leaderboard:
    """All tables, the cells that failed, the methods that were skipped, and every note.

    Parameters
    ----------
    failures : one row per cell: method, task, unit, seed, status, reason, replay.
    skipped : one row per reason: method, task, reason.
    notes : the notes of all tables, each with its task and preset before it.
    """

    tasks: list[TaskTable]
    failures: pd.DataFrame
    skipped: pd.DataFrame
    notes: list[str]


def build(rows: pd.DataFrame) -> Leaderboard:
    """Tables from tidy results.

    Parameters
    ----------
    rows : one row per (cell, metric) with the columns cell_id, role, method, config, task, task_version,
        unit, seed, preset, metric, value, primary, better, status, reason, fit_seconds, peak_memory_mb,
        data_digest, replay and detail. In order of time: of two results for the same method, unit and
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
            group = _one_cell_per_cross(group, notes)
            tasks.append(_task_table(str(task), str(preset), group, notes))
            kept.append(group)
    cells = pd.concat(kept).drop_duplicates("cell_id") if kept else pd.DataFrame(columns=_CELL_COLUMNS)
    failed = ~cells["status"].isin(["ok", "skipped"])
    return Leaderboard(
        tasks=tasks,
        failures=cells.loc[failed, _CELL_COLUMNS[1:]].reset_index(drop=True),
        skipped=cells.loc[cells["status"] == "skipped", ["method", "task", "reason"]]
        .drop_duplicates()
        .reset_index(drop=True),
        notes=[f"{table.task} ({table.preset}): {note}" for table in tasks for note in table.notes]
        or ([] if tasks else ["there are no results, so nothing can be concluded"]),
    )


def _one_data_set(group: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Keep the newest task version and, within it, the data digest with the most cells."""
    newest = group["task_version"].max()
    old = group["task_version"] != newest
    for version, rows in group[old].groupby("task_version"):
        notes.append(f"left out: {_cells(rows)} of task version {version}, the table shows version {newest}")
    group = group[~old]
    # A cell that failed before it saw the data, or was skipped, has no digest: it belongs to any.
    digest = group["data_digest"].fillna("")
    counts = group[digest != ""].groupby("data_digest", sort=False)["cell_id"].nunique()
    if len(counts) < 2:
        return group
    chosen = counts[counts == counts.max()].index[-1]
    for other in counts.index.drop(chosen):
        rows = group[digest == other]
        notes.append(f"left out: {_cells(rows)} on data {other}, the table shows data {chosen}")
    return group[digest.isin(["", chosen])]


def _one_cell_per_cross(group: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Tell configs under one label apart, then keep the last of several cells that are the same cross."""
    group = group.copy()
    tried = group[(group["role"] == "method") & (group["status"] != "skipped")]
    for method, rows in tried.groupby("method", sort=False):
        configs = rows["config"].unique()
        if len(configs) > 1:
            for number, config in enumerate(configs, 1):
                label = f"{method} (config {number})"
                group.loc[(group["method"] == method) & (group["config"] == config), "method"] = label
                notes.append(f"{label} is {config}")
    cross = ["method", "unit", "seed"]
    superseded = group["cell_id"] != group.groupby(cross, sort=False)["cell_id"].transform("last")
    if superseded.any():
        cells = _cells(group[superseded])
        notes.append(f"left out: {cells} with a later result for the same method, unit and seed")
    return group[~superseded]


def _task_table(task: str, preset: str, group: pd.DataFrame, notes: list[str]) -> TaskTable:
    primary = group[group["primary"].astype(bool)].drop_duplicates("metric").set_index("metric")["better"]
    planned = group[~((group["status"] == "skipped") & (group["unit"] == WHOLE_TASK))]
    units = tuple(sorted(planned["unit"].unique()))
    seeds = tuple(sorted(planned["seed"].unique()))
    by_method = _unit_values(group, list(units), list(primary.index), notes)
    scores, differences = _scores(by_method, primary, notes)

    records = []
    for method, cells in group.drop_duplicates("cell_id").groupby("method", sort=False):
        ok = cells[cells["status"] == "ok"]
        n_planned = planned.loc[planned["method"] == method, "cell_id"].nunique()
        score, difference = scores[str(method)], differences[str(method)]
        records.append(
            {"method": method, "role": cells["role"].iloc[0]}
            | by_method[str(method)].mean().to_dict()
            | {
                "score": score.value,
                "low": score.low,
                "high": score.high,
                "difference": difference.value,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "coverage": f"{len(ok)}/{n_planned}" if n_planned else "skipped",
                "units": score.n_units,
                "fit_seconds": ok["fit_seconds"].median(),
                "peak_memory_mb": ok["peak_memory_mb"].max(),
                "n_ok": len(ok),
            }
        )
    frame = pd.DataFrame(records).sort_values(
        ["score", "n_ok", "coverage", "method"], ascending=[False, False, True, True], na_position="last"
    )
    _say_what_is_thin(frame, list(primary.index), len(seeds), notes)
    chosen = group[(group["method"] == BASELINE) & (group["status"] == "ok")].drop_duplicates("cell_id")
    counts = chosen.loc[chosen["detail"].fillna("") != "", "detail"].value_counts()
    return TaskTable(
        task=task,
        preset=preset,
        version=int(group["task_version"].iloc[0]),
        units=units,
        seeds=seeds,
        primary={str(metric): str(better) for metric, better in primary.items()},
        baseline=", ".join(f"{name} in {count} of {len(chosen)} cells" for name, count in counts.items()),
        frame=frame.drop(columns="n_ok").reset_index(drop=True),
        notes=tuple(notes),
    )


def _unit_values(
    group: pd.DataFrame, units: list[str], metrics: list[str], notes: list[str]
) -> dict[str, pd.DataFrame]:
    """Per method a frame of units × primary metrics, averaged over seeds; NaN where there is no value."""
    ok = group[(group["status"] == "ok") & group["metric"].isin(metrics)]
    value = ok["value"].astype(float)
    ok = ok.assign(value=value.where(np.isfinite(value)))
    for (method, metric), values in ok.groupby(["method", "metric"], sort=False)["value"]:
        if n_undefined := int(values.isna().sum()):
            notes.append(f"{metric} of {method} is undefined in {n_undefined} of {len(values)} ok cells")
    return {
        str(method): ok[ok["method"] == method]
        .pivot_table(index="unit", columns="metric", values="value", aggfunc="mean")
        .reindex(index=units, columns=metrics)
        for method in group["method"].unique()
    }


def _scores(
    by_method: dict[str, pd.DataFrame], primary: pd.Series, notes: list[str]
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Scaled score and difference to N1 of every method, with a note for each that cannot be had."""
    nothing = dict.fromkeys(by_method, UNDEFINED)
    if primary.empty:
        notes.append("no primary metric: nothing is scored")
        return nothing, nothing
    values: dict[str, Array] = {method: frame.to_numpy(float) for method, frame in by_method.items()}
    has_values = {method: bool(np.isfinite(array).any()) for method, array in values.items()}
    if missing := [control for control in (FLOOR, CEILING) if not has_values.get(control)]:
        notes.append(f"no result of control {' and '.join(missing)}: raw metrics only, nothing can be scaled")
        return nothing, nothing
    sign = np.where(primary == "lower", -1.0, 1.0)
    floor, ceiling = values[FLOOR], values[CEILING]
    unresolved = False
    for k, metric in enumerate(primary.index):
        span = statistics.dynamic_range(floor[:, k], ceiling[:, k], sign[k])
        if not statistics.resolves(span):
            unresolved = True
            notes.append(
                f"{metric} does not resolve on this task: P improves on N0 by {span.value:.3g} "
                f"[{span.low:.3g}, {span.high:.3g}] over {_units(span.n_units)}"
                if span.n_units > 1
                else f"{metric} does not resolve on this task: P does not improve on N0 on a common unit"
            )
    if unresolved:
        notes.append("no score, as the task score needs every primary metric")
        return nothing, nothing

    scores = {m: statistics.scaled_difference(v, floor, floor, ceiling, sign) for m, v in values.items()}
    baseline = values.get(BASELINE, np.full_like(floor, np.nan))
    differences = {m: statistics.scaled_difference(v, baseline, floor, ceiling, sign) for m, v in values.items()}
    if not has_values.get(BASELINE):
        notes.append("no result of control N1: no difference to a simple baseline")
    if scores[FLOOR].n_units < len(floor):
        notes.append(f"N0 and P have every primary metric on {scores[FLOOR].n_units} of {len(floor)} units only")
    for method, score in scores.items():
        _say_what_is_missing(method, score, by_method[method], scores[FLOOR].n_units, notes)
    if scores[FLOOR].n_units == 1:
        notes.append("one unit: no interval, and nothing can be said about units not tried")
    elif scores[FLOOR].n_units < statistics.MIN_BOOTSTRAP_UNITS:
        n_units = _units(scores[FLOOR].n_units)
        notes.append(f"{n_units}, too few for a bootstrap: Student intervals on the linearised score")
    return scores, differences


def _say_what_is_missing(
    method: str, score: Estimate, values: pd.DataFrame, n_control_units: int, notes: list[str]
) -> None:
    if values.isna().all(axis=None):
        return  # its coverage says so
    absent = [str(metric) for metric in values if values[metric].isna().all()]
    if absent:
        notes.append(f"{method} has no score: it has no {' and no '.join(absent)}")
    elif score.n_units == 0:
        notes.append(f"{method} has no score: no unit where it, N0 and P have every primary metric")
    elif np.isnan(score.value):
        notes.append(f"{method} has no score: P is not better than N0 on the {_units(score.n_units)} it has")
    elif score.n_units < n_control_units:
        notes.append(
            f"{method} is scored on {score.n_units} of {n_control_units} units: "
            "its place among the others is no like-for-like comparison"
        )


def _say_what_is_thin(frame: pd.DataFrame, metrics: list[str], n_seeds: int, notes: list[str]) -> None:
    methods = frame[frame["role"] == "method"]
    done = methods[methods["n_ok"] > 0]
    if done.empty:
        notes.append("no method has an ok cell: nothing is compared")
    elif len(done) == 1:
        notes.append("one method has ok cells: it is compared with the controls only")
    else:
        for metric in metrics:
            if done[metric].count() > 1 and done[metric].nunique() == 1:
                notes.append(f"{metric} is the same for all methods: it tells none apart")
    if n_seeds == 1:
        notes.append("one seed: the spread over seeds is not known")


def _cells(rows: pd.DataFrame) -> str:
    count = rows["cell_id"].nunique()
    return f"{count} cell{'' if count == 1 else 's'}"


def _units(count: int) -> str:
    return f"{count} unit{'' if count == 1 else 's'}"
