r"""Scaled scores, and 95 % intervals by resampling the held-out units.

The unit of replication is the held-out unit: what enters here is one value per unit (already averaged
over seeds) and metric, for a method and for the task's controls. With :math:`u` a unit, :math:`k` a
primary metric, :math:`N_0` the information-free control and :math:`P` the ceiling, the score is

.. math:: s = \frac{1}{K} \sum_k \frac{\sum_u (m_{uk} - N_{0,uk})}{\sum_u (P_{uk} - N_{0,uk})},

a ratio of means over units, so that one unit with a tiny range cannot dominate, and unclipped. The
difference to the simple baseline N1 is the same expression with :math:`m - N_1` above the line.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

N_RESAMPLES = 2000
TAIL = 0.025  # on either side of the 95 % interval
MIN_BOOTSTRAP_UNITS = 8
_SEED = 20240229

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval and the number of units that it rests on; NaN is "not defined"."""

    value: float
    low: float
    high: float
    n_units: int


UNDEFINED = Estimate(np.nan, np.nan, np.nan, 0)


@lru_cache(maxsize=4)
def resample_weights(n_units: int) -> Array:
    """How often each unit is drawn in each bootstrap resample, as shares.

    The generator is seeded anew for every ``n_units``: everything computed over the same units is
    computed on the same resamples, which is what makes the comparisons paired.

    Returns
    -------
    weights : (N_RESAMPLES, n_units), every row sums to one. Read-only, as it is shared.
    """
    counts = np.random.default_rng(_SEED).multinomial(n_units, np.full(n_units, 1 / n_units), N_RESAMPLES)
    weights = counts / n_units
    weights.flags.writeable = False
    return weights


def _percentile_interval(draws: Array, n_units: int) -> tuple[float, float]:
    r"""The expanded percentile interval (Hesterberg 2014, arXiv:1411.5279).

    The plain percentiles use a variance with divisor :math:`n` and a normal quantile, so with few units they
    are too short. The tail cut off here is :math:`\Phi(-\sqrt{n/(n-1)}\; t_{n-1,\,.975})` instead of .025.
    """
    tail = ndtr(-np.sqrt(n_units / (n_units - 1)) * stdtrit(n_units - 1, 1 - TAIL))
    low, high = np.quantile(draws, (tail, 1 - tail))
    return float(low), float(high)


def mean_over_units(values: Array) -> Estimate:
    """Mean with its bootstrap interval; no interval with fewer than two units.

    Parameters
    ----------
    values : (n_units,), finite.
    """
    n_units = len(values)
    if n_units == 0:
        return UNDEFINED
    if n_units == 1:
        return Estimate(float(values[0]), np.nan, np.nan, 1)
    return Estimate(float(values.mean()), *_percentile_interval(resample_weights(n_units) @ values, n_units), n_units)


def ratio_of_means(numerator: Array, denominator: Array) -> Estimate:
    r"""Mean over metrics of (mean over units of the numerator / mean over units of the denominator).

    Interval: from ``MIN_BOOTSTRAP_UNITS`` units on, the paired bootstrap over units with expanded
    percentiles. Below, the quantiles needed run into the largest and smallest resample, so a Student interval
    with :math:`n-1` degrees of freedom is taken on the linearised values of the ratio,
    :math:`\psi_u = \frac1K \sum_k (a_{uk} - s_k b_{uk}) / \bar b_k`. With one unit there is none. Measured
    on skewed simulated units (two metrics, 4,000 draws), the 95 % interval covers .92 to .94 with 3 to 20
    units; plain percentiles cover .74 with 3, .82 with 5, .87 with 8, .90 with 12 and .92 with 20.

    Parameters
    ----------
    numerator, denominator : (n_units, n_metrics), finite. The denominator is the range P − N0 turned so
        that better is larger; where its mean is not positive the ratio means nothing and is NaN.
    """
    n_units = len(numerator)
    if n_units == 0:
        return UNDEFINED
    scale = denominator.mean(axis=0)
    if not np.all(scale > 0):
        return Estimate(np.nan, np.nan, np.nan, n_units)
    ratios = numerator.mean(axis=0) / scale
    value = float(ratios.mean())
    if n_units == 1:
        return Estimate(value, np.nan, np.nan, 1)
    if n_units < MIN_BOOTSTRAP_UNITS:
        linearised = ((numerator - ratios * denominator) / scale).mean(axis=1)
        half = float(stdtrit(n_units - 1, 1 - TAIL) * linearised.std(ddof=1) / np.sqrt(n_units))
        return Estimate(value, value - half, value + half, n_units)
    weights = resample_weights(n_units)
    drawn_scale = weights @ denominator
    # The rare resamples without a positive range have no score and are left out of the quantiles.
    defined = (drawn_scale > 0).all(axis=1)
    draws = ((weights @ numerator)[defined] / drawn_scale[defined]).mean(axis=1)
    return Estimate(value, *_percentile_interval(draws, n_units), n_units)


def scaled_difference(method: Array, reference: Array, floor: Array, ceiling: Array, sign: Array) -> Estimate:
    """Task score of a method minus that of a reference, over the units that all four have in common.

    With the floor N0 as the reference this is the scaled score itself: 0 for N0, 1 for P, unclipped.

    Parameters
    ----------
    method, reference, floor, ceiling : (n_units, n_metrics), rows are the same units; NaN where missing.
        A unit counts when every metric is there for all four.
    sign : (n_metrics,), 1 where higher is better and −1 where lower is.
    """
    common = np.isfinite(np.stack([method, reference, floor, ceiling])).all(axis=(0, 2))
    return ratio_of_means(
        (sign * (method - reference))[common],
        (sign * (ceiling - floor))[common],
    )


def dynamic_range(floor: Array, ceiling: Array, sign: float) -> Estimate:
    """Mean of P − N0 of one metric, turned so that positive is right, over their common units.

    Parameters
    ----------
    floor, ceiling : (n_units,), NaN where missing.
    """
    values = sign * (ceiling - floor)
    return mean_over_units(values[np.isfinite(values)])


def resolves(span: Estimate) -> bool:
    """Whether a metric tells the ceiling from the floor: the lower limit of its range is above zero.

    A single unit has no interval; there only the sign can be asked for.
    """
    return bool((span.value if span.n_units == 1 else span.low) > 0)
