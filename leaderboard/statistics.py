r"""Relative errors, their intervals, and one family of tests over all that is compared.

With :math:`e_{mu}` the error of method :math:`m` on held-out unit :math:`u` and :math:`b_u` that of the task's best
simple baseline there, everything rests on :math:`\ell_{mu} = \log(e_{mu} / b_u)`. Its mean over *replicates* is the
logarithm of the relative error: 1 is no better than the baseline, .5 half its error. Two methods are compared by the
differences of their :math:`\ell` on the units that both have; the baseline's error cancels there.

*Replicates* are what another experiment would bring anew:

- the draws of a simulator, each the mean over its units, where there are two draws or more;
- else the held-out units. Each has its own fit, but the fits share most of their training cells, so that their errors
  are correlated; the variance of the mean is :math:`s^2 (\frac1n + \frac1{n-1})` for :math:`\frac{s^2}n` (Benavoli
  et al. 2017, JMLR 18(77), section 3.2: :math:`\frac1n + \frac\rho{1-\rho}` with :math:`\rho = \frac1n`);
- where all units are scored from one fit, units and seeds are crossed, and the variance is that of the unit means over
  :math:`n` plus that of the seed means over their number, moderated.

Intervals and p values are Student's on the replicates (degrees of freedom by Satterthwaite where variances are added).
The p values of all pairs are adjusted together, by Westfall and Young's step-down minimum p (1993, algorithm 2.8), the
joint distribution coming from flipped signs of whole replicates: pairs that go together are not paid for twice. Flips
know nothing of the noise of seeds, so that crossed units and seeds are adjusted by Holm, as are few replicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

ALPHA = 0.05
POWER = 0.8
#: Methods whose ratio of errors is surely within this factor of 1 are equivalent.
MARGIN = float(np.log(1.05))
#: An error counts as a hundredth of the baseline's at least.
LEAST_SHARE = 0.01
N_FLIPS = 4000
#: With fewer replicates flipped signs cannot give a p below 5 %.
MIN_FLIPPED = 6
#: Differences of logarithms below this are rounding.
NO_DIFFERENCE = 1e-9
BETTER, EQUIVALENT, WORSE, UNDECIDED = "better", "equivalent", "worse", "undecided"
_SEED = 20261127

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Means:
    """Means over replicates; every array is (n_values,), NaN is "not defined".

    Attributes
    ----------
    value, error, freedom
        Mean, its standard error and its degrees of freedom.
    n
        Replicates that it rests on.
    """

    value: Array
    error: Array
    freedom: Array
    n: NDArray[np.int_]

    def interval(self, share: float = 1 - ALPHA) -> tuple[Array, Array]:
        """Return the limits of Student's interval that covers this share."""
        half = stdtrit(np.where(self.freedom > 0, self.freedom, np.nan), (1 + share) / 2) * self.error
        return self.value - half, self.value + half

    def p(self) -> Array:
        """Return the two-sided p value of "zero"; NaN where there is no error to measure by."""
        return 2 * stdtr(self.freedom, -np.abs(self._t()))

    def below_zero(self) -> Array:
        """Return the probability that the mean is below zero, all being equally likely before the data."""
        return stdtr(self.freedom, -self._t())

    def _t(self) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(np.abs(self.value) < NO_DIFFERENCE, 0.0, self.value / self.error)


def log_relative_errors(errors: Array, baseline: Array, floor: Array) -> Array:
    """Return log(error / baseline), unit by unit and metric by metric.

    An error counts as the floor's at most, since nothing is worse than to know nothing, and as a hundredth of the
    baseline's at least. NaN where the baseline has no error above zero: nothing can be compared with it.

    Parameters
    ----------
    errors
        (n_methods, ...), not negative.
    baseline, floor
        The same without the first axis; where the floor is missing or below the baseline, nothing is cut.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        most = np.where(floor > baseline, floor / baseline, np.inf)
        ratios = np.where((baseline > 0) & np.isfinite(baseline), errors / baseline, np.nan)
        return np.log(np.clip(ratios, LEAST_SHARE, most))


def mean_of_finite(values: Array, axis: int) -> Array:
    """Return the mean of the finite values, NaN where there are none."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0.0).sum(axis=axis) / there.sum(axis=axis)


