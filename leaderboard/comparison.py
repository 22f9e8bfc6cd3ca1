r"""Comparison of methods: on one task over its held-out units, and on the suite over its tasks.

Methods are compared pair by pair, each pair on the units that both have (floor and ceiling too), a unit being the mean
over the seeds that there are: what is missing is never filled in, and takes part in no comparison. A pair's difference
is the scaled one of :mod:`leaderboard.statistics`; for the suite it is the mean of the tasks' differences, so that the
suite is to its tasks what a task is to its units, and the same intervals and tests apply. But tasks on one data set are
no independent replicates: they are drawn together, and errors are those of Σ differences / Σ tasks over data sets.

- *rank*: 1 + the number of methods that are better by their paired difference (half for one that is equal). With the
  same jobs for all this is the rank by score. A method that shares no unit with any other has none. Its interval: the
  same in every resample, expanded percentiles.
- *p*: of the paired difference to the baseline, Holm-adjusted over the methods of the task (or of the suite).
- *tie groups*: down the ranks, the best method without a group founds one, and every method without a group joins
  whose difference to the founder is not significant at 5 % after Holm's adjustment over *all pairs* of methods. So
  every method is in one group, nothing in a group is shown to be worse than its founder, and a method with wide
  errors may be in a better group than one ranked before it. Without any test (one unit) there are no groups.
- *P(A > B)*: mean over units of the share of pairs of seeds, one of each method, in which A's job scores more, equal
  jobs counted half; for the suite, mean over tasks (as in rliable).
- *worst-case rank*: a job that was tried and gave no value counts as the worst that the floor or any method has on that
  unit, metric by metric, so that nothing is gained by crashing. A skipped method is not tried.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leaderboard import statistics
from leaderboard.statistics import CHUNK, MIN_BOOTSTRAP_UNITS, MIN_UNITS, NARROW, TOO_NARROW, Array, mean_of_finite

FLOOR, BASELINE, CEILING = "floor", "baseline", "ceiling"
ALPHA = 0.05
_SEED = 20240301
#: What is undefined is NaN here, and said; a method that diverged may overflow.
_QUIET = np.errstate(all="ignore")

Pairs = tuple[NDArray[np.int_], NDArray[np.int_]]


@dataclass(frozen=True)
class Comparison:
    """How the methods and references compare on a task, or on the suite.

    Parameters
    ----------
    frame : by method: score, low, high, iqm, iqm_low, iqm_high (interquartile mean of the scaled scores of units, for
        the suite of tasks × units with equal weight of tasks; no interval under ``MIN_BOOTSTRAP_UNITS`` units or
        data sets; measured, the 95 % interval covers .96 to .98 with 8 to 30 normal or log-normal units), difference,
        difference_low, difference_high (to the baseline), p, p_holm, mdd (minimum detectable difference), wins
        (P(method > baseline)), rank, rank_low, rank_high, rank_worst_case, tie_group, seed_sd (standard deviation of a
        job's scaled score over seeds, variances pooled over units), n_units (tasks for the suite) and reason (why
        there is no score, else empty). References have no p, rank and group. The suite has also rank_without_low
        and _high (leaving out any one task) and rank_weights_low and _high (95 % of random weights of tasks,
        Dirichlet(1)).
    wins : P(row > column), method × method.
    differences, worst_case : paired differences row − column, as found and with failed jobs filled as above.
    unit_scores : scaled score of each unit (columns; for the suite task × unit), each as a share of the mean range.
    scored_on : the metrics that the score rests on; for the suite the tasks.
    notes : what was left out, and why.
    """

    frame: pd.DataFrame
    wins: pd.DataFrame
    differences: pd.DataFrame
    worst_case: pd.DataFrame
    unit_scores: pd.DataFrame
    scored_on: tuple[str, ...]
    notes: tuple[str, ...]


@_QUIET
def compare(
    values: Array,
    tried: NDArray[np.bool_],
    methods: Mapping[str, str],
    units: Sequence[str],
    metrics: Mapping[str, str],
    two_sided: bool = False,
) -> Comparison:
    """Compare methods on one task.

    Parameters
    ----------
    values : (n_methods, n_units, n_seeds, n_metrics), primary metrics only; NaN or infinite where there is no value.
    tried : (n_methods, n_units, n_seeds), whether there was such a job, whatever came of it.
    methods : role of every label: "method", or "reference" or "oracle", which are in no rank and no test.
    metrics : better direction, "higher" or "lower", of every primary metric.
    two_sided : whether there is no score where one of them is left out.
    """
    names = list(methods)
    is_method = np.array([role == "method" for role in methods.values()], dtype=bool)
    sign = np.array([-1.0 if better == "lower" else 1.0 for better in metrics.values()])
    values = sign * np.where(np.isfinite(values), values, np.nan)
    by_unit = mean_of_finite(values, axis=2)
    has_values = {name: bool(np.isfinite(by_unit[m]).any()) for m, name in enumerate(names)}
    notes: list[str] = []
    kept: list[int] = []
    if not metrics:
        notes.append("no primary metric: nothing is scored")
    elif missing := [reference for reference in (FLOOR, CEILING) if not has_values.get(reference)]:
        notes.append(f"no result of reference {' and '.join(missing)}: raw metrics only, nothing can be scaled")
    else:
        floor, ceiling = by_unit[names.index(FLOOR)], by_unit[names.index(CEILING)]
        kept = [k for k, metric in enumerate(metrics) if _counts(metric, floor[:, k], ceiling[:, k], notes)]
        if len(kept) < len(metrics):
            left = ", ".join(list(metrics)[k] for k in kept)
            if kept and two_sided:
                kept = []
                notes.append(f"no score: the task is two-sided, and a method that is no good can have {left} alone")
            else:
                notes.append(f"the score rests on {left} alone" if kept else "no score: no primary metric is left")
    scored_on = tuple(list(metrics)[k] for k in kept)
    if not kept:
        empty = pd.DataFrame(np.nan, index=names, columns=_COLUMNS).assign(tie_group="", n_units=0, reason=notes[-1])
        square = pd.DataFrame(np.nan, index=names, columns=names)
        blank = pd.DataFrame(np.nan, index=names, columns=list(units))
        return Comparison(empty, square, square, square, blank, scored_on, tuple(notes))

    values, by_unit = values[..., kept], by_unit[..., kept]
    floor, span = by_unit[names.index(FLOOR)], by_unit[names.index(CEILING)] - by_unit[names.index(FLOOR)]
    scale = mean_of_finite(np.where(np.isfinite(span).all(axis=1, keepdims=True), span, np.nan), axis=0)
    # A unit's score as a share of the mean range: their mean over units is the score
    origin = np.where(np.isfinite(span).all(axis=1, keepdims=True) & (scale > 0).all(), floor, np.nan)
    jobs = ((values - origin[:, None]) / scale).mean(axis=3)
    unit_scores = ((by_unit - origin) / scale).mean(axis=2)

    pairs = np.triu_indices(len(names), 1)
    numerator = (by_unit[pairs[0]] - by_unit[pairs[1]]).transpose(1, 0, 2)
    differences = _square(statistics.linearised(numerator, span[:, None])[0], pairs, len(names), -1.0)
    among = np.flatnonzero(is_method[pairs[0]] & is_method[pairs[1]])
    reference = names.index(BASELINE) if has_values.get(BASELINE) else None
    if reference is None:
        notes.append(f"no result of reference {BASELINE}: no difference to a simple baseline")
    wins = _wins(jobs)
    scores = statistics.ratios_of_means((by_unit - floor).transpose(1, 0, 2), span[:, None])
    baseline = np.full_like(floor, np.nan) if reference is None else by_unit[reference]
    against = statistics.ratios_of_means((by_unit - baseline).transpose(1, 0, 2), span[:, None])
    n_units = int(np.isfinite(span).all(axis=1).sum())
    weights = statistics.resample_weights(len(units))
    iqm = _interquartile(unit_scores, np.ones((1, len(units))), weights, np.arange(len(units)), scores.n_units)
    frame = _frame(names, is_method, scores, against, iqm)
    frame["wins"] = np.nan if reference is None else wins[:, reference]
    frame["seed_sd"] = np.sqrt(_variance_over_seeds(jobs))
    ranked = is_method & np.isfinite(scores.value)
    chosen: Pairs = (pairs[0][among], pairs[1][among])
    _rank(frame, ranked, chosen, numerator[:, among], span[:, None], weights)
    notes += _not_compared(differences, ranked, "unit")

    filled = values.copy()
    worst = np.nanmin(np.where((is_method | (np.array(names) == FLOOR))[:, None, None], by_unit, np.inf), axis=0)
    failed = is_method[:, None, None] & tried & np.isnan(values).any(axis=3)
    filled[failed] = np.broadcast_to(worst[None, :, None], filled.shape)[failed]
    filled_units = mean_of_finite(filled, axis=2)
    harsh = (filled_units[pairs[0]] - filled_units[pairs[1]]).transpose(1, 0, 2)
    worst_case = _square(statistics.linearised(harsh, span[:, None])[0], pairs, len(names), -1.0)
    run = is_method & tried.any(axis=(1, 2))
    frame["rank_worst_case"] = _ranks(worst_case, run)
    frame["reason"] = [
        _why_no_score(by_unit[m], list(scored_on), int(scores.n_units[m])) if np.isnan(scores.value[m]) else ""
        for m in range(len(names))
    ]
    if n_units < len(units):
        notes.append(f"{FLOOR} and {CEILING} have every primary metric on {n_units} of {len(units)} units only")
    return Comparison(
        frame=frame.replace([np.inf, -np.inf], np.nan),
        wins=pd.DataFrame(wins, names, names),
        differences=pd.DataFrame(differences, names, names),
        worst_case=pd.DataFrame(worst_case, names, names),
        unit_scores=pd.DataFrame(unit_scores, names, list(units)),
        scored_on=scored_on,
        notes=tuple(notes),
    )


@_QUIET
def compare_suite(tasks: Mapping[str, Comparison], methods: Mapping[str, str]) -> Comparison:
    """Compare methods over tasks that were compared one by one.

    Every task counts the same. A task is left out when it has no score at all, and for a pair of methods when they
    share no job of it.

    Parameters
    ----------
    methods : role of every label on any of the tasks, as for :func:`compare`.
    """
    names = list(methods)
    is_method = np.array([role == "method" for role in methods.values()], dtype=bool)
    scored = {task: found for task, found in tasks.items() if found.frame["score"].notna().any()}
    notes = [f"left out: {task}, where nothing has a score" for task in tasks if task not in scored]
    if len(scored) < 2:
        notes.append(f"{len(scored)} task{'' if len(scored) == 1 else 's'} with scores: there is no suite to speak of")
        frame = pd.DataFrame(np.nan, index=names, columns=[*_COLUMNS, *_SUITE_COLUMNS])
        frame = frame.assign(tie_group="", n_units=0, reason=notes[-1])
        square = pd.DataFrame(np.nan, index=names, columns=names)
        return Comparison(frame, square, square, square, pd.DataFrame(index=names), tuple(scored), tuple(notes))
    sets, set_of = np.unique([_data_set(task) for task in scored], return_inverse=True)
    for shared in np.flatnonzero(np.bincount(set_of) > 1):
        together = ", ".join(task for task, one in zip(scored, set_of, strict=True) if one == shared)
        notes.append(f"on one data set, so no independent replicates, and drawn together: {together}")
    if len(sets) == 1:
        notes.append("one data set: no interval, and nothing can be said about data not tried")
    elif len(sets) < MIN_BOOTSTRAP_UNITS:
        notes.append(f"{len(sets)} data sets, too few for a bootstrap: Student intervals over data sets")

    found = list(scored.values())
    by_task = np.stack([_matrix(one.differences, names) for one in found])
    pairs = np.triu_indices(len(names), 1)
    numerator = by_task[:, pairs[0], pairs[1]]
    among = np.flatnonzero(is_method[pairs[0]] & is_method[pairs[1]])
    score_of = _column(found, names, "score")
    scores = statistics.ratios_of_means(*_by_set(score_of, set_of))
    against = statistics.ratios_of_means(*_by_set(_column(found, names, "difference"), set_of))
    weights = statistics.resample_weights(len(sets))
    unit_scores = pd.concat({task: one.unit_scores.reindex(names) for task, one in scored.items()}, axis=1)
    task_of = np.repeat(np.arange(len(found)), [one.unit_scores.shape[1] for one in found])
    counts = np.stack([one.unit_scores.reindex(names).notna().sum(axis=1).to_numpy(float) for one in found])
    share = np.where(counts > 0, 1 / counts, 0.0)[task_of].T
    iqm = _interquartile(unit_scores.to_numpy(float), share, weights, set_of[task_of], scores.n_units)
    frame = _frame(names, is_method, scores, against, iqm)
    ranked = is_method & np.isfinite(scores.value)
    chosen: Pairs = (pairs[0][among], pairs[1][among])
    _rank(frame, ranked, chosen, *_by_set(numerator[:, among], set_of), weights)
    frame["n_units"] = np.isfinite(score_of).sum(axis=0)
    wins = mean_of_finite(np.stack([_matrix(one.wins, names) for one in found]), axis=0)
    frame["wins"] = wins[:, names.index(BASELINE)] if BASELINE in names else np.nan
    frame["seed_sd"] = np.sqrt(mean_of_finite(_column(found, names, "seed_sd") ** 2, axis=0))
    notes += _not_compared(mean_of_finite(by_task, axis=0), ranked, "task")
    ranked = frame["rank"].notna().to_numpy()
    worst = np.stack([_matrix(one.worst_case, names) for one in found])
    run = np.stack([one.frame["rank_worst_case"].reindex(names).notna().to_numpy() for one in found]).any(axis=0)
    frame["rank_worst_case"] = _ranks(mean_of_finite(worst, axis=0), run & is_method)

    without = (1 - np.eye(len(found))) / (len(found) - 1)
    random = np.random.default_rng(_SEED).dirichlet(np.ones(len(found)), statistics.N_RESAMPLES)
    for name, these, shares in (("without", without, (0.0, 1.0)), ("weights", random, (0.025, 0.975))):
        drawn = _drawn_ranks(these, numerator[:, among, None], np.ones((1, 1, 1)), chosen, ranked)
        for end, at in zip(("low", "high"), shares, strict=True):
            frame[f"rank_{name}_{end}"] = np.nan
            if ranked.any():
                frame.loc[ranked, f"rank_{name}_{end}"] = np.quantile(drawn, at, axis=0, method="inverted_cdf")
    frame["reason"] = np.where(scores.n_units == 0, "no score on any task", "")
    return Comparison(
        frame=frame.replace([np.inf, -np.inf], np.nan),
        wins=pd.DataFrame(wins, names, names),
        differences=pd.DataFrame(mean_of_finite(by_task, axis=0), names, names),
        worst_case=pd.DataFrame(mean_of_finite(worst, axis=0), names, names),
        unit_scores=unit_scores,
        scored_on=tuple(scored),
        notes=tuple(notes),
    )


_COLUMNS = [
    "score", "low", "high", "iqm", "iqm_low", "iqm_high", "difference", "difference_low", "difference_high", "p",
    "p_holm", "mdd", "wins", "rank", "rank_low", "rank_high", "rank_worst_case", "tie_group", "seed_sd", "n_units",
    "reason",
]  # fmt: skip
_SUITE_COLUMNS = ["rank_without_low", "rank_without_high", "rank_weights_low", "rank_weights_high"]


def _counts(metric: str, floor: Array, ceiling: Array, notes: list[str]) -> bool:
    """Whether a metric enters the score: its range is calibrated or, with few units, its ceiling above its floor."""
    span = statistics.calibrated_range(floor, ceiling, 1.0)
    above = statistics.always_above(floor, ceiling, 1.0)
    limit = (
        f"the lower 95 % limit of its calibrated range, {span.value:.2f} [{span.low:.2f}, {span.high:.2f}] over "
        f"{_units(span.n_units)}, is under {NARROW}"
    )
    if statistics.narrowness(span, above) == TOO_NARROW:
        notes.append(f"{metric} is excluded, too narrow: {limit}")
        return False
    if statistics.narrowness(span) == TOO_NARROW:
        notes.append(
            f"{metric} is kept, as {CEILING} is above {FLOOR} in every unit, though its range differs much between "
            f"units: {limit}"
        )
    if span.n_units == 0:
        notes.append(f"{metric} is excluded: {FLOOR} and {CEILING} have it on no common unit")
        return False
    if span.n_units < MIN_UNITS and not span.value > 0:
        notes.append(f"{metric} is excluded: {CEILING} does not improve on {FLOOR} over {_units(span.n_units)}")
        return False
    return True


def _frame(
    names: list[str],
    is_method: NDArray[np.bool_],
    scores: statistics.Estimates,
    against: statistics.Estimates,
    iqm: tuple[Array, Array, Array],
) -> pd.DataFrame:
    p = np.where(is_method, statistics.p_values(against.value, against.error, against.n_units), np.nan)
    return pd.DataFrame(
        {
            "score": scores.value,
            "low": scores.low,
            "high": scores.high,
            "iqm": iqm[0],
            "iqm_low": iqm[1],
            "iqm_high": iqm[2],
            "difference": against.value,
            "difference_low": against.low,
            "difference_high": against.high,
            "p": p,
            "p_holm": statistics.holm(p),
            "mdd": np.where(is_method, statistics.minimum_detectable(against.error, against.n_units), np.nan),
            "n_units": scores.n_units,
            "tie_group": "",
        },
        index=names,
    ).reindex(columns=_COLUMNS)


def _interquartile(
    scores: Array, share: Array, weights: Array, drawn_with: NDArray[np.int_], n_units: NDArray[np.int_]
) -> tuple[Array, Array, Array]:
    """Interquartile means of the rows with their limits.

    Parameters
    ----------
    scores : (n_methods, n_values).
    share : (1 or n_methods, n_values), weight of every value.
    weights, drawn_with : weights of what is resampled, (n_draws, n_drawn), and which of it each value comes with.
    """
    share = np.broadcast_to(share, scores.shape)
    value = np.array([statistics.interquartile_mean(*row)[0] for row in zip(scores, share[:, None], strict=True)])
    low, high = np.full_like(value, np.nan), np.full_like(value, np.nan)
    for m in np.flatnonzero(n_units >= MIN_BOOTSTRAP_UNITS):
        parts = np.array_split(weights, max(len(weights) // CHUNK, 1))
        draws = np.concatenate(
            [statistics.interquartile_mean(scores[m], part[:, drawn_with] * share[m]) for part in parts]
        )
        (low[m],), (high[m],) = statistics.expanded_quantiles(draws[:, None], n_units[[m]])
    return value, low, high


def _rank(
    frame: pd.DataFrame,
    ranked: NDArray[np.bool_],
    pairs: Pairs,
    numerator: Array,
    denominator: Array,
    weights: Array,
) -> None:
    """Fill in ranks, their intervals and tie groups."""
    n_methods = len(ranked)
    value, error, _, n_units = statistics.linearised(numerator, denominator)
    ranks = _ranks(_square(value, pairs, n_methods, -1.0), ranked)
    ranked = np.isfinite(ranks)
    frame["rank"] = ranks
    if not ranked.any():
        return
    drawn = _drawn_ranks(weights, numerator, denominator, pairs, ranked)
    of_method = frame["n_units"].to_numpy(int)[ranked]
    low, high = statistics.expanded_quantiles(drawn, of_method, "inverted_cdf")
    frame.loc[ranked, "rank_low"], frame.loc[ranked, "rank_high"] = low, high
    p = statistics.holm(statistics.p_values(value, error, n_units))
    if ranked.sum() == 1 or np.isfinite(p).any():
        groups = tie_groups(ranks, frame["score"].to_numpy(float), _square(p, pairs, n_methods, 1.0))
        frame["tie_group"] = groups


def tie_groups(ranks: Array, scores: Array, p: Array) -> list[str]:
    """Letters of the tie groups defined at the top of this module; empty for a method without a rank.

    Parameters
    ----------
    ranks, scores : (n_methods,); of methods with one rank the higher score founds.
    p : (n_methods, n_methods), adjusted; NaN (no test) separates nothing.
    """
    groups = [""] * len(ranks)
    left = [int(m) for m in np.lexsort((-scores, ranks)) if np.isfinite(ranks[m])]
    for letter in range(len(left)):
        if not left:
            break
        joined = [m for m in left if m == left[0] or not p[left[0], m] < ALPHA]
        for m in joined:
            groups[m] = _letter(letter)
        left = [m for m in left if m not in joined]
    return groups


def _letter(number: int) -> str:
    """Return a … z, aa, ab …"""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _ranks(differences: Array, ranked: NDArray[np.bool_]) -> Array:
    """Ranks from paired differences (row − column); NaN for what is not ranked."""
    against = np.where(ranked[None] & ~np.eye(len(ranked), dtype=bool), differences, np.nan)
    ranked = ranked & (np.isfinite(against).any(axis=1) | (ranked.sum() == 1))
    equal = np.abs(against) < statistics.NO_DIFFERENCE
    ranks = 1 + ((against < 0) & ~equal).sum(axis=1) + 0.5 * equal.sum(axis=1)
    return np.where(ranked, ranks, np.nan)


def _drawn_ranks(
    weights: Array, numerator: Array, denominator: Array, pairs: Pairs, ranked: NDArray[np.bool_]
) -> Array:
    """Ranks with weighted units, (n_draws, n_ranked); a pair that a draw has no unit of is as with all units."""
    value = statistics.linearised(numerator, denominator)[0]
    first, second = (np.eye(len(ranked), dtype=np.float32)[side][:, ranked] for side in pairs)
    both = (ranked[pairs[0]] & ranked[pairs[1]])[:, None]
    first, second = first * both, second * both
    ranks = []
    for part in np.array_split(weights, max(len(weights) // CHUNK, 1)):
        draws = statistics.draw(part, numerator, denominator)
        draws = np.where(np.isnan(draws), value, draws)
        equal = np.abs(draws) < statistics.NO_DIFFERENCE
        worse, better = np.where(equal, 0.5, draws < 0), np.where(equal, 0.5, draws > 0)
        ranks.append(1 + worse.astype(np.float32) @ first + better.astype(np.float32) @ second)
    return np.concatenate(ranks).astype(float)


def _square(values: Array, pairs: Pairs, n_methods: int, mirror: float) -> Array:
    """Values of pairs as a matrix; the diagonal is 0, the other half ``mirror`` times the value."""
    square = np.full((n_methods, n_methods), np.nan)
    np.fill_diagonal(square, 0.0)
    square[pairs] = values
    square[pairs[1], pairs[0]] = mirror * values
    return square


def _wins(jobs: Array) -> Array:
    """P(A > B) from scores (n_methods, n_units, n_seeds); the diagonal is one half, NaN without a common unit."""
    present = np.isfinite(jobs)
    wins = np.full((len(jobs), len(jobs)), np.nan)
    for m in range(len(jobs)):
        a, b = jobs[m, :, :, None], jobs[:, :, None, :]  # (units, seeds, 1) against (methods, units, 1, seeds)
        both = present[m, :, :, None] & present[:, :, None, :]
        equal = np.abs(a - b) < statistics.NO_DIFFERENCE
        share = np.where(equal, 0.5, a > b)
        by_unit = np.where(both, share, 0).sum(axis=(2, 3)) / both.sum(axis=(2, 3))
        wins[m] = mean_of_finite(by_unit, axis=1)
    wins[np.diag_indices(len(jobs))] = np.where(present.any(axis=(1, 2)), 0.5, np.nan)
    return wins


def _variance_over_seeds(jobs: Array) -> Array:
    """Variance over seeds (ddof 1), pooled over units by degrees of freedom; NaN where no unit has two seeds."""
    there = np.isfinite(jobs)
    freedom = np.maximum(there.sum(axis=2) - 1, 0).sum(axis=1)
    squares = np.nansum((jobs - mean_of_finite(jobs, axis=2)[..., None]) ** 2, axis=(1, 2))
    return np.where(freedom > 0, squares / freedom, np.nan)


def _not_compared(differences: Array, ranked: NDArray[np.bool_], what: str) -> list[str]:
    gaps = int(np.isnan(differences[np.ix_(ranked, ranked)]).sum()) // 2
    return [f"{gaps} pair{'' if gaps == 1 else 's'} of methods share no {what} and are not compared"] if gaps else []


def _why_no_score(values: Array, metrics: list[str], n_units: int) -> str:
    absent = [metric for k, metric in enumerate(metrics) if not np.isfinite(values[:, k]).any()]
    if len(absent) == len(metrics):
        return "it has no value"
    if absent:
        return f"it has no {' and no '.join(absent)}"
    if n_units == 0:
        return f"no unit where it, {FLOOR} and {CEILING} have every primary metric"
    return f"{CEILING} is not better than {FLOOR} on the {_units(n_units)} it has"


def _matrix(square: pd.DataFrame, names: list[str]) -> Array:
    return square.reindex(index=names, columns=names).to_numpy(float)


def _column(found: list[Comparison], names: list[str], column: str) -> Array:
    """A column of every task's frame: (n_tasks, n_methods)."""
    return np.stack([one.frame[column].reindex(names).to_numpy(float) for one in found])


def _by_set(values: Array, set_of: NDArray[np.int_]) -> tuple[Array, Array]:
    """Sums of finite values (n_tasks, n_values) over the tasks of each data set, and their number; NaN of none.

    Both are (n_sets, n_values, 1): their ratio of means is the mean over tasks, with data sets as replicates.
    """
    there = np.isfinite(values)
    member = np.eye(set_of.max() + 1)[:, set_of]
    number = member @ there
    total = np.where(number > 0, member @ np.where(there, values, 0.0), np.nan)
    return total[..., None], number[..., None]


def _data_set(task: str) -> str:
    """The data set in a task's label, ``task/data``; a label without one is a data set of its own."""
    return task.partition("/")[2] or task


def _units(count: int) -> str:
    return f"{count} unit{'' if count == 1 else 's'}"
