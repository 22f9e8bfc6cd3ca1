r"""Does one property of a fitted method predict another? Disentanglement and out-of-distribution skill, fit by fit.

Every fit that an out-of-distribution task scores is also asked how disentangled its codes are (where the true factors
are known) and how much of its training cells it keeps. Two questions are kept apart, as their answers may differ:

- *between* methods: do methods that disentangle better score better? Means over units and seeds, ranked within each
  task, so that tasks of unlike scales can be pooled.
- *within* methods: does a fit that disentangles better than the same method usually does score better than usual?
  What remains of both after the means of the method and of the held-out unit are taken out, within each task.

Tasks whose own score is one of these metrics are left out, as there it predicts itself.

Both are correlations, and partial ones given the reconstruction error, since a method may be good or bad at both
for keeping more or less of the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leaderboard.statistics import ALPHA, Array
from leaderboard.table import Leaderboard, TaskTable

#: The metrics of the codes, and the metric that partial correlations hold fixed.
DISENTANGLEMENT = ("mcc", "latent_r2", "mig", "sap")
RECONSTRUCTION = "training_reconstruction_error"
#: How far held-out cells are from the training cells.
DISTANCE = "ood_distance"
BETWEEN, WITHIN = "between methods", "within methods"
N_RESAMPLES = 2000
#: With fewer independent groups (methods or units) no interval is worth a verdict.
MIN_GROUPS = 5
_KEY = ["task", "preset", "method", "unit", "seed"]
_SEED = 20241121


@dataclass(frozen=True)
class Correlation:
    """A correlation with its 95 % interval; NaN is "not defined".

    Attributes
    ----------
    n_points, n_groups
        Points that it is of, and groups (methods or held-out units) that were resampled for the interval.
    """

    value: float
    low: float
    high: float
    n_points: int
    n_groups: int


def fit_scores(leaderboard: Leaderboard) -> pd.DataFrame:
    r"""One row for each ok job of a method: its skill, and all its other metrics in columns.

    The skill of a job is −log(relative error): 0 is as good as the baseline, .69 half its error.

    Returns
    -------
    frame : task, preset, method, unit, draw, seed, job_id, score (the skill; NaN where the baseline has none, and where
        the task's own score is one of :data:`DISENTANGLEMENT`), and a column for each metric that any job has.
    """
    rows = leaderboard.rows
    nothing = pd.DataFrame(columns=[*_KEY, "job_id", "draw", "score"])
    if rows.empty:
        return nothing
    ok = rows[(rows["status"] == "ok") & np.isfinite(rows["value"].astype(float)) & (rows["role"] == "method")]
    if ok.empty:
        return nothing
    wide = ok.pivot_table(index=[*_KEY, "job_id"], columns="metric", values="value", aggfunc="last").reset_index()
    wide = wide.merge(ok[["job_id", "draw"]].drop_duplicates(), on="job_id")
    skills = [skill for table in leaderboard.tasks if (skill := _skills(table)) is not None]
    return wide.merge(pd.concat(skills), on=_KEY, how="left") if skills else wide.assign(score=np.nan)


def _skills(table: TaskTable) -> pd.DataFrame | None:
    """The skill of each method's job of a task: the columns of a place in the cross, and score; None without one."""
    samples, names = table.comparison.samples, list(table.comparison.frame.index)
    if samples is None or set(table.primary) & set(DISENTANGLEMENT):
        return None
    places = pd.MultiIndex.from_product([names, table.units, table.seeds], names=["method", "unit", "seed"])
    frame = pd.DataFrame({"score": -samples.values.reshape(-1)}, index=places).reset_index()
    return frame.assign(task=table.task, preset=table.preset)


def of_fits(jobs: pd.DataFrame) -> pd.DataFrame:
    """One row for each fit: the units of a draw, which one fit answers for, as their means.

    What is asked of the codes of such a fit is measured once, beside the first unit.
    """
    if jobs.empty or jobs["draw"].isna().all():
        return jobs
    drawn = jobs[jobs["draw"].notna()]
    key = ["task", "preset", "method", "draw", "seed"]
    metrics = [name for name in drawn.columns if name not in (*key, "unit", "job_id")]
    means = drawn.groupby(key, as_index=False)[metrics].mean()
    return pd.concat([jobs[jobs["draw"].isna()], means.assign(unit="draw" + means["draw"].astype(str))])


def association(jobs: pd.DataFrame, predictor: str, level: str, given: str = "") -> Correlation:
    """Correlation of a metric with the score, between or within methods.

    Parameters
    ----------
    jobs : of :func:`fit_scores`; those that lack the score, the predictor or what is given are left out.
    predictor : a metric's column.
    level : ``BETWEEN`` or ``WITHIN``.
    given : a metric's column that is held fixed, by the residuals of least squares on it; empty for none.

    Returns
    -------
    correlation : its interval by 2,000 resamples of whole methods (between) or of whole draws or, without draws,
        held-out units (within), as fits of one method are no independent methods; none with under ``MIN_GROUPS``.
    """
    columns = ["score", predictor, *([given] if given else [])]
    if not set(columns) <= set(jobs):
        return Correlation(np.nan, np.nan, np.nan, 0, 0)
    jobs = of_fits(jobs).dropna(subset=columns)
    points, groups = (_between if level == BETWEEN else _within)(jobs, columns)
    if len(points) < 3:
        return Correlation(np.nan, np.nan, np.nan, len(points), len(set(groups)))
    names, of_point = np.unique(groups, return_inverse=True)
    value = float(_partial(points, np.ones((1, len(points))))[0])
    low = high = np.nan
    if len(names) >= MIN_GROUPS:
        rng = np.random.default_rng(_SEED)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), N_RESAMPLES)
        draws = _partial(points, drawn[:, of_point].astype(float))
        draws = draws[np.isfinite(draws)]
        low, high = (
            (float(x) for x in np.quantile(draws, (ALPHA / 2, 1 - ALPHA / 2))) if len(draws) else (np.nan, np.nan)
        )
    return Correlation(value, low, high, len(points), len(names))