@dataclass(frozen=True)
class Block:
    """The values of one task, by replicate: all that means, intervals and tests need of it.

    Attributes
    ----------
    by_replicate
        (n_replicates, n_values), NaN where a replicate has no value.
    folds
        Whether replicates are units that were held out in turn, whose fits share training cells.
    by_seed
        Where all units are scored from one fit: the means of each seed, (n_seeds, n_values); else None.
    """

    by_replicate: Array
    folds: bool = False
    by_seed: Array | None = None

    def means(self) -> Means:
        """Return the mean of each value with its standard error."""
        value, variance, n = _moments(self.by_replicate)
        with np.errstate(divide="ignore", invalid="ignore"):
            of_mean = variance * (1 / n + 1 / (n - 1) if self.folds else 1 / n)
        freedom = np.where(n > 1, n - 1.0, np.nan)
        if self.by_seed is None:
            return Means(value, np.sqrt(of_mean), freedom, n)
        _, variance, n_seeds = _moments(self.by_seed)
        crossed = n_seeds > 1
        variance, of_seed = _moderated(variance, n_seeds.astype(float) - 1)
        of_seeds = np.where(crossed, variance / np.maximum(n_seeds, 1), 0.0)
        total, freedom = _added([of_mean, of_seeds], [freedom, np.where(crossed, of_seed, np.inf)])
        return Means(value, np.sqrt(total), freedom, n)


def block(values: Array, draws: Sequence[object], one_fit: bool) -> Block:
    """Return the values of a task by its replicates.

    Parameters
    ----------
    values
        (n_values, n_units, n_seeds), NaN where there is none.
    draws
        The draw of each unit; None for real data.
    one_fit
        Whether all units of a draw are scored from one fit.
    """
    by_unit = mean_of_finite(values, axis=2)
    numbers = {draw: number for number, draw in enumerate(dict.fromkeys(draws))}
    if len(numbers) > 1:
        of_unit = np.array([numbers[draw] for draw in draws])
        return Block(np.stack([mean_of_finite(by_unit[:, of_unit == g], axis=1) for g in range(len(numbers))]))
    if one_fit:
        return Block(by_unit.T, by_seed=mean_of_finite(values, axis=1).T)
    return Block(by_unit.T, folds=True)


def average(means: Sequence[Means]) -> Means:
    """Return the mean over tasks of the means that each has; a value is over the tasks that have it.

    The tasks are fixed, so that the error is that of *these tasks*, and ``n`` is their number. A single task's means
    are returned as they are.
    """
    if len(means) == 1:
        return means[0]
    there = np.array([np.isfinite(mean.value) for mean in means])
    n_tasks = there.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(there, [mean.value for mean in means], 0.0).sum(axis=0) / n_tasks
        parts = [np.where(known, mean.error**2 / n_tasks**2, 0.0) for mean, known in zip(means, there, strict=True)]
    total, freedom = _added(parts, [np.where(k, mean.freedom, np.inf) for mean, k in zip(means, there, strict=True)])
    return Means(value, np.sqrt(np.where(n_tasks > 0, total, np.nan)), freedom, n_tasks)


def adjusted(blocks: Sequence[Block], observed: Means) -> tuple[Array, float]:
    """Adjust the p values of several differences for each other.

    Parameters
    ----------
    blocks
        The differences of each task, (n_replicates, n_values); the means over tasks are tested.
    observed
        Their :func:`average`, or the means of the only block.

    Returns
    -------
    p
        (n_values,), adjusted; NaN where there is no p value.
    critical
        The |t| beyond which the most extreme of all lies in 5 %.
    """
    p = observed.p()
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN sorts last
    p_adjusted = np.full(len(p), np.nan)
    if not len(order):
        return p_adjusted, np.nan
    freedom = observed.freedom[order]
    few = max(len(block.by_replicate) for block in blocks) < MIN_FLIPPED
    if few or any(block.by_seed is not None and len(block.by_seed) > 1 for block in blocks):
        return holm(p), float(stdtrit(np.median(freedom), 1 - ALPHA / 2 / len(order)))
    p_flipped = _flipped(blocks, order)
    # step down: the p of each rank is compared with the least of those ranked after it, itself included
    least = np.minimum.accumulate(p_flipped[:, ::-1], axis=1)[:, ::-1]
    p_adjusted[order] = np.maximum.accumulate((least <= p[order] * (1 + 1e-9)).mean(axis=0))
    most_extreme = np.quantile(p_flipped.min(axis=1), ALPHA)
    return p_adjusted, float(stdtrit(np.median(freedom), 1 - most_extreme / 2))


