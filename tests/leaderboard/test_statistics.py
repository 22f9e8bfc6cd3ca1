import numpy as np
import pytest
from scipy import stats

from leaderboard import statistics
from leaderboard.statistics import dynamic_range, mean_over_units, ratio_of_means, resolves, scaled_difference

HIGHER = np.ones(2)


def draw(rng, n_units, level=0.6):
    """Skewed units with a shared difficulty: method, N0 and P; the true task score is ``level``."""
    difficulty = rng.normal(size=(n_units, 1))
    floor = 0.1 * difficulty + 0.05 * rng.normal(size=(n_units, 2))
    ceiling = 1 + 0.3 * difficulty + 0.1 * rng.normal(size=(n_units, 2))
    skew = rng.lognormal(-0.08, 0.4, size=(n_units, 2))  # mean 1
    return floor + level * (ceiling - floor) * skew, floor, ceiling


@pytest.mark.parametrize("n_units", [1, 2, 5, 8, 30])
def test_floor_is_0_ceiling_is_1_and_a_difference_to_oneself_is_0(n_units):
    method, floor, ceiling = draw(np.random.default_rng(n_units), n_units)
    sign = np.array([1.0, 1.0])
    assert scaled_difference(floor, floor, floor, ceiling, sign).value == 0
    assert scaled_difference(ceiling, floor, floor, ceiling, sign).value == 1
    same = scaled_difference(method, method, floor, ceiling, sign)
    assert same.value == 0
    if n_units > 1:
        assert same.low == same.high == 0
        top = scaled_difference(ceiling, floor, floor, ceiling, sign)
        assert (top.low, top.high) == pytest.approx((1, 1), abs=1e-12)


def test_ratio_of_means_by_hand():
    # Metric 1: (1 + 3) / (2 + 6) = .5, not the mean of ratios; metric 2, lower is better: (−1 − 2) / (−2 − 2) = .75.
    floor = np.array([[0.0, 5.0], [1.0, 5.0]])
    ceiling = np.array([[2.0, 3.0], [7.0, 3.0]])
    method = np.array([[1.0, 4.0], [4.0, 3.0]])
    estimate = scaled_difference(method, floor, floor, ceiling, np.array([1.0, -1.0]))
    assert estimate.value == pytest.approx((0.5 + 0.75) / 2)
    assert estimate.n_units == 2


def test_scores_are_not_clipped():
    floor, ceiling = np.zeros((3, 1)), np.ones((3, 1))
    assert scaled_difference(floor - 2, floor, floor, ceiling, np.ones(1)).value == -2
    assert scaled_difference(ceiling + 2, floor, floor, ceiling, np.ones(1)).value == 3


def test_only_units_with_every_metric_of_everyone_count():
    method, floor, ceiling = draw(np.random.default_rng(0), 12)
    method[0, 1] = floor[1, 0] = ceiling[2, 1] = np.nan
    method[3, 0] = np.inf
    estimate = scaled_difference(method, floor, floor, ceiling, HIGHER)
    assert estimate.n_units == 8
    assert estimate == scaled_difference(method[4:], floor[4:], floor[4:], ceiling[4:], HIGHER)


def test_bootstrap_equals_a_plain_loop_over_resamples():
    method, floor, ceiling = draw(np.random.default_rng(1), 10)
    baseline, _, _ = draw(np.random.default_rng(2), 10)
    rng = np.random.default_rng(statistics._SEED)
    draws = []
    for _ in range(statistics.N_RESAMPLES):
        units = np.repeat(np.arange(10), rng.multinomial(10, [0.1] * 10))
        scores = []
        for who in (method, baseline):
            parts = []
            for k in range(2):
                above = np.mean([who[u, k] - floor[u, k] for u in units])
                below = np.mean([ceiling[u, k] - floor[u, k] for u in units])
                parts.append(above / below)
            scores.append(np.mean(parts))
        draws.append((scores[0], scores[0] - scores[1]))
    tail = stats.norm.cdf(-np.sqrt(10 / 9) * stats.t.ppf(0.975, 9))
    expected = np.quantile(draws, [tail, 1 - tail], axis=0)
    score = scaled_difference(method, floor, floor, ceiling, HIGHER)
    difference = scaled_difference(method, baseline, floor, ceiling, HIGHER)
    np.testing.assert_allclose([score.low, score.high], expected[:, 0], rtol=1e-10)
    np.testing.assert_allclose([difference.low, difference.high], expected[:, 1], rtol=1e-10)