def points(jobs: pd.DataFrame, predictor: str, level: str) -> tuple[Array, Array]:
    """Return the (score, predictor) pairs that :func:`association` correlates, and the method of each pair."""
    jobs = of_fits(jobs).dropna(subset=["score", predictor])
    if level == BETWEEN:
        return _between(jobs, ["score", predictor])
    pairs, methods = [], []
    for _, of_task in jobs.groupby(["task", "preset"]):
        left, _ = _within(of_task, ["score", predictor])
        pairs.append(left)
        methods.append(of_task["method"].to_numpy()[: len(left)])
    return np.concatenate(pairs), np.concatenate(methods)


def _between(jobs: pd.DataFrame, columns: Sequence[str]) -> tuple[Array, Array]:
    """Ranks of method means within each task, from −1 to 1, (n_points, n_columns), and the method of each."""
    means = jobs.groupby(["task", "preset", "method"])[list(columns)].mean()
    tasks = means.groupby(level=["task", "preset"])
    count = tasks["score"].transform("size")
    means, tasks = means[count >= 3], means[count >= 3].groupby(level=["task", "preset"])
    ranks = tasks.rank()
    size = tasks["score"].transform("size").to_numpy()[:, None]
    return (2 * ranks.to_numpy() - size - 1) / (size - 1), ranks.index.get_level_values("method").to_numpy()


def _within(jobs: pd.DataFrame, columns: Sequence[str]) -> tuple[Array, Array]:
    """Return residuals from the means of method and unit, standardised in each task, and the draw or unit of each."""
    parts, groups = [], []
    for (task, preset), of_task in jobs.groupby(["task", "preset"]):
        values = of_task[list(columns)].to_numpy(float)
        design = pd.get_dummies(of_task[["method", "unit"]].astype(str)).to_numpy(float)
        left = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
        spread = left.std(axis=0)
        if (spread > 1e-9 * (np.abs(values).max(axis=0) + 1e-300)).all():
            parts.append(left / spread)
            drawn = of_task["draw"].nunique() > 1
            groups.append((f"{task} {preset} " + of_task["draw" if drawn else "unit"].astype(str)).to_numpy())
    if not parts:
        return np.empty((0, len(columns))), np.empty(0, dtype=object)
    return np.concatenate(parts), np.concatenate(groups)


def _partial(points: Array, weights: Array) -> Array:
    """Correlation of columns 0 and 1 given all others, for each row of weights (n_draws, n_points); NaN if undefined.

    From the inverse of the weighted correlation matrix: −p₀₁ / √(p₀₀ p₁₁).
    """
    total = weights.sum(axis=1, keepdims=True)
    means = (weights @ points) / total
    outer = (points[:, :, None] * points[:, None, :]).reshape(len(points), -1)
    second = (weights @ outer / total).reshape(len(weights), points.shape[1], -1)
    covariance = second - means[:, :, None] * means[:, None, :]
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    found = np.full(len(weights), np.nan)
    defined = (variances > 1e-12).all(axis=1)
    scale = np.sqrt(variances[defined])
    correlation = covariance[defined] / (scale[:, :, None] * scale[:, None, :])
    regular = np.linalg.det(correlation[:, 2:, 2:]) > 1e-9 if points.shape[1] > 2 else np.ones(len(scale), dtype=bool)
    values = np.full(len(scale), np.nan)
    c = correlation[regular]
    if points.shape[1] == 2:
        values[regular] = c[:, 0, 1]
    else:
        rest = np.linalg.solve(c[:, 2:, 2:], c[:, 2:, :2])
        left = c[:, :2, :2] - c[:, :2, 2:] @ rest
        with np.errstate(invalid="ignore", divide="ignore"):
            values[regular] = left[:, 0, 1] / np.sqrt(left[:, 0, 0] * left[:, 1, 1])
    found[defined] = np.clip(values, -1.0, 1.0)
    return found


def answers(jobs: pd.DataFrame) -> pd.DataFrame:
    """Every question of this module as a row.

    Returns
    -------
    frame : level, metric, n_points, n_groups, value, low, high, and partial, partial_low, partial_high given
        :data:`RECONSTRUCTION`.
    """
    records = []
    for level in (BETWEEN, WITHIN):
        for metric in DISENTANGLEMENT:
            plain, partial = association(jobs, metric, level), association(jobs, metric, level, RECONSTRUCTION)
            records.append(
                {"level": level, "metric": metric, "n_points": plain.n_points, "n_groups": plain.n_groups}
                | {"value": plain.value, "low": plain.low, "high": plain.high}
                | {"partial": partial.value, "partial_low": partial.low, "partial_high": partial.high}
            )
    return pd.DataFrame(records)