def holm(p: Array) -> Array:
    """Return p values (n_values,) adjusted for each other by Holm's method (1979); NaN stays."""
    order = np.argsort(p)[: np.isfinite(p).sum()]  # NaN sorts last
    p_adjusted = np.full(len(p), np.nan)
    p_adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return p_adjusted


def verdict(value: float, low: float, high: float, p: float) -> str:
    """Return the verdict on a logarithm of a ratio of errors: a word, empty where there is no test.

    Parameters
    ----------
    value, low, high
        The logarithm and its 95 % interval.
    p
        Adjusted.
    """
    if not np.isfinite(p):
        return ""
    if low > -MARGIN and high < MARGIN:
        return EQUIVALENT
    if p < ALPHA:
        return BETTER if value < 0 else WORSE
    return UNDECIDED


def detectable(error: float, freedom: float, critical: float) -> float:
    """Return the difference of logarithms that is told from zero with 80 % power by a test with this critical |t|."""
    return float((critical + stdtrit(freedom, POWER)) * error) if error > NO_DIFFERENCE else np.nan


def replicates_for(difference: float, error: float, freedom: float, critical: float, n: int) -> float:
    """Return how many replicates would tell this difference of logarithms, at the spread that n replicates have."""
    return n * (detectable(error, freedom, critical) / difference) ** 2


def _moments(values: Array) -> tuple[Array, Array, NDArray[np.int_]]:
    """Return mean, variance (n − 1) and number of the finite values in each column."""
    there = np.isfinite(values)
    n = there.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(there, values, 0.0).sum(axis=0) / n
        variance = np.where(there, (values - mean) ** 2, 0.0).sum(axis=0) / (n - 1)
    return mean, np.where(n > 1, variance, np.nan), n


def _moderated(variance: Array, freedom: Array) -> tuple[Array, Array]:
    """Return variances and their degrees of freedom, two of which are borrowed from all values (Smyth 2004).

    Some variances of three seeds are tiny by chance; without this, such pairs would seem to differ.
    """
    known = variance > 0
    if known.sum() < 3:
        return variance, freedom
    prior = 2.0
    moderated = (freedom * variance + prior * variance[known].mean()) / (freedom + prior)
    return np.where(known, moderated, variance), np.where(known, freedom + prior, freedom)


def _added(variances: Sequence[Array], freedoms: Sequence[Array]) -> tuple[Array, Array]:
    """Return the sum of independent variances and its degrees of freedom (Satterthwaite 1946)."""
    total = np.sum(variances, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.sum([v**2 / f for v, f in zip(variances, freedoms, strict=True)], axis=0)
        freedom = np.where(total > 0, total**2 / below, np.min(freedoms, axis=0))
    return total, freedom


def _flipped(blocks: Sequence[Block], chosen: NDArray[np.int_]) -> Array:
    """Return the p values of the chosen values with the signs of whole replicates flipped, (n_flips, n_chosen)."""
    rng = np.random.default_rng(_SEED)
    total, variance, below = (np.zeros(()) for _ in range(3))
    for block in blocks:
        values = block.by_replicate[:, chosen]
        there = np.isfinite(values)
        values, n = np.where(there, values, 0.0), there.sum(axis=0)
        signs = _signs(len(values), rng) if len(blocks) == 1 else rng.choice([-1.0, 1.0], (N_FLIPS, len(values)))
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = signs @ values / n
            of_mean = np.maximum((values**2).sum(axis=0) / n - mean**2, 0.0) / (n - 1)
            of_mean = np.where(n > 1, of_mean, 0.0)
            below = below + np.where(n > 1, of_mean**2 / (n - 1), 0.0)
        total, variance = total + np.where(n > 1, mean, 0.0), variance + of_mean
    with np.errstate(divide="ignore", invalid="ignore"):
        t, freedom = np.abs(total) / np.sqrt(variance), np.maximum(variance**2 / below, 1.0)
    # without any spread all flips are alike: zero, or as far from it as can be
    return np.where(variance > 0, 2 * stdtr(freedom, -t), np.where(total == 0, 1.0, 0.0))


def _signs(n: int, rng: np.random.Generator) -> Array:
    """Return every flip of n signs, (n_flips, n), where they are few, else a sample; the first flips nothing."""
    if 2 ** (n - 1) <= N_FLIPS:
        return np.array([(1.0, *rest) for rest in product((1.0, -1.0), repeat=n - 1)])
    signs = rng.choice([-1.0, 1.0], (N_FLIPS, n))
    signs[0] = 1.0
    return signs