def test_few_units_get_the_students_interval_of_a_plain_mean_when_the_range_is_constant():
    values = np.array([0.1, 0.5, 0.4, 0.7, 0.2])
    estimate = ratio_of_means(values[:, None] * 3, np.full((5, 1), 3.0))
    expected = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx(expected)


def test_pairing_takes_the_difficulty_of_a_unit_out():
    rng = np.random.default_rng(3)
    floor, ceiling = np.zeros((12, 1)), np.ones((12, 1))
    difficulty = rng.normal(size=(12, 1))
    method, baseline = difficulty + 0.1, difficulty
    score = scaled_difference(method, floor, floor, ceiling, np.ones(1))
    difference = scaled_difference(method, baseline, floor, ceiling, np.ones(1))
    assert score.high - score.low > 0.5
    assert difference.high - difference.low < 1e-12


@pytest.mark.parametrize("n_units", [5, 12])
def test_coverage_of_the_interval(n_units):
    rng = np.random.default_rng(n_units)
    hits = 0
    for _ in range(1000):
        method, floor, ceiling = draw(rng, n_units)
        estimate = scaled_difference(method, floor, floor, ceiling, HIGHER)
        hits += estimate.low <= 0.6 <= estimate.high
    assert 0.90 <= hits / 1000 <= 0.98


def test_coverage_of_the_paired_difference():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        method, floor, ceiling = draw(rng, 12)
        baseline = floor + 0.4 * (ceiling - floor) * rng.lognormal(-0.08, 0.4, size=(12, 2))
        estimate = scaled_difference(method, baseline, floor, ceiling, HIGHER)
        hits += estimate.low <= 0.2 <= estimate.high
    assert 0.90 <= hits / 1000 <= 0.98


def test_nothing_and_one_unit_have_no_interval():
    none = ratio_of_means(np.empty((0, 2)), np.empty((0, 2)))
    assert none.n_units == 0
    assert np.isnan([none.value, none.low, none.high]).all()
    one = ratio_of_means(np.array([[1.0]]), np.array([[2.0]]))
    assert (one.value, one.n_units) == (0.5, 1)
    assert np.isnan([one.low, one.high]).all()
    assert mean_over_units(np.empty(0)).n_units == 0


def test_a_range_that_is_not_positive_gives_no_score():
    estimate = ratio_of_means(np.ones((9, 1)), -np.ones((9, 1)))
    assert np.isnan(estimate.value)
    assert estimate.n_units == 9


def test_resolves():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=10)
    floor = np.zeros(10)
    assert resolves(dynamic_range(floor, 5 + noise, 1))
    assert not resolves(dynamic_range(floor, 5 + noise, -1))
    assert resolves(dynamic_range(floor, -5 + noise, -1))
    assert not resolves(dynamic_range(floor, noise - noise.mean(), 1))
    assert resolves(dynamic_range(np.zeros(1), np.ones(1), 1))
    assert not resolves(dynamic_range(np.zeros(1), np.zeros(1), 1))
    assert not resolves(dynamic_range(np.full(3, np.nan), np.ones(3), 1))


def test_same_rows_same_interval():
    method, floor, ceiling = draw(np.random.default_rng(1), 10)
    first = scaled_difference(method, floor, floor, ceiling, HIGHER)
    statistics.resample_weights.cache_clear()
    assert scaled_difference(method, floor, floor, ceiling, HIGHER) == first
