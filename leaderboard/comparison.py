"""Comparison of methods by their relative errors: on one task, and over the tasks of a suite.

All methods of a table and the task's baseline make one family: every verdict, the set of the best and the bounds of
ranks come from the same adjusted p values of all pairs (:func:`leaderboard.statistics.adjusted`), so that no sentence
can contradict a table.

- *verdict*, of a method against the baseline or of a pair: ``better`` or ``worse`` where the adjusted p is below 5 %,
  ``equivalent`` where the 95 % interval of the ratio lies within ±5 %, else ``undecided``.
- *best*: the methods that nothing in the family, the baseline included, is shown to beat.
- *rank*, among methods: from 1 + the number of methods that are shown to be better, to the number of those that are not
  shown to be worse.
- A method that gives the very errors of another method, or of the baseline, is no member of the family: it gets the
  other's verdicts. Floor, ceiling, true structure and oracles are no members either.
- *larger of two*: where a task needs both of its primary metrics (``two_sided``), a method's relative error is that of
  the metric in which it is worse; else the geometric mean over the metrics.

What is missing is never filled in: a pair is compared on the units that both have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leaderboard import statistics
from leaderboard.statistics import ALPHA, NO_DIFFERENCE, Array, Block, Means, mean_of_finite

FLOOR, BASELINE, CEILING, STRUCTURE = "floor", "baseline", "ceiling", "structure"
#: The verdict on a method that is the baseline.
THE_BASELINE = "the baseline"
#: A relative error that is told from 1 when this many replicates are asked for.
TENTH = float(np.log(0.9))
COLUMNS = ("relative_error", "low", "high", "p_better", "p", "verdict", "best", "rank_low", "rank_high")
PAIR_COLUMNS = (
    "method",
    "other",
    "ratio",
    "low",
    "high",
    "p_better",
    "p",
    "verdict",
    "least",
    "replicates_for_10_percent",
)


@dataclass(frozen=True)
class Power:
    """What a task, or a suite, can tell; NaN where nothing is known.

    Attributes
    ----------
    detectable
        The relative error nearest to 1 (below it) that is told from 1 with 80 % power after adjustment: the median over
        the methods.
    replicates, replicates_for_10_percent
        Replicates that there are, and how many would tell a relative error of .9; for a suite NaN.
    resolved, n_pairs
        Pairs of the family that are told apart, of how many.
    room
        Logarithm of the ceiling's relative error, divided by that of the detectable one: how many steps there are
        between baseline and ceiling.
    """

    detectable: float
    replicates: int
    replicates_for_10_percent: float
    resolved: int
    n_pairs: int
    room: float


@dataclass(frozen=True)
class Comparison:
    """How the methods and references compare on a task, or on a suite.

    Attributes
    ----------
    frame
        By method: the columns of :data:`COLUMNS`, n_units (for a suite n_tasks), n_replicates and reason (why there is
        no relative error, else empty); p and p_better are against the baseline. For a suite also others_low and
        others_high, the interval for other tasks like these. A method outside the family has no p, verdict and rank.
    pairs
        One row for each pair of the family, and for each pair with the baseline: the columns of :data:`PAIR_COLUMNS`,
        of ``method``'s error divided by ``other``'s; ``least`` is the difference of logarithms from which on it is
        told.
    units
        Logarithm of the relative error in each unit, method × unit; for a suite method × task.
    worst
        The primary metric that a method's relative error rests on, by method; empty where all count alike.
    power
        What can be told.
    notes
        What cannot be concluded, and why.
    samples
        What a task's comparison rests on, methods in the order of ``frame``; None for a suite.
    """

    frame: pd.DataFrame
    pairs: pd.DataFrame
    units: pd.DataFrame
    worst: Mapping[str, str]
    power: Power
    notes: tuple[str, ...]
    samples: "Samples | None" = None


@dataclass(frozen=True)
class Samples:
    """The logarithms of the relative errors of a task.

    Attributes
    ----------
    values
        (n_methods, n_units, n_seeds), NaN where there is none.
    draws
        Draw of each unit; None for real data.
    one_fit
        Whether all units are scored from one fit.
    """

    values: Array
    draws: tuple[int | None, ...]
    one_fit: bool

    def block(self, values: Array) -> Block:
        """Return some values (n_values, n_units, n_seeds) of the same units by replicate."""
        return statistics.block(values, self.draws, self.one_fit)


def compare(
    errors: Array,
    roles: Mapping[str, str],
    units: Sequence[str],
    draws: Sequence[int | None],
    metrics: Sequence[str],
    two_sided: bool = False,
    one_fit: bool = False,
) -> Comparison:
    """Compare methods on one task.

    Parameters
    ----------
    errors
        (n_methods, n_units, n_seeds, n_metrics), of the primary metrics; NaN where there is no value.
    roles
        The role of every method: ``method``, ``reference`` or ``oracle``.
    units, draws
        Names of the units, and the draw of each; None for real data.
    metrics
        Names of the primary metrics.
    two_sided, one_fit
        As the task has them.
    """
    names = list(roles)
    notes: list[str] = []
    if not metrics:
        return _nothing(names, units, "no primary metric: nothing is compared")
    if BASELINE not in names or not np.isfinite(errors[names.index(BASELINE)]).any():
        return _nothing(
            names, units, "no result of the baseline: raw metrics only, as there is nothing to compare with"
        )
    baseline = errors[names.index(BASELINE)]
    floor = errors[names.index(FLOOR)] if FLOOR in names else np.full_like(baseline, np.nan)
    if not np.isfinite(floor).any():
        notes.append("no result of the floor: errors are not cut at that of knowing nothing")
    logs = statistics.log_relative_errors(errors, baseline, floor)
    perfect = np.isfinite(baseline) & (baseline <= 0)
    if perfect.any():
        notes.append(
            f"the baseline has no error in {_counted(int(perfect.any(axis=2).any(axis=1).sum()), 'unit')}: nothing can "
            "be compared with it there"
        )
    values, worst = _combined(logs, names, list(metrics), two_sided)
    samples = Samples(values, tuple(draws), one_fit)
    found = _compared([samples], names, roles)
    frame = found.frame
    by_unit = mean_of_finite(values, axis=2)
    frame["n_units"] = np.isfinite(by_unit).sum(axis=1)
    frame["n_replicates"] = samples.block(values).means().n
    frame["reason"] = ["" if n else _why_none(errors[m], list(metrics)) for m, n in enumerate(frame["n_units"])]
    notes += found.notes
    notes += _ordered(frame["relative_error"])
    return Comparison(
        frame=frame,
        pairs=found.pairs,
        units=pd.DataFrame(by_unit, names, list(units)),
        worst=worst,
        power=found.power,
        notes=tuple(notes),
        samples=samples,
    )


def compare_suite(tasks: Mapping[str, Comparison], roles: Mapping[str, str]) -> Comparison:
    """Compare methods over tasks: the geometric mean of the relative errors that a method has.

    Two methods are compared over the tasks that both have. The intervals are for *these tasks* (from draws and units);
    ``others_low`` and ``others_high`` are for *other tasks like them* (Student's over tasks).
    """
    names = list(roles)
    used = {
        task: comparison
        for task, comparison in tasks.items()
        if comparison.samples and comparison.frame["relative_error"].notna().any()
    }
    notes = [f"left out: {task}, where nothing has a relative error" for task in tasks if task not in used]
    if len(used) < 2:
        reason = f"{_counted(len(used), 'task')} with relative errors: there is no suite to speak of"
        nothing = _nothing(names, [], reason)
        return Comparison(nothing.frame, nothing.pairs, nothing.units, {}, nothing.power, (*notes, *nothing.notes))
    samples = [_reordered(comparison, names) for comparison in used.values()]
    found = _compared(samples, names, roles)
    frame = found.frame
    by_task = np.stack([sample.block(sample.values).means().value for sample in samples], axis=1)
    frame["n_units"] = np.isfinite(by_task).sum(axis=1)
    frame["n_replicates"] = frame["n_units"]
    other = Block(by_task.T).means()
    low, high = other.interval()
    frame["others_low"], frame["others_high"] = np.exp(low), np.exp(high)
    frame["reason"] = np.where(frame["n_units"] == 0, "no relative error on any task", "")
    thin = [task for task, comparison in used.items() if (comparison.frame["n_replicates"] == 1).any()]
    if thin:
        notes.append(f"one replicate alone, so that there is no interval over all tasks: {', '.join(thin)}")
    sets = pd.Series({task: task.partition("/")[2] or task for task in used})
    for _, shared in sets.groupby(sets, sort=False):
        if len(shared) > 1:
            notes.append(f"on one data set, so not independent of each other: {', '.join(shared.index)}")
    return Comparison(
        frame=frame,
        pairs=found.pairs,
        units=pd.DataFrame(by_task, names, list(used)),
        worst={},
        power=found.power,
        notes=(*notes, *found.notes),
    )


def _compared(samples: Sequence[Samples], names: list[str], roles: Mapping[str, str]) -> Comparison:
    """Compare over one task or several; callers add the columns and notes of a task or a suite."""
    notes: list[str] = []
    alone = statistics.average([sample.block(sample.values).means() for sample in samples])
    low, high = alone.interval()
    same_as, duplicates = _duplicates(samples, names, roles)
    family = [name for name in names if name == BASELINE or (roles[name] == "method" and same_as[name] == name)]
    family = [name for name in family if np.isfinite(alone.value[names.index(name)])]
    notes += duplicates
    first, second = np.triu_indices(len(family), 1)
    at = np.array([names.index(name) for name in family], dtype=int)
    blocks = [sample.block(sample.values[at[first]] - sample.values[at[second]]) for sample in samples]
    means = statistics.average([block.means() for block in blocks])
    p, critical = statistics.adjusted(blocks, means)
    pairs = _pairs(family, (first, second), means, p, critical)
    absent = int((means.n == 0).sum())
    if absent:
        notes.append(f"{_counted(absent, 'pair')} of methods share no unit and are not compared")

    frame = pd.DataFrame(
        {"relative_error": np.exp(alone.value), "low": np.exp(low), "high": np.exp(high)}, index=names
    ).reindex(columns=list(COLUMNS))
    frame["p_better"] = alone.below_zero()
    better = np.zeros((len(family), len(family)), dtype=bool)  # whether the row is shown to beat the column
    told = p < ALPHA
    better[first[told & (means.value < 0)], second[told & (means.value < 0)]] = True
    better[second[told & (means.value > 0)], first[told & (means.value > 0)]] = True
    is_method = np.array([name != BASELINE for name in family], dtype=bool)
    tested = np.isfinite(p).any()
    blank: dict[str, Any] = {"p": np.nan, "verdict": "", "best": False, "rank_low": np.nan, "rank_high": np.nan}
    records = dict.fromkeys(names, blank)
    tests = {row.method: {"p": row.p, "verdict": row.verdict} for row in pairs.itertuples() if row.other == BASELINE}
    for m, name in enumerate(family):
        records[name] = {**blank, **tests.get(name, {}), "best": bool(tested and not better[:, m].any())}
        if is_method[m] and tested:
            records[name]["rank_low"] = 1 + better[is_method, m].sum()
            records[name]["rank_high"] = is_method.sum() - better[m, is_method].sum()
    for name, other in same_as.items():
        records[name] = records[other] | ({"verdict": THE_BASELINE} if other == BASELINE else {})
    frame[list(blank)] = pd.DataFrame.from_dict(records, orient="index")
    alike = [name for name in names if roles[name] != "method" or same_as[name] == BASELINE]
    frame.loc[alike, "p_better"] = np.nan
    of_methods = [names.index(name) for name in family if name != BASELINE]
    power = _power(alone, of_methods, critical, told, frame["relative_error"].get(CEILING, np.nan), len(samples) == 1)
    return Comparison(frame, pairs, pd.DataFrame(), {}, power, tuple(notes))


def _pairs(
    family: Sequence[str], at: tuple[NDArray[np.int_], NDArray[np.int_]], means: Means, p: Array, critical: float
) -> pd.DataFrame:
    """Return a row for each pair; the better one is named first, the baseline always second."""
    low, high = means.interval()
    swapped = np.array(
        [family[i] == BASELINE or (family[j] != BASELINE and v > 0) for i, j, v in zip(*at, means.value, strict=True)]
    )
    sign = np.where(swapped, -1.0, 1.0)
    value = sign * means.value
    low, high = np.where(swapped, -high, low), np.where(swapped, -low, high)
    probability = means.below_zero()
    first, second = np.where(swapped, at[1], at[0]), np.where(swapped, at[0], at[1])
    return pd.DataFrame(
        {
            "method": [family[i] for i in first],
            "other": [family[j] for j in second],
            "ratio": np.exp(value),
            "low": np.exp(low),
            "high": np.exp(high),
            "p_better": np.where(swapped, 1 - probability, probability),
            "p": p,
            "verdict": [statistics.verdict(*numbers) for numbers in zip(value, low, high, p, strict=True)],
            "least": critical * means.error,
            "replicates_for_10_percent": [
                statistics.replicates_for(TENTH, error, freedom, critical, int(n))
                for error, freedom, n in zip(means.error, means.freedom, means.n, strict=True)
            ],
        },
        columns=list(PAIR_COLUMNS),
    )


def _power(
    alone: Means, of_methods: list[int], critical: float, told: NDArray[np.bool_], ceiling: float, one_task: bool
) -> Power:
    errors, freedoms = alone.error[of_methods], alone.freedom[of_methods]
    steps = [statistics.detectable(e, freedom, critical) for e, freedom in zip(errors, freedoms, strict=True)]
    steps = [step for step in steps if np.isfinite(step)]
    n = int(alone.n[of_methods].max(initial=0))
    if not steps:
        return Power(np.nan, n, np.nan, int(told.sum()), len(told), np.nan)
    step = float(np.median(steps))
    needed = n * (step / TENTH) ** 2 if one_task else np.nan
    return Power(np.exp(-step), n, needed, int(told.sum()), len(told), -float(np.log(ceiling)) / step)


def _combined(
    logs: Array, names: Sequence[str], metrics: Sequence[str], two_sided: bool
) -> tuple[Array, dict[str, str]]:
    """Return (n_methods, n_units, n_seeds) of all metrics together, and the metric that each method rests on."""
    if len(metrics) == 1:
        return logs[..., 0], {}
    if not two_sided:
        return logs.mean(axis=3), {}
    whole = np.where(np.isfinite(logs).all(axis=3, keepdims=True), logs, np.nan)
    means = mean_of_finite(whole.reshape(len(logs), -1, len(metrics)), axis=1)
    chosen = np.argmax(np.where(np.isfinite(means), means, -np.inf), axis=1)
    # the baseline is 1 in every metric, so that it rests on none
    worst = {name: metrics[k] for name, k, mean in zip(names, chosen, means, strict=True) if np.isfinite(mean).all()}
    worst.pop(BASELINE, None)
    return whole[np.arange(len(logs)), ..., chosen], worst


def _duplicates(
    samples: Sequence[Samples], names: Sequence[str], roles: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return for each method the first that gives the same errors, the baseline before all, and notes."""
    flat = np.concatenate([sample.values.reshape(len(names), -1) for sample in samples], axis=1)
    methods = [name for name in names if roles[name] == "method"]
    floor = flat[names.index(FLOOR)] if FLOOR in names else np.nan
    same_as, notes = {}, []
    for name in methods:
        mine = flat[names.index(name)]
        earlier = [BASELINE, *methods[: methods.index(name)]] if BASELINE in names else methods[: methods.index(name)]
        others = flat[[names.index(other) for other in earlier]]
        equal = np.isclose(others, mine, rtol=0, atol=NO_DIFFERENCE, equal_nan=True).all(axis=1)
        same_as[name] = earlier[int(equal.argmax())] if equal.any() and np.isfinite(mine).any() else name
        if same_as[name] != name:
            cut = np.allclose(mine, floor, rtol=0, atol=NO_DIFFERENCE, equal_nan=True)
            why = "errs as the floor or more, as {} does" if cut else "gives the very errors of {}"
            notes.append(f"{name} {why.format(same_as[name])}, and is compared as that one")
    return same_as, notes


def _ordered(errors: pd.Series) -> list[str]:
    """Say where the references are not in order, so that the task does not resolve."""
    notes = []
    if errors.get(CEILING, np.nan) >= 1:
        notes.append(
            f"the ceiling's error is {errors[CEILING]:.2f} of the baseline's: there is no room above the baseline, so "
            "that no method can be shown to be better, and this task says nothing about who is"
        )
    if CEILING not in errors or np.isnan(errors[CEILING]):
        notes.append("no result of the ceiling: how much room there is above the baseline is not known")
    if errors.get(FLOOR, np.nan) <= 1:
        notes.append(f"the floor's error is {errors[FLOOR]:.2f} of the baseline's: to know nothing does as well as it")
    return notes


def _nothing(names: list[str], units: Sequence[str], reason: str) -> Comparison:
    frame = pd.DataFrame(np.nan, index=names, columns=[*COLUMNS, "others_low", "others_high"])
    frame = frame.assign(verdict="", best=False, n_units=0, n_replicates=0, reason=reason)
    units_frame = pd.DataFrame(np.nan, index=names, columns=list(units))
    power = Power(np.nan, 0, np.nan, 0, 0, np.nan)
    return Comparison(frame, pd.DataFrame(columns=list(PAIR_COLUMNS)), units_frame, {}, power, (reason,))


def _reordered(comparison: Comparison, names: Sequence[str]) -> Samples:
    """Return the samples of a task in another order of methods; NaN where the task does not have one."""
    samples = comparison.samples
    assert samples is not None
    at = pd.Index(comparison.frame.index).get_indexer(pd.Index(names))
    values = np.where((at >= 0)[:, None, None], samples.values[at], np.nan)
    return Samples(values, samples.draws, samples.one_fit)


def _why_none(errors: Array, metrics: Sequence[str]) -> str:
    absent = [metric for k, metric in enumerate(metrics) if not np.isfinite(errors[..., k]).any()]
    if len(absent) == len(metrics):
        return "it has no value"
    if absent:
        return f"it has no {' and no '.join(absent)}"
    return "no unit where it and the baseline have every primary metric"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
